"""The file of answers: what goes in comes out, it stays within its size, and what is damaged is never believed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from katsuo.cache import AnswerCache, disk
from katsuo.config import cache_dir
from katsuo.errors import KatsuoWarning, StoreError
from katsuo.records import Completion

ANSWERS = {bytes([number] * 16): Completion(f"answer {number} ü \ud800", "stop", number) for number in range(200)}
KEYS = list(ANSWERS)
_HEADER = 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache = AnswerCache(tmp_path / "cache")
    cache.put(ANSWERS)
    cache.close()
    return tmp_path / "cache"


def test_what_was_kept_comes_back_and_what_was_not_is_none(folder: Path) -> None:
    absent = b"absent".ljust(16)
    assert AnswerCache(folder).get([KEYS[3], absent, KEYS[0], KEYS[3]]) == [
        *(ANSWERS[KEYS[3]], None, ANSWERS[KEYS[0]], ANSWERS[KEYS[3]]),
    ]
    assert AnswerCache(folder).get([]) == []


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    many = {number.to_bytes(16, "big"): Completion(str(number)) for number in range(1201)}
    cache.put(many)
    assert cache.get(list(many)) == list(many.values())


def test_what_an_answer_does_not_follow_is_kept_with_it_and_told_once_it_is_found(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put({KEYS[0]: ANSWERS[KEYS[0]]})
    cache.put({key: ANSWERS[key] for key in KEYS[1:3]}, not_taken=("grammar", "seed"))
    cache.put({KEYS[3]: ANSWERS[KEYS[3]]}, not_taken=("top_p 0.9",))
    found = AnswerCache(tmp_path)
    for key, told in ((KEYS[0], set()), (KEYS[2], {"grammar", "seed"}), (KEYS[3], {"grammar", "seed", "top_p 0.9"})):
        assert found.get([key]) == [ANSWERS[key]]
        assert found.not_taken == told


def test_others_on_the_machine_cannot_read_it(folder: Path) -> None:
    assert folder.stat().st_mode & 0o077 == 0


def test_clear_forgets_everything_and_gives_the_room_back(folder: Path) -> None:
    cache = AnswerCache(folder)
    (folder / "0000.damaged").write_bytes(b"x" * 1000)
    before, on_disk = cache.stats(), (folder / "0001.sqlite").stat().st_size
    assert (before.answers, before.set_aside, before.set_aside_size) == (200, 1, 1000)
    assert cache.clear() == 200
    after = cache.stats()
    assert (after.answers, after.set_aside) == (0, 0)
    assert after.size < before.size
    assert (folder / "0001.sqlite").stat().st_size < on_disk
    assert cache.get(KEYS[:1]) == [None]


def test_it_stays_within_its_size_and_drops_what_was_not_used_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, day = AnswerCache(tmp_path, max_bytes=200_000), 86_400
    for step in range(40):
        monkeypatch.setattr(disk.time, "time", lambda step=step: step * 2.0 * day)
        cache.put({(step * 100 + number).to_bytes(16, "big"): Completion("x" * 300) for number in range(100)})
        assert cache.get([(7).to_bytes(16, "big")]) == [Completion("x" * 300)], "it is used every day"
    stats = cache.stats()
    assert stats.size <= stats.limit == 200_000
    assert stats.answers > 300
    newest, oldest = ([(step * 100 + number).to_bytes(16, "big") for number in range(100)] for step in (39, 0))
    assert None not in cache.get(newest)
    assert len([answer for answer in cache.get(oldest) if answer]) < 10


def overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database" * 999)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blot(path: Path) -> None:
    """Write noise over the pages between the first and the last, where only a reader of the rows comes by."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 8192) + whole[-4096:])


def flip(path: Path) -> None:
    """Change a letter of every answer, in a way that only a checksum can see."""
    whole = path.read_bytes()
    assert b'["answer 7 ' in whole
    path.write_bytes(whole.replace(b'["answer', b'["answar'))


def swap(path: Path) -> None:
    """Put a sound database of something else in its place."""
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()


def flip_schema(path: Path) -> None:
    """Flip the highest bit of a letter in the table's own words, which then are no text."""
    whole = path.read_bytes()
    assert whole.count(b"checksum BLOB") == 1
    path.write_bytes(whole.replace(b"checksum BLOB", b"checksu\xed BLOB"))


def flip_broken_schema(path: Path) -> None:
    """Flip it where SQLite stumbles over the word, and quotes it."""
    whole = path.read_bytes()
    assert whole.count(b"CREATE TABLE") == 1
    path.write_bytes(whole.replace(b"CREATE TABLE", b"CREATE \xd4ABLE"))


def flip_format(path: Path) -> None:
    """Make it a file of a later SQLite."""
    whole = path.read_bytes()
    path.write_bytes(whole[:47] + b"\x06" + whole[48:])


def flip_writer(path: Path) -> None:
    """Make it a file of a later SQLite that may be read, not written."""
    whole = path.read_bytes()
    path.write_bytes(whole[:18] + b"\x82" + whole[19:])


def change(path: Path, column: str, value: str) -> None:
    writer = sqlite3.connect(path)
    writer.execute(f"UPDATE answers SET {column} = {value}")
    writer.commit()
    writer.close()


def forget_uses(path: Path) -> None:
    change(path, "used", "NULL")


def misspell_uses(path: Path) -> None:
    change(path, "used", "CAST(x'61ff' AS TEXT)")


def misspell_checksums(path: Path) -> None:
    change(path, "checksum", "CAST(x'ffff' AS TEXT)")


DAMAGES = [
    *(overwrite, cut, blot, flip, swap, flip_schema, flip_broken_schema, flip_format),
    *(forget_uses, misspell_uses, misspell_checksums),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_with_a_warning_and_never_trusted(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "0001.sqlite")
    damaged = (folder / "0001.sqlite").read_bytes()[_HEADER:]
    cache = AnswerCache(folder)
    with pytest.warns(KatsuoWarning, match=r'set aside as "0001\.damaged"'):
        assert cache.get(KEYS) == [None] * len(KEYS)
    assert (folder / "0001.damaged").read_bytes()[_HEADER:] == damaged
    cache.put(ANSWERS)
    assert cache.get(KEYS) == list(ANSWERS.values())
    assert cache.stats().set_aside == 1


@pytest.mark.parametrize("damage", [overwrite, flip_writer])
def test_a_file_found_damaged_while_writing_is_set_aside_too(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "0001.sqlite")
    cache = AnswerCache(folder)
    with pytest.warns(KatsuoWarning):
        cache.put({KEYS[5]: ANSWERS[KEYS[5]]})
    assert cache.get(KEYS[4:7]) == [None, ANSWERS[KEYS[5]], None]


def test_a_file_that_another_has_just_set_aside_is_not_looked_into(folder: Path) -> None:
    flip_writer(folder / "0001.sqlite")
    cache = AnswerCache(folder)
    assert cache.get(KEYS) == list(ANSWERS.values())
    (folder / "0001.sqlite").rename(folder / "0001.damaged")
    cache.put(ANSWERS)
    assert cache.get(KEYS) == list(ANSWERS.values())
    assert (folder / "0002.sqlite").exists()


def test_one_who_has_just_opened_a_damaged_file_does_no_harm_to_its_successor(folder: Path) -> None:
    flip(folder / "0001.sqlite")
    holder, finder = sqlite3.connect(folder / "0001.sqlite"), AnswerCache(folder)
    with pytest.warns(KatsuoWarning):
        finder.get(KEYS[:1])
    finder.put(ANSWERS)
    with suppress(sqlite3.OperationalError):
        holder.execute("DELETE FROM answers")
        holder.commit()
    holder.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AnswerCache(folder).get(KEYS) == finder.get(KEYS) == list(ANSWERS.values())
        finder.clear()
    finder.close()
    assert [path.name for path in folder.iterdir()] == ["0002.sqlite"]


def test_a_file_that_was_set_aside_since_it_was_opened_is_left_for_its_successor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, connect = AnswerCache(folder), sqlite3.connect
    flip(folder / "0001.sqlite")

    def open_late(*arguments: object, **options: object) -> sqlite3.Connection:
        monkeypatch.setattr(disk.sqlite3, "connect", connect)
        connection = connect(*arguments, **options)
        with pytest.warns(KatsuoWarning):
            finder.get(KEYS[:1])
        return connection

    monkeypatch.setattr(disk.sqlite3, "connect", open_late)
    late = AnswerCache(folder)
    late.put(ANSWERS)
    assert finder.get(KEYS) == late.get(KEYS) == list(ANSWERS.values())


def test_a_file_that_another_is_just_setting_up_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "0001.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()
    AnswerCache(tmp_path).put(ANSWERS)
    release.join()
    other.close()


def test_two_that_find_the_damage_at_once_set_it_aside_once(folder: Path) -> None:
    first, second = AnswerCache(folder), AnswerCache(folder)
    for cache in (first, second):
        assert cache.get(KEYS[:1]) == [ANSWERS[KEYS[0]]]
    change(folder / "0001.sqlite", "checksum", "x'00'")
    with pytest.warns(KatsuoWarning):
        assert first.get(KEYS[:1]) == [None]
    assert second.get(KEYS[:1]) == [None], "the second finds it gone, and says nothing"
    second.put(ANSWERS)
    assert first.get(KEYS) == list(ANSWERS.values())
    assert sorted(path.name for path in folder.glob("*.damaged")) == ["0001.damaged"]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="--no-cache"):
        AnswerCache(tmp_path / "file" / "cache").get(KEYS)


def test_a_cache_that_is_locked_for_ever_is_not_taken_for_damaged(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_WAIT_S", 0.1)
    other = sqlite3.connect(folder / "0001.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked"):
        AnswerCache(folder).put(ANSWERS)
    other.close()
    assert AnswerCache(folder).get(KEYS[:1]) == [ANSWERS[KEYS[0]]]


def test_a_full_disk_is_an_error_and_nothing_that_was_kept_is_lost(tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)]).returncode:
        pytest.skip("making a small disk needs the right to mount one")
    try:
        cache, kept = AnswerCache(small / "cache"), {}
        cache.put(ANSWERS)
        many = [
            {(first + part).to_bytes(16, "big"): Completion("y" * 300) for part in range(100)}
            for first in range(1000, 20_000, 100)
        ]

        def keep_all() -> None:
            for more in many:
                cache.put(more)
                kept.update(more)

        with pytest.raises(StoreError, match="no space left"):
            keep_all()
        cache.close()
        assert AnswerCache(small / "cache").get([*KEYS, *kept]) == [*ANSWERS.values(), *kept.values()]
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        AnswerCache(small / "cache").put(many[-1])
        assert AnswerCache(small / "cache").get(list(many[-1])) == list(many[-1].values())
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_the_answers_lie_where_their_own_variable_says_else_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KATSUO_CACHE", str(tmp_path / "shared"))
    assert AnswerCache().folder == tmp_path / "shared" / "answers-1"
    monkeypatch.setenv("KATSUO_ANSWERS", str(tmp_path / "own"))
    assert AnswerCache().folder == tmp_path / "own" / "answers-1"
    assert cache_dir() == tmp_path / "shared", "what is pulled once is there for every node"
