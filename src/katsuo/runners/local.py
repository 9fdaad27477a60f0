"""Run shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Outcome = TypeVar("Outcome")


def run_local(shards: Iterable[int], work: Callable[[int], Outcome], keep: Callable[[int, Outcome], None]) -> None:
    """
    Call `work` on every shard and hand each outcome to `keep`, in the order given.

    `work` depends on its shard alone; `keep` sees the outcomes in order, so it may hold state across shards.
    """
    for shard in shards:
        keep(shard, work(shard))
