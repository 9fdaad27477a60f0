"""Killed is not lost: a real process, killed for real, ends with the same rows as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from katsuo.store import Run

pytestmark = pytest.mark.end_to_end


def write_table(path: Path, rows: int) -> Path:
    draw = random.Random(3)
    words = [
        f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "nu", "ra", "so") for b in ("dor", "fel", "gin", "jast", "kum")
    ]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=30)) + f" {number}."}) + "\n")
    return path


def start(documents: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "katsuo", "generate", str(documents), "--task", "exqa", "--task", "ynqa"]
    command += [
        "--engine",
        "fake",
        "--set",
        "shard_size=32",
        "--n",
        "2",
        "-o",
        str(output),
        "--quiet",
        "--allow-partial",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})


def finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told.decode()


def test_a_run_killed_at_many_random_points_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    documents = write_table(tmp_path / "rows.jsonl", 600)
    finish(start(documents, tmp_path / "whole"))
    whole = Run(tmp_path / "whole")
    assert whole.summary().rejected  # duplicates across shards are part of what has to come out equal

    draw, points, answered = random.Random(11), [], 0
    for kill in range(10):
        process = start(documents, tmp_path / "killed")
        while_reading = kill < 3
        wanted = draw.randrange(1, 70) if while_reading else answered + draw.randrange(1, 12)
        files = "passages/*.parquet" if while_reading else "done/0*.json"
        while process.poll() is None and len(list((tmp_path / "killed").glob(files))) < wanted:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        answered = len(list((tmp_path / "killed").glob("done/0*.json")))
        points.append(answered)
    finish(start(documents, tmp_path / "killed"))

    killed = Run(tmp_path / "killed")
    assert len(set(points)) > 3, f"the kills hit the same few points: {points}"
    assert list(killed.examples()) == list(whole.examples())
    assert list(killed.rejects()) == list(whole.rejects())
    assert killed.summary().kept == whole.summary().kept
    assert not [path for path in (tmp_path / "killed").rglob("*.partial") if path.parent.name != "done"]


def test_a_file_without_its_marker_counts_as_nothing(tmp_path: Path) -> None:
    documents = write_table(tmp_path / "rows.jsonl", 200)
    finish(start(documents, tmp_path / "run"))
    run = Run(tmp_path / "run")
    before, shards = list(run.examples()), run.shards()
    (tmp_path / "run" / "done" / f"{shards[-1]:05d}.json").unlink()
    (tmp_path / "run" / "examples" / f"{shards[-1]:05d}.parquet").write_bytes(b"half a file")
    assert len(list(run.examples())) < len(before)
    finish(start(documents, tmp_path / "run"))
    assert list(Run(tmp_path / "run").examples()) == before


def test_a_full_disk_stops_with_a_clear_error_and_the_run_goes_on_later(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]).returncode:
        pytest.skip("making a small disk needs the right to mount one")
    try:
        documents = write_table(tmp_path / "rows.jsonl", 900)
        process = start(documents, disk / "run")
        _, told = process.communicate(timeout=120)
        assert process.returncode == 1
        assert b"no space left" in told
        assert b"free some space" in told
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        finish(start(documents, disk / "run"))
        finish(start(documents, tmp_path / "whole"))
        assert list(Run(disk / "run").examples()) == list(Run(tmp_path / "whole").examples())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
