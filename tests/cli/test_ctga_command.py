from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "ctga-german"
pytestmark = pytest.mark.end_to_end


def katsuo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "katsuo", "ctga", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_pack_is_checked_built_counted_and_shown(tmp_path):
    checked = katsuo("check", EXAMPLE, "--json")
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["usable"] is True
    built = katsuo("build", EXAMPLE, "-o", tmp_path / "out", "--per-row", "all", "--json")
    assert built.returncode == 0, built.stderr
    told = json.loads(built.stdout)
    assert told["drawn"] == told["pairs"] + sum(told["rejected"].values()) == 40
    stats = katsuo("stats", tmp_path / "out")
    assert "plain-language rewriting" in stats.stdout
    assert "CC0-1.0" in stats.stdout
    shown = katsuo("show", tmp_path / "out", "--task", "ynqa", "-n", "1")
    assert "Nein oder Ja?" in shown.stdout
    assert json.loads(katsuo("show", tmp_path / "out", "--json").stdout)[0]["dataset"] == "hausordnung"


def test_a_pack_that_is_not_usable_exits_with_1_and_says_where(tmp_path):
    text = (EXAMPLE / "ctga.yaml").read_text(encoding="utf-8")
    (tmp_path / "ctga.yaml").write_text(text.replace("{{ frage }} ||| {{ antwort }}", "{{ frage }}"), encoding="utf-8")
    (tmp_path / "train.jsonl").write_bytes((EXAMPLE / "train.jsonl").read_bytes())
    checked = katsuo("check", tmp_path)
    assert checked.returncode == 1
    assert "0 separators" in checked.stdout
    line = text[: text.index("Lies den folgenden")].count("\n")
    assert f"ctga.yaml:{line}" in checked.stdout


def test_a_build_in_which_a_template_failed_exits_with_3(tmp_path):
    text = (EXAMPLE / "ctga.yaml").read_text(encoding="utf-8")
    (tmp_path / "ctga.yaml").write_text(text.replace("{{ antwort }}", "{{ antwort.__class__ }}"), encoding="utf-8")
    (tmp_path / "train.jsonl").write_bytes((EXAMPLE / "train.jsonl").read_bytes())
    built = katsuo("build", tmp_path, "-o", tmp_path / "out", "--per-row", "all")
    assert built.returncode == 3
    assert "forbidden" in built.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("build", "-o", "x", "--per-row", "none"), 2),
        (("build", "-o", "x", "--sources", "skuad"), 2),
        (("build", "-o", "x", "--exclude-license", "gpl"), 2),
        (("build", EXAMPLE), 2),
        (("build", "no.yaml", "-o", "x"), 1),
        (("check", "no.yaml"), 1),
        (("stats", "nowhere"), 1),
        (("show", "nowhere"), 1),
    ],
)
def test_wrong_use_exits_with_2_and_a_failure_with_1(arguments, status):
    found = katsuo(*arguments)
    assert found.returncode == status
    assert found.stderr
    assert "Traceback" not in found.stderr
