"""The cache among processes: killed while it writes, shared by runs, opened by many at once."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from katsuo.cache import AnswerCache
from katsuo.records import Completion
from katsuo.store import Run

from counting import asked  # isort: skip

pytestmark = pytest.mark.end_to_end
WRITER = """
import sys
from pathlib import Path
from katsuo.cache import AnswerCache
from katsuo.records import Completion
cache, first = AnswerCache(Path(sys.argv[1])), int(sys.argv[2])
for batch in range(int(sys.argv[3])):
    numbers = range(first + 20 * batch, first + 20 * batch + 20)
    cache.put({number.to_bytes(16, "big"): Completion(f"{number} " * 50) for number in numbers})
    print(numbers.stop, flush=True)
"""


def start_writer(folder: Path, first: int, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def numbers_in(folder: Path, numbers: range) -> list[int]:
    """Give which of `numbers` are kept; each of them must be kept as it was written."""
    got = AnswerCache(folder).get([number.to_bytes(16, "big") for number in numbers])
    for number, answer in zip(numbers, got, strict=True):
        assert answer in (None, Completion(f"{number} " * 50))
    return [number for number, answer in zip(numbers, got, strict=True) if answer]


def test_what_was_kept_before_a_kill_is_there_and_no_batch_is_there_in_part(tmp_path: Path) -> None:
    draw, written = random.Random(5), 0
    for _ in range(6):
        writer = start_writer(tmp_path, written, 100_000)
        assert writer.stdout
        told = writer.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.15))
        writer.send_signal(signal.SIGKILL)
        told = [told, *writer.communicate()[0].splitlines()][-1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            there = numbers_in(tmp_path, range(int(told) + 4000))
        assert there[: int(told)] == list(range(int(told))), "what the writer was told is kept"
        assert len(there) % 20 == 0, "a batch is kept whole or not at all"
        written = len(there)
    (checked,) = sqlite3.connect(tmp_path / "0001.sqlite").execute("PRAGMA integrity_check").fetchone()
    assert checked == "ok"


def test_many_that_begin_at_once_share_one_file(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path / "cache", 1000 * number, 10) for number in range(4)]
    assert [writer.communicate()[0].split()[-1] for writer in writers] == ["200", "1200", "2200", "3200"]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert [path.name for path in (tmp_path / "cache").glob("*.sqlite")] == ["0001.sqlite"]
    assert len(numbers_in(tmp_path / "cache", range(4000))) == 800


def start_run(documents: Path, output: Path, environment: dict[str, str], *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "katsuo", "generate", str(documents), "--task", "exqa", "-o", str(output)]
    command += ["--engine", "streaming", "--model", "m", "--allow-partial", "--quiet", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def finish(process: subprocess.Popen[bytes], status: int = 0) -> str:
    told = process.communicate(timeout=120)[1].decode()
    assert process.returncode == status, told
    return told


def test_a_run_killed_within_a_shard_asks_nothing_twice_but_the_last_second(
    write_rows: Callable[..., Path], elsewhere: dict[str, str], log: Path, tmp_path: Path
) -> None:
    documents = write_rows(rows=60)
    slow = {**elsewhere, "COUNTING_SLOW_S": "0.1"}
    process = start_run(documents, tmp_path / "run", slow)
    while len(asked(log)) < 25:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(asked(log))
    assert Run(tmp_path / "run").done_shards() == []
    finish(start_run(documents, tmp_path / "run", elsewhere))
    again = len(asked(log)) - 60
    assert before >= 25
    assert 0 <= again <= 13, "at ten answers a second, a second's worth and what was under way"
    finish(start_run(documents, tmp_path / "whole", elsewhere, "--no-cache"))
    assert list(Run(tmp_path / "run").examples()) == list(Run(tmp_path / "whole").examples())


def test_two_runs_at_once_share_their_answers(
    write_rows: Callable[..., Path], elsewhere: dict[str, str], log: Path, tmp_path: Path
) -> None:
    documents = write_rows()
    slow = {**elsewhere, "COUNTING_SLOW_S": "0.02"}
    flags = ("--set", "shard_size=8")
    both = [start_run(documents, tmp_path / name, slow, *flags) for name in ("a", "b")]
    for process in both:
        finish(process)
    assert list(Run(tmp_path / "a").examples()) == list(Run(tmp_path / "b").examples())
    before = len(asked(log))
    finish(start_run(documents, tmp_path / "c", elsewhere))
    assert len(asked(log)) == before
