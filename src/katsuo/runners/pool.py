"""
A pool of workers in other processes: who has which shard, what is done again when a worker is lost, in which order.

Shards are handed out ahead of their turn, as far as the window goes, and outcomes wait where they were made until their
turn comes, so that this process holds one at a time however large the run. A worker that is lost is replaced, and its
shards are done again by others: those in flight on it and, where its node is gone too, those whose outcomes lay there.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol

from katsuo.errors import KatsuoWarning, RunnerError
from katsuo.runners.base import Outcome

SHARDS_PER_WORKER = 2
"""One that is worked on and one that waits behind it, so that a worker never waits for this process."""
WINDOW_PER_WORKER = 4
"""Shards that may have been begun before the oldest of them is kept; bounds the outcomes that wait."""
MAX_LOSSES = 5
"""Times that one shard may be lost with its worker, or a worker while it opens its bench, before the run stops."""
_PATIENCE_S = 60.0


class WorkerLostError(Exception):
    """A worker, or an outcome that lay with it, is gone; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Order:
    """Work that was sent to a worker: `status` comes when it is done, `outcome` is fetched when it is needed."""

    status: Any
    outcome: Any


class Crew(Protocol):
    """Where workers come from. Statuses are hashable; `fetch` raises `WorkerLostError`, or what the work raised."""

    def hire(self) -> Any:
        """Give a new worker, which may still be waiting for room."""
        ...

    def dismiss(self, worker: Any) -> None:
        """Let a worker go, lost or not."""
        ...

    def open(self, worker: Any) -> Order:
        """Have a worker open its bench."""
        ...

    def send(self, worker: Any, work: Any, shard: int) -> Order:
        """Have a worker do a shard, after those that it was sent before."""
        ...

    def wait(self, statuses: list[Any], timeout_s: float) -> list[Any]:
        """Give the statuses that have come; wait for one at least, up to the timeout."""
        ...

    def fetch(self, reply: Any) -> Any:
        """Give what a status or an outcome stands for."""
        ...


@dataclass(eq=False)
class Worker:
    """One worker, and the shards that it was sent; `is_open` once its bench is."""

    handle: Any
    is_open: bool = False
    shards: list[int] = field(default_factory=list)


class Pool(Generic[Outcome]):
    """
    Do shards by a crew of up to `count` workers and keep the outcomes in order.

    Raise `RunnerError` when the same shard is lost `MAX_LOSSES` times: it would be lost for ever.
    """

    def __init__(self, crew: Crew, workers: list[Worker], count: int) -> None:
        self._crew, self._workers, self._count = crew, workers, count
        self._order: deque[int] = deque()  # begun and not kept, oldest first
        self._waiting: deque[int] = deque()  # of these, those that no worker has
        self._finished: dict[int, tuple[Worker, Any]] = {}  # of these, who has done them, and where the outcome lies
        self._in_flight: dict[Any, tuple[Worker, int | None, Order]] = {}  # the shard None is a bench being opened
        self._losses: Counter[int | None] = Counter()
        self._has_warned = False

    def run(self, shards: Iterator[int], work: Any, keep: Callable[[int, Outcome], None]) -> None:
        """Do every shard; take them from the iterator as there is room for them."""
        while True:
            taken = list(islice(shards, max(0, WINDOW_PER_WORKER * self._count - len(self._order))))
            self._order.extend(taken)
            self._waiting.extend(taken)
            if not self._order:
                return
            self._hire()
            self._send(work)
            self._gather()
            self._keep_in_order(keep)

    def _hire(self) -> None:
        """Have as many workers as there are shards for, up to `count`, and a bench opened by each."""
        while len(self._workers) < min(self._count, len(self._order)):
            self._workers.append(Worker(self._crew.hire()))
        opening = {id(worker) for worker, shard, _ in self._in_flight.values() if shard is None}
        for worker in self._workers:
            if not worker.is_open and id(worker) not in opening:
                order = self._crew.open(worker.handle)
                self._in_flight[order.status] = (worker, None, order)

    def _send(self, work: Any) -> None:
        """Give every worker one shard before any gets a second."""
        for depth in range(SHARDS_PER_WORKER):
            for worker in self._workers:
                if worker.is_open and len(worker.shards) <= depth and self._waiting:
                    shard = self._waiting.popleft()
                    worker.shards.append(shard)
                    order = self._crew.send(worker.handle, work, shard)
                    self._in_flight[order.status] = (worker, shard, order)

    def _gather(self) -> None:
        """Wait until something is done or lost."""
        done = self._crew.wait(list(self._in_flight), _PATIENCE_S)
        if not done and not self._has_warned and not any(worker.is_open for worker in self._workers):
            self._has_warned = True
            warnings.warn(_NO_ROOM, stacklevel=5)
        for status in done:
            if status not in self._in_flight:
                continue  # its worker was lost a moment ago
            worker, shard, order = self._in_flight.pop(status)
            try:
                self._crew.fetch(status)
            except WorkerLostError as error:
                self._replace(worker, shard, error)
                continue
            except Exception:
                if shard is None:
                    raise
                # What the work raised is fetched, and raised, when the turn of its shard comes.
            if shard is None:
                worker.is_open = True
                self._losses.pop(None, None)
            else:
                worker.shards.remove(shard)
                self._finished[shard] = (worker, order.outcome)

    def _keep_in_order(self, keep: Callable[[int, Outcome], None]) -> None:
        while self._order and self._order[0] in self._finished:
            shard = self._order[0]
            worker, reply = self._finished.pop(shard)
            try:
                outcome: Outcome = self._crew.fetch(reply)
            except WorkerLostError as error:
                self._do_again([shard, *self._drop_lost(worker)], error)
                return
            keep(shard, outcome)
            self._order.popleft()
            self._losses.pop(shard, None)

    def _replace(self, worker: Worker, shard: int | None, error: Exception) -> None:
        """Let a lost worker go, and do again what it had."""
        self._in_flight = {status: held for status, held in self._in_flight.items() if held[0] is not worker}
        self._workers.remove(worker)
        self._crew.dismiss(worker.handle)
        if shard is None:
            self._count_loss(None, error)
        self._do_again([*worker.shards, *self._drop_lost(worker)], error)

    def _drop_lost(self, worker: Worker) -> list[int]:
        """
        Give, and forget, the shards of a lost worker whose outcomes are gone with its node.

        All are looked at now, so that they are done again side by side and not each when its turn has come.
        """
        lost = []
        for shard, (maker, reply) in list(self._finished.items()):
            if maker is worker and self._is_gone(reply):
                del self._finished[shard]
                lost.append(shard)
        return lost

    def _is_gone(self, outcome: Any) -> bool:
        try:
            self._crew.fetch(outcome)
        except WorkerLostError:
            return True
        except Exception:  # what the work raised lies there: it is raised when the turn of its shard comes
            return False
        return False

    def _do_again(self, shards: list[int], error: Exception) -> None:
        for shard in shards:
            self._count_loss(shard, error)
        self._waiting = deque(sorted([*shards, *self._waiting], key=self._order.index))

    def _count_loss(self, shard: int | None, error: Exception) -> None:
        self._losses[shard] += 1
        if self._losses[shard] >= MAX_LOSSES:
            raise too_many_losses("while it opened its engine" if shard is None else f"with shard {shard}") from error


def too_many_losses(when: str) -> RunnerError:
    """Say that going on would lose workers for ever."""
    return RunnerError(
        f"a worker was lost {MAX_LOSSES} times {when}",
        hint="it may need more memory than there is: lower `engine_options.batch_size` or `shard_size`, or raise "
        "`runner_options.cpus_per_worker` so that fewer workers share a node; finished shards are kept",
    )


_NO_ROOM = KatsuoWarning(
    f"no worker has come to work for {_PATIENCE_S:.0f} seconds: models are being loaded, or the cluster has no room",
    hint="the run goes on when one comes; `ray status` shows what is asked for and what there is",
)
