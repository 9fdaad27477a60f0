"""The documents of `make demo` are the same whenever they are gathered, so that a killed demo goes on."""

from __future__ import annotations

import time
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).parent.parent


def test_documents_gathered_later_are_the_same_to_the_byte(tmp_path: Path) -> None:
    script = run_path(str(ROOT / "examples" / "demo_documents.py"))
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        assert script["gather"](folder)["pdf"] > 0
        time.sleep(1.1)  # a PDF knows its date to the second
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
