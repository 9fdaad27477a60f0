"""A real browser shows the page at the width of a desk and of a phone, and prints it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from katsuo.report.write import write_report

BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
PROBE = """<pre id="probe"></pre><script>
const late = [...document.querySelectorAll("main *")].filter(one => !one.closest(".wide, pre, details:not([open])"));
const right = Math.max(...late.map(one => one.getBoundingClientRect().right));
const seen = [...document.querySelectorAll("figure svg")].map(one => one.getBoundingClientRect());
document.getElementById("probe").textContent = JSON.stringify({
  inside: innerWidth, page: document.documentElement.scrollWidth, right: Math.round(right),
  drawn: seen.filter(one => one.width > 250 && one.height > 40).length,
  verdict: Math.round(document.querySelector(".verdict").getBoundingClientRect().bottom),
});
</script></body>"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser on this machine: apt-get install chromium")
    return found


def ask(browser: str, profile: Path, *flags: str) -> str:
    common = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}")
    result = subprocess.run([browser, *common, *flags], capture_output=True, text=True, timeout=120, check=True)
    return result.stdout


@pytest.fixture
def page(experiment_folder: Path, tmp_path: Path) -> Path:
    return write_report(experiment_folder, tmp_path / "report")[0]


@pytest.mark.end_to_end
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_shows_every_figure(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    text = page.read_text(encoding="utf-8")
    # The probe is a script: the copy that is measured lacks the rule against them. A frame gives a phone's width, which
    # a window cannot have.
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", PROBE)
    (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
    frame = f'<body style="margin:0"><iframe src="probed.html" style="border:0;width:{width}px;height:900px"></iframe>'
    told = "document.title=frames[0].document.getElementById('probe').textContent"
    reader = f"<script>addEventListener('load',()=>{{{told}}})</script>"
    (tmp_path / "frame.html").write_text(frame + reader, encoding="utf-8")
    flags = ("--allow-file-access-from-files", "--virtual-time-budget=5000", "--window-size=1400,1000", "--dump-dom")
    shown = ask(browser, tmp_path / "profile", *flags, (tmp_path / "frame.html").as_uri())
    found = re.search(
        r'"inside":(\d+),"page":(\d+),"right":(\d+),"drawn":(\d+),"verdict":(\d+)', shown.replace("&quot;", '"')
    )
    assert found, shown[:500]
    inside, whole, right, drawn, verdict = map(int, found.groups())
    assert inside == width
    assert whole <= width
    assert right <= width
    assert drawn == text.count("<svg")
    assert verdict < 400, "the verdict is what is seen first"


@pytest.mark.end_to_end
def test_the_page_can_be_printed(browser: str, page: Path, tmp_path: Path) -> None:
    ask(
        browser,
        tmp_path / "profile",
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
        "--no-pdf-header-footer",
        page.as_uri(),
    )
    import pypdfium2

    with pypdfium2.PdfDocument(tmp_path / "page.pdf") as printed:
        words = " ".join(sheet.get_textpage().get_text_bounded() for sheet in printed)
    for part in ("+2.0 macro F1 over zero-shot", "Forgetting", "Minutes by stage"):
        assert part in " ".join(words.split())


@pytest.mark.end_to_end
def test_its_first_screen_can_be_drawn_for_a_readme(browser: str, page: Path, tmp_path: Path) -> None:
    script, picture = Path(__file__).parents[2] / "docs" / "make_picture.py", tmp_path / "report.png"
    subprocess.run([sys.executable, str(script), str(page), str(picture)], check=True, capture_output=True, timeout=300)
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = (int.from_bytes(head[start : start + 4], "big") for start in (16, 20))
    assert width == 1080
    assert 300 < height < 1000
    assert picture.stat().st_size < 300_000
