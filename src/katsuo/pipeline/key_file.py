"""Keys on disk, at the same cost per key however many there are."""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from collections.abc import Iterable, Iterator

from katsuo.errors import StoreError

_ENTRY = struct.Struct("<QI")
_HEAD = struct.Struct("<II")
_ENTRIES = 42
"""Per bucket of 512 bytes: larger ones take longer to read, smaller ones overflow more often."""
_BUCKET_BYTES = _HEAD.size + _ENTRIES * _ENTRY.size
_LOAD = 0.4
"""Share of the entries that are used, on average: a bucket that waits for its split holds up to twice as much."""
_FIRST_LEVEL = 10


class KeyFile:
    """
    Items (numbers below 2^32) under 64-bit keys, several under one key if need be, in a temporary file.

    Linear hashing (Litwin 1980): buckets are split in turn, one at a time, as keys come in, so that every key costs a
    read and a write of one bucket and no step is longer than another. A B-tree costs more the larger it is, once its
    leaves no longer fit its cache, since the keys come in no order. Memory does not grow.
    """

    def __init__(self) -> None:
        self._buckets, self._overflow = _File(), _File()
        self._overflows = 0  # overflow buckets ever used
        self._free: list[int] = []  # of these, the ones that a split has emptied
        self._level, self._next, self._keys = _FIRST_LEVEL, 0, 0
        self._just_read: dict[int, bytes] = {}  # by `find`; keys that are not found are usually added

    def find(self, keys: Iterable[int]) -> set[int]:
        """Give the items under any of the keys."""
        found: set[int] = set()
        self._just_read.clear()
        for key in keys:
            wanted, address = (key & _MASK).to_bytes(8, "little"), self._address(key & _MASK)
            for data in self._chain(address):
                self._just_read.setdefault(address, data)
                place = data.find(wanted, _HEAD.size)
                while place >= 0:
                    if (place - _HEAD.size) % _ENTRY.size == 0:
                        found.add(_ENTRY.unpack_from(data, place)[1])
                    place = data.find(wanted, place + 1)
        return found

    def add(self, keys: Iterable[int], item: int) -> None:
        """Put an item under each of the keys."""
        for key in keys:
            self._append(self._address(key & _MASK), _ENTRY.pack(key & _MASK, item))
            self._keys += 1
            if self._keys > _LOAD * _ENTRIES * ((1 << self._level) + self._next):
                self._split()

    def close(self) -> None:
        """Drop it all."""
        self._buckets.close()
        self._overflow.close()

    def _address(self, key: int) -> int:
        address = key & ((1 << self._level) - 1)
        return address if address >= self._next else key & ((2 << self._level) - 1)

    def _chain(self, address: int) -> Iterator[bytes]:
        """Give a bucket and those that it overflowed into, each cut to what it holds."""
        data = self._buckets.read(address)
        while data:
            count, following = _HEAD.unpack_from(data)
            yield data[: _HEAD.size + count * _ENTRY.size]
            data = self._overflow.read(following - 1) if following else b""

    def _append(self, address: int, entry: bytes) -> None:
        file, place = self._buckets, address
        data = self._just_read.pop(address, None) or file.read(address)
        while True:
            count, following = _HEAD.unpack_from(data) if data else (0, 0)
            if count < _ENTRIES:
                held = data[_HEAD.size : _HEAD.size + count * _ENTRY.size]
                file.write(place, _HEAD.pack(count + 1, following) + held + entry)
                return
            if not following:
                following = self._free.pop() if self._free else self._overflows + 1
                self._overflows = max(self._overflows, following)
                self._overflow.write(following - 1, _HEAD.pack(0, 0))
                file.write(place, _HEAD.pack(count, following) + data[_HEAD.size :])
            file, place = self._overflow, following - 1
            data = file.read(place)

    def _split(self) -> None:
        """Part the next bucket in turn into two, by one more bit of its keys."""
        self._just_read.clear()
        address, bit = self._next, 1 << self._level
        parts = list(self._chain(address))
        self._free += [following for part in parts if (following := _HEAD.unpack_from(part)[1])]
        halves: tuple[list[bytes], list[bytes]] = ([], [])
        for part in parts:
            for place in range(_HEAD.size, len(part), _ENTRY.size):
                entry = part[place : place + _ENTRY.size]
                halves[bool(int.from_bytes(entry[:8], "little") & bit)].append(entry)
        self._next += 1
        if self._next == bit:
            self._level, self._next = self._level + 1, 0
        for place, entries in zip((address, address + bit), halves, strict=True):
            self._buckets.write(place, _HEAD.pack(min(len(entries), _ENTRIES), 0) + b"".join(entries[:_ENTRIES]))
            for entry in entries[_ENTRIES:]:
                self._append(place, entry)


_MASK = (1 << 64) - 1


class RecordFile:
    """Records of one size, by number, in a temporary file."""

    def __init__(self, size: int) -> None:
        self._file = _File(size)

    def __getitem__(self, number: int) -> bytes:
        return self._file.read(number)

    def __setitem__(self, number: int, record: bytes) -> None:
        self._file.write(number, record)

    def close(self) -> None:
        """Drop it all."""
        self._file.close()


class _File:
    """A temporary file without a name, in pieces of one size; it vanishes with this object."""

    def __init__(self, size: int = _BUCKET_BYTES) -> None:
        self._size = size
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is open as long as the object lives
        self.close = weakref.finalize(self, file.close)
        self._number = file.fileno()

    def read(self, place: int) -> bytes:
        """Give a piece, empty where none was written."""
        return os.pread(self._number, self._size, place * self._size)

    def write(self, place: int, piece: bytes) -> None:
        """Write a piece, or the beginning of one; raise `StoreError` where the disk is full."""
        try:
            written = os.pwrite(self._number, piece, place * self._size)
        except OSError as error:
            raise _full(error.strerror) from error
        if written < len(piece):
            raise _full("only a part was written")


def _full(why: str | None) -> StoreError:
    return StoreError(
        f'cannot write an index to "{tempfile.gettempdir()}": {why}',
        hint="free some space, or set TMPDIR to another disk",
    )
