"""What a runner is: it opens a bench once per worker, and has functions called at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from katsuo.config import RunnerOptions

Bench = TypeVar("Bench")
Outcome = TypeVar("Outcome")
Result = TypeVar("Result")
Tell = Callable[[Any], None]
"""How a function that takes long says how far it has come."""


def tell_nobody(told: Any) -> None:
    """Take what a function tells and do nothing."""
    del told


@dataclass(frozen=True)
class RunnerSettings(Generic[Bench]):
    """
    What a runner's door is handed: how a worker opens its bench, and the recipe's options.

    A bench is whatever the functions need and is slow to open, such as a loaded model. Runners that have other
    processes send `open_bench` and the functions there, so all of them are picklable.
    """

    open_bench: Callable[[], Bench]
    options: RunnerOptions


class Runner(Protocol[Bench]):
    """Order, parallelism and resume; a context manager, since workers are let go at the end."""

    def call(self, function: Callable[[Bench, Tell], Result], tell: Tell = ...) -> Result:
        """Call `function` once, at the bench of one worker; the last that it tells reaches `tell` here."""
        ...

    def run(
        self, shards: Iterable[int], work: Callable[[Bench, int], Outcome], keep: Callable[[int, Outcome], None]
    ) -> None:
        """
        Call `work` on every shard at some bench and hand each outcome to `keep`, here, in the order of `shards`.

        `work` depends on its shard alone; `keep` sees the outcomes in order, so it may hold state across shards and may
        stop the run by raising. What `work` raises is raised here when the turn of its shard comes.
        """
        ...

    def __enter__(self) -> Runner[Bench]: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
