"""Engines whose answers are worth keeping, in this process and, as a package from outside, in others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from katsuo.engines import ENGINES
from katsuo.registry import Door

ENTRY_POINTS = "[katsuo.engines]\ncounting = counting:Counting\nstreaming = counting:Streaming\n"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that lists what was asked; the engines `counting` and `streaming` are there."""
    for name, kind in (("counting", "Counting"), ("streaming", "Streaming")):
        monkeypatch.setitem(ENGINES._doors, name, Door(f"counting:{kind}"))
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "asked.txt"))
    return tmp_path / "asked.txt"


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of another process that has the same two engines and the same log."""
    site = tmp_path / "site"
    (site / "counting-1.0.dist-info").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "counting.py", site)
    (site / "counting-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (site / "counting-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": str(site), "COUNTING_LOG": str(tmp_path / "asked.txt")}


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of different short texts."""

    def write(name: str = "rows.jsonl", rows: int = 40) -> Path:
        texts = [
            f"In {1700 + 3 * row} the mill of {name} {row} was sold to Berta {row}. It ground {row * 7} sacks."
            for row in range(rows)
        ]
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        return tmp_path / name

    return write
