"""Much work over few slots: each slot has a thread, and takes the next piece when its own has ended."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import groupby
from typing import Any, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_Arrivals: TypeAlias = "queue.SimpleQueue[tuple[Item, Result] | Exception]"
Do = Callable[[int, Item, Callable[[], bool]], Result]
"""Does one piece of work in a slot; ends early when the last argument, called, says so."""


def over_slots(
    units: Sequence[tuple[Item, ...]], slots: int, do: Do[Item, Result]
) -> Generator[tuple[Item, Result], None, None]:
    """
    Do all pieces and give each with its result, as it ends; closed early, it drops what is under way.

    The pieces of a unit are done in one slot, one after the other. The first exception ends it all and is raised here.
    """
    work, stopped = deque(units), threading.Event()
    arrivals: _Arrivals[Item, Result] = queue.SimpleQueue()
    threads = [
        threading.Thread(
            target=_work_through, args=(slot, work, do, arrivals, stopped), name=f"katsuo-slot-{slot}", daemon=True
        )
        for slot in range(min(slots, len(work)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(sum(len(unit) for unit in units)):
            arrived = arrivals.get()
            if isinstance(arrived, Exception):
                raise arrived
            yield arrived
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _work_through(
    slot: int,
    work: deque[tuple[Item, ...]],
    do: Do[Item, Result],
    arrivals: _Arrivals[Item, Result],
    stopped: threading.Event,
) -> None:
    """Do unit after unit in one slot, until none is left or all are told to stop."""
    while True:
        try:
            unit = work.popleft()
        except IndexError:
            return
        try:
            for item in unit:
                result = do(slot, item, stopped.is_set)
                if stopped.is_set():
                    return
                arrivals.put((item, result))
        except Exception as error:  # handed to the thread that asked, which raises it
            arrivals.put(error)
            return


def in_units(items: Sequence[Item], slots: int, *, beginning: Callable[[Item], Any]) -> list[tuple[Item, ...]]:
    """
    Put what begins alike side by side, since a slot keeps what it has read.

    Items of equal beginnings, such as the samples of one passage, are a unit, where that leaves enough for all slots.
    """
    ordered = sorted(items, key=beginning)
    alike: list[tuple[Item, ...]] = [tuple(group) for _, group in groupby(ordered, key=beginning)]
    return alike if len(alike) >= slots else [(item,) for item in ordered]
