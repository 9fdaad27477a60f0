"""A package from outside adds one of everything, and a real process uses it by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end
ENTRY_POINTS = """
[katsuo.tasks]
language = stranger:LANGUAGE
[katsuo.engines]
echo = stranger:Echo
[katsuo.sources]
memory = stranger:Memory
[katsuo.exporters]
answers = stranger:write_pairs
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "stranger-1.0.dist-info").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "stranger" / "stranger.py", site)
    (site / "stranger-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (site / "stranger-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def katsuo(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "katsuo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)})


def test_a_package_from_outside_adds_a_task_type_an_engine_a_source_and_an_exporter(
    installed: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    flags = ["--task", "language", "--engine", "echo", "--model", "danish", "-o", run]
    made = katsuo(installed, "generate", "memory://Det regner i dag.", *flags)
    assert made.returncode == 0, made.stderr
    exported = katsuo(installed, "export", run, "--format", "answers", "-o", out)
    assert exported.returncode == 0, exported.stderr
    rows = [json.loads(line) for file in sorted(out.rglob("*.jsonl")) for line in file.read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["danish"]


def test_without_the_package_its_names_are_unknown(tmp_path: Path) -> None:
    told = katsuo(tmp_path, "generate", "memory://x", "--task", "ynqa", "--engine", "echo", "-o", tmp_path / "run")
    assert told.returncode == 2
    assert 'unknown engine "echo"' in told.stderr
