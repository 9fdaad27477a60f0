"""What workers find out while they answer reaches the command: warnings, settings not taken, answers of the cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]
WARNED = "warning: the model takes no grammar\nhint: let it be\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which the engine `telling` is installed."""
    told = tmp_path / "site" / "telling-1.0.dist-info"
    told.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("telling.py"), told.parent)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: telling\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[katsuo.engines]\ntelling = telling:Telling\n")
    return told.parent


def generate(site: Path, name: str, *flags: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Make a run by two workers in a process of its own, because Ray keeps the first environment of one."""
    rows, run = site.parent / "rows.jsonl", site.parent / name
    texts = [f"In {1700 + 3 * row} mill {row} was sold to Berta {row}. It ground {row * 7} sacks." for row in range(40)]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = [sys.executable, "-m", "katsuo", "generate", str(rows), "-t", "exqa", "--engine", "telling", "-q"]
    command += ["-o", str(run), "--runner", "ray", "--workers", "2", "--set", "shard_size=4", "--allow-partial"]
    command += ["--json", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)})
    return ended, json.loads((run / "manifest.json").read_text())


def test_what_workers_find_out_reaches_the_command_and_its_manifest(site: Path) -> None:
    first, manifest = generate(site, "first")
    assert first.returncode == 0, first.stderr
    assert first.stderr == WARNED, "two workers have warned, and it is told once"
    assert manifest["model"]["not_taken"] == ["grammar"]
    assert json.loads(first.stdout)["from_cache"] == 0

    again, manifest = generate(site, "again")
    assert (again.returncode, again.stderr) == (0, "")
    assert manifest["model"]["not_taken"] == ["grammar"]
    assert json.loads(again.stdout)["from_cache"] == manifest["from_cache"] == 40

    (cache,) = Path(os.environ["HOME"]).glob(".cache/katsuo/answers-*/0001.sqlite")
    for path in cache.parent.iterdir():
        path.write_bytes(b"noise" * 5000)  # also the log of a worker that was let go
    damaged, _ = generate(site, "damaged")
    assert damaged.returncode == 0, damaged.stderr
    assert damaged.stderr.count('is set aside as "0001.damaged"') == 1
    assert WARNED in damaged.stderr


def test_what_a_worker_warns_of_before_it_fails_is_told(site: Path) -> None:
    failed, _ = generate(site, "run", "--model", "mortal")
    assert failed.returncode == 1
    assert WARNED in failed.stderr
    assert "the model went away" in failed.stderr
