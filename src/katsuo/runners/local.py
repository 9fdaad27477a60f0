"""Run shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic

from katsuo.runners.base import Bench, Outcome, Result, RunnerSettings, Tell, tell_nobody


class LocalRunner(Generic[Bench]):
    """One bench, opened when the runner is made, and a loop."""

    def __init__(self, settings: RunnerSettings[Bench]) -> None:
        self.bench = settings.open_bench()

    def call(self, function: Callable[[Bench, Tell], Result], tell: Tell = tell_nobody) -> Result:
        """Call `function` at the one bench."""
        return function(self.bench, tell)

    def run(
        self, shards: Iterable[int], work: Callable[[Bench, int], Outcome], keep: Callable[[int, Outcome], None]
    ) -> None:
        """Call `work` on every shard and hand each outcome to `keep`, in the order given."""
        for shard in shards:
            keep(shard, work(self.bench, shard))

    def __enter__(self) -> LocalRunner[Bench]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
