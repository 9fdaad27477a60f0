"""Random choices that depend on their place alone, never on a global generator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


class Draws:
    """Random choices that depend on (seed, source, row, template) and on nothing else."""

    def __init__(self, seed: int, source: str) -> None:
        self._start = hashlib.blake2b(f"{seed}\0{source}\0".encode(), digest_size=16)
        self._place = ""
        self._count = 0

    def number(self, *place: object) -> int:
        """Give 128 bits for a place."""
        digest = self._start.copy()
        digest.update("\0".join(map(str, place)).encode())
        return int.from_bytes(digest.digest(), "big")

    def order(self, row: int, size: int, count: int) -> list[int]:
        """Draw `count` different indices below `size`; the first of them does not depend on `count`."""
        if count >= size:
            return list(range(size))
        bits = self.number(row)
        if count == 1:
            return [bits % size]
        left, drawn = list(range(size)), []
        for _ in range(count):
            bits, index = divmod(bits, len(left))
            drawn.append(left.pop(index))
        return drawn

    def enter(self, row: int, template: str) -> None:
        """Begin the draws inside one rendering."""
        self._place, self._count = f"{row}\0{template}", 0

    def choose(self, values: Sequence[Any]) -> Any:
        """Draw one of `values`."""
        self._count += 1
        return values[self.number(self._place, self._count) % len(values)]
