"""
Draw the first screen of a report as a picture: what a reader sees before anything is scrolled.

    python docs/make_picture.py runs/headline/report.html docs/report.png

Needs Chromium or Chrome on the PATH. The picture is that of the page itself, its later sections left out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
LARGEST_BYTES = 300_000
FIRST_SCREEN = """<style>main > section:not(.lead), details { display: none !important; } body { padding: 1rem 1.5rem; }
</style></head>"""
HEIGHT = "<script>document.title = Math.ceil(document.body.getBoundingClientRect().bottom)</script></body>"


def main() -> None:
    """Write the picture, and fail when it is too large to stand in a README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1080)
    options = parser.parse_args()
    draw(options.report, options.picture, options.width)
    size = options.picture.stat().st_size
    sys.stderr.write(f"{options.picture}: {size:,} bytes\n")
    if size > LARGEST_BYTES:
        sys.exit(f"larger than {LARGEST_BYTES:,} bytes: give a smaller --width")


def draw(report: Path, picture: Path, width: int) -> None:
    """Write the first screen of a report as a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("no browser on the PATH: install Chromium or Chrome")
    text = report.read_text(encoding="utf-8").replace("</head>", FIRST_SCREEN)
    with tempfile.TemporaryDirectory() as folder:
        page, profile = Path(folder) / "page.html", f"--user-data-dir={folder}/profile"
        # The height is told by a script, which the page's own rules forbid: this copy is without them.
        probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", HEIGHT)
        page.write_text(probed, encoding="utf-8")
        shown = _ask(browser, profile, f"--window-size={width},2000", "--dump-dom", page.as_uri())
        found = re.search(r"<title>(\d+)</title>", shown)
        if found is None:
            sys.exit(f'"{report}" does not look like a report')
        size = f"--window-size={width},{int(found[1])}"
        _ask(browser, profile, size, "--hide-scrollbars", f"--screenshot={picture.resolve()}", page.as_uri())


def _ask(browser: str, *flags: str) -> str:
    common = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
    return subprocess.run([browser, *common, *flags], capture_output=True, text=True, timeout=120, check=True).stdout


if __name__ == "__main__":
    main()
