"""`katsuo cache`: what it tells, and that it clears."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from katsuo.cache import AnswerCache
from katsuo.config import cache_dir
from katsuo.records import Completion

pytestmark = pytest.mark.end_to_end
ANSWERS = {bytes([number] * 16): Completion("an answer") for number in range(30)}


def katsuo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "katsuo", "cache", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_stats_and_clear_tell_what_was_there() -> None:
    AnswerCache().put(ANSWERS)
    (AnswerCache().folder / "0000.damaged").write_bytes(b"x" * 2_000_000)
    told = json.loads(katsuo("stats", "--json").stdout)
    assert (told["answers"], told["set_aside"], told["limit"]) == (30, 1, 2**30)
    assert told["folder"] == str(AnswerCache().folder)
    shown = katsuo("stats").stdout
    assert "of at most 1,074" in shown
    assert "2.0 MB, never read again" in shown
    assert katsuo("clear").stdout == "30 answers forgotten\n"
    assert json.loads(katsuo("clear", "--json").stdout) == {"forgotten": 0}
    assert "damaged" not in katsuo("stats").stdout


def test_the_cache_lies_where_katsuo_cache_says(tmp_path: Path) -> None:
    AnswerCache(tmp_path / "answers-1").put(ANSWERS)
    assert json.loads(katsuo("stats", "--json", KATSUO_CACHE=str(tmp_path)).stdout)["answers"] == 30
    assert not (cache_dir() / "answers-1").exists()


def test_damage_is_a_warning_of_two_lines_and_a_folder_in_the_way_an_error(tmp_path: Path) -> None:
    AnswerCache().put(ANSWERS)
    (AnswerCache().folder / "0001.sqlite").write_bytes(b"noise" * 5000)
    result = katsuo("stats", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["answers"] == 0
    assert result.stderr.startswith('warning: the cache "')
    assert result.stderr.splitlines()[1].startswith("hint: ")
    (tmp_path / "file").write_text("in the way")
    result = katsuo("stats", KATSUO_CACHE=str(tmp_path / "file"))
    assert result.returncode == 1
    assert "hint: set KATSUO_CACHE to a local folder" in result.stderr
