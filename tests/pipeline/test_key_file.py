from __future__ import annotations

import os
import random
import resource

import pytest

from katsuo.errors import StoreError
from katsuo.pipeline import key_file
from katsuo.pipeline.key_file import KeyFile, RecordFile


def test_every_key_is_found_and_no_other_through_many_splits() -> None:
    draw, keys, known = random.Random(5), KeyFile(), {}
    for item in range(4000):
        added = [draw.getrandbits(64) - 2**63 for _ in range(10)]
        assert keys.find(added) == set()
        keys.add(added, item)
        known.update(dict.fromkeys(added, item))
    assert keys._level > key_file._FIRST_LEVEL
    assert keys._overflows
    assert all(keys.find([key]) == {item} for key, item in known.items())
    held = [
        (len(part) - key_file._HEAD.size) // key_file._ENTRY.size
        for address in range((1 << keys._level) + keys._next)
        for part in keys._chain(address)
    ]
    assert sum(held) == len(known) == 40_000
    assert keys.find(draw.getrandbits(64) for _ in range(5000)) == set()


def test_several_items_lie_under_one_key_beyond_what_a_bucket_holds() -> None:
    keys = KeyFile()
    for item in range(500):
        keys.add([77, item + 1_000_000], item)
    draw = random.Random(7)
    for _ in range(2000):
        keys.add([draw.getrandbits(64) for _ in range(10)], 600)
    assert keys._next > 77, "the bucket of many has been split"
    assert keys.find([77]) == set(range(500))
    assert keys.find([1_000_003, 1_000_499]) == {3, 499}


def test_a_key_in_the_bytes_between_two_entries_is_no_key() -> None:
    keys = KeyFile()
    keys.add([0x1111_4444_3333_4444], 0x5566_7788)
    keys.add([0x9999_AAAA_BBBB_4444], 1)
    inside = 0x5566_7788_1111_4444  # half of the first key and the item after it; it belongs into the same bucket
    assert keys.find([inside, 0]) == set()


def test_a_bucket_grown_since_it_was_read_loses_nothing() -> None:
    keys = KeyFile()
    keys.find([5, 5 + 2**40])
    keys.add([5, 5 + 2**40, 5 + 2**41], 9)  # one bucket, read once
    assert keys.find([5]) == keys.find([5 + 2**40]) == keys.find([5 + 2**41]) == {9}


def test_memory_and_time_per_key_do_not_grow() -> None:
    keys, draw = KeyFile(), random.Random(6)
    reads: list[int] = []
    read = key_file._File.read

    def counted(self: key_file._File, place: int) -> bytes:
        reads[-1] += 1
        return read(self, place)

    key_file._File.read = counted  # type: ignore[method-assign]
    try:
        for _ in range(6):
            reads.append(0)
            for item in range(3000):
                added = [draw.getrandbits(64) for _ in range(4)]
                keys.find(added)
                keys.add(added, item)
    finally:
        key_file._File.read = read  # type: ignore[method-assign]
    assert max(reads) < 1.3 * min(reads)
    assert len(keys._free) + len(keys._just_read) < 100


def test_records_come_back_by_number() -> None:
    records = RecordFile(4)
    records[3], records[0] = b"dddd", b"aaaa"
    assert (records[3], records[0], records[9]) == (b"dddd", b"aaaa", b"")
    records.close()


def test_a_full_disk_is_said_and_nothing_is_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    records = RecordFile(8)
    monkeypatch.setattr(os, "pwrite", lambda *_: 3)
    with pytest.raises(StoreError, match="only a part"):
        records[0] = bytes(8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.undo()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(StoreError, match="TMPDIR"):
            records[1_000] = bytes(8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
