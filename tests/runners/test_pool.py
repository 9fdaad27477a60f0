"""The order of a pool, with workers that come, finish and get lost in any order: no Ray, no processes, no clock."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from katsuo.errors import EngineError, KatsuoWarning, RunnerError
from katsuo.runners.pool import MAX_LOSSES, WINDOW_PER_WORKER, Order, Pool, Worker, WorkerLostError

Work = Any


class SimulatedCrew:
    """Workers that do their orders one after the other; which of them is quicker, and who is lost, the dice say."""

    def __init__(self, seed: int, *, loss: float = 0.0, outcome_loss: float = 0.0) -> None:
        self.dice = random.Random(seed)
        self.loss, self.outcome_loss = loss, outcome_loss
        self.queues: dict[int, list[tuple[str, Any]]] = {}
        self.replies: dict[str, Any] = {}
        self.hired = self.asked = self.begun = 0
        self.lost: list[int] = []
        self.empty_waits = 0

    def hire(self) -> int:
        self.hired += 1
        self.queues[self.hired] = []
        return self.hired

    def dismiss(self, worker: int) -> None:
        self.queues.pop(worker, None)

    def open(self, worker: int) -> Order:
        return self._order(worker, lambda: None)

    def send(self, worker: int, work: Work, shard: int) -> Order:
        self.begun += 1
        return self._order(worker, lambda: work(worker, shard))

    def _order(self, worker: int, do: Any) -> Order:
        self.asked += 1
        order = Order(f"status {self.asked}", f"outcome {self.asked}")
        self.queues[worker].append((order.status, do))
        return order

    def wait(self, statuses: list[str], timeout_s: float) -> list[str]:
        assert statuses
        if self.empty_waits:
            self.empty_waits -= 1
            return []
        if came := [status for status in statuses if status in self.replies]:
            return came
        worker = self.dice.choice(sorted(name for name, queue in self.queues.items() if queue))
        if self.dice.random() < self.loss:
            self.lost.append(worker)
            for status, _ in self.queues.pop(worker):
                self.replies[status] = WorkerLostError(f"worker {worker}")
        else:
            status, do = self.queues[worker].pop(0)
            self.replies[status] = None
            try:
                self.replies[status.replace("status", "outcome")] = do()
            except WorkerLostError as error:
                self.replies[status] = error
            except Exception as error:
                self.replies[status] = self.replies[status.replace("status", "outcome")] = error
        return [status for status in statuses if status in self.replies]

    def fetch(self, reply: str) -> Any:
        if reply.startswith("outcome") and self.dice.random() < self.outcome_loss:
            raise WorkerLostError("the outcome lay on a node that is gone")
        if isinstance(found := self.replies[reply], Exception):
            raise found
        if reply.startswith("status"):
            del self.replies[reply]
        return found


def run_pool(crew: SimulatedCrew, shards: Iterator[int], work: Work, count: int = 3) -> list[tuple[int, Any]]:
    kept: list[tuple[int, Any]] = []
    workers: list[Worker] = []
    pool: Pool[Any] = Pool(crew, workers, count)
    pool.run(shards, work, lambda shard, outcome: kept.append((shard, outcome)))
    return kept


def squared(worker: int, shard: int) -> int:
    return shard * shard


@pytest.mark.parametrize("seed", range(20))
def test_outcomes_are_kept_in_order_and_once_however_workers_race(seed: int) -> None:
    assert run_pool(SimulatedCrew(seed), iter(range(50)), squared) == [(n, n * n) for n in range(50)]


@pytest.mark.parametrize("seed", range(20))
def test_shards_of_lost_workers_and_lost_outcomes_are_done_again(seed: int) -> None:
    crew = SimulatedCrew(seed, loss=0.06, outcome_loss=0.05)
    assert run_pool(crew, iter(range(50)), squared) == [(n, n * n) for n in range(50)]
    assert crew.lost or crew.begun > 50


def test_losing_a_worker_costs_no_more_than_the_shards_in_flight_on_it() -> None:
    crew, done = SimulatedCrew(1), []

    def work(worker: int, shard: int) -> int:
        done.append(shard)
        if shard == 20 and done.count(20) == 1:
            crew.queues[worker], queue = [], crew.queues[worker]
            crew.replies.update({status: WorkerLostError("gone") for status, _ in queue})
            raise WorkerLostError("gone")
        return shard

    assert [shard for shard, _ in run_pool(crew, iter(range(40)), work)] == list(range(40))
    assert len(done) <= 40 + 1
    assert crew.begun <= 40 + 2


class CrewOfNodes(SimulatedCrew):
    """A node for each worker: with it goes every outcome that lies there. Who has the first shard is the slowest."""

    def __init__(self) -> None:
        super().__init__(0)
        self.dice.choice = self.quickest  # type: ignore[assignment]
        self.sent: list[tuple[int, int, Order]] = []
        self.dead: set[int] = set()

    def quickest(self, workers: list[int]) -> int:
        return min(workers, key=lambda worker: ((worker, 0) in ((who, shard) for who, shard, _ in self.sent), worker))

    def send(self, worker: int, work: Work, shard: int) -> Order:
        order = super().send(worker, work, shard)
        self.sent.append((worker, shard, order))
        if worker in self.dead:
            self.lose(worker)
        return order

    def lose(self, worker: int) -> None:
        self.dead.add(worker)
        self.queues[worker] = []
        for _, _, order in (one for one in self.sent if one[0] == worker):
            self.replies.update(dict.fromkeys((order.status, order.outcome), WorkerLostError("the node is gone")))


@pytest.mark.parametrize(
    ("lost_with", "found_at", "begun_again"),
    [(6, 0, {2, 3, 4, 5, 6, 7}), (0, 2, {2, 3, 4})],
    ids=["found with the worker", "found when its turn comes"],
)
def test_outcomes_that_are_gone_with_a_node_are_done_again_side_by_side(
    lost_with: int, found_at: int, begun_again: set[int]
) -> None:
    crew, sent_before = CrewOfNodes(), 0

    def work(worker: int, shard: int) -> int:
        nonlocal sent_before
        if shard == lost_with and not crew.dead:
            sent_before = len(crew.sent)
            crew.lose(2)
            if worker == 2:
                raise WorkerLostError("the node is gone")
        return shard

    def keep(shard: int, outcome: int) -> None:
        assert shard == outcome
        if shard == found_at:
            assert {shard for _, shard, _ in crew.sent[sent_before:]} >= begun_again

    Pool(crew, [], 2).run(iter(range(8)), work, keep)
    assert crew.dead == {2}


def test_a_benched_worker_is_opened_once_and_answers_many_shards() -> None:
    crew = SimulatedCrew(2)
    run_pool(crew, iter(range(100)), squared, count=2)
    assert crew.hired == 2
    assert crew.asked == 2 + 100


def test_no_more_workers_are_hired_than_there_are_shards() -> None:
    crew = SimulatedCrew(3)
    assert len(run_pool(crew, iter(range(2)), squared, count=8)) == 2
    assert crew.hired == 2


def test_shards_are_taken_only_as_far_as_the_window_goes() -> None:
    taken: list[int] = []
    kept: list[int] = []

    def shards() -> Iterator[int]:
        for number in range(60):
            taken.append(number)
            yield number

    def keep(shard: int, outcome: int) -> None:
        kept.append(shard)
        assert len(taken) - len(kept) < 2 * WINDOW_PER_WORKER

    pool: Pool[int] = Pool(SimulatedCrew(4), [], 2)
    pool.run(shards(), squared, keep)
    assert kept == list(range(60))


def test_what_the_work_raises_is_raised_in_the_turn_of_its_shard() -> None:
    kept: list[int] = []

    def work(worker: int, shard: int) -> int:
        if shard == 7:
            raise EngineError("the model went away", hint="start it again")
        return shard

    pool: Pool[int] = Pool(SimulatedCrew(5), [], 3)
    with pytest.raises(EngineError, match="went away"):
        pool.run(iter(range(30)), work, lambda shard, outcome: kept.append(shard))
    assert kept == list(range(7))


def test_a_shard_that_takes_every_worker_with_it_stops_the_run() -> None:
    kept: list[int] = []

    def work(worker: int, shard: int) -> int:
        if shard == 9:
            raise WorkerLostError("out of memory")
        return shard

    pool: Pool[int] = Pool(crew := SimulatedCrew(6), [], 2)
    with pytest.raises(RunnerError, match=f"lost {MAX_LOSSES} times with shard (9|10)"):
        pool.run(iter(range(30)), work, lambda shard, outcome: kept.append(shard))
    assert kept == list(range(len(kept)))
    assert set(range(8)) <= set(kept)
    assert crew.hired <= 2 + MAX_LOSSES


def test_a_bench_that_takes_every_worker_with_it_stops_the_run() -> None:
    crew = SimulatedCrew(7, loss=1.0)
    with pytest.raises(RunnerError, match=f"lost {MAX_LOSSES} times while it opened its engine"):
        run_pool(crew, iter(range(30)), squared)


def test_waiting_for_room_is_told_once_and_is_no_failure() -> None:
    crew = SimulatedCrew(8)
    crew.empty_waits = 3
    with pytest.warns(KatsuoWarning, match="no worker has come to work") as told:
        assert len(run_pool(crew, iter(range(5)), squared)) == 5
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(run_pool(crew, iter(range(5)), squared)) == 5


def test_what_keep_raises_ends_the_run_there() -> None:
    def keep(shard: int, outcome: int) -> None:
        if shard == 3:
            raise StopIteration("enough")

    crew = SimulatedCrew(9)
    with pytest.raises(StopIteration):
        Pool(crew, [], 2).run(iter(range(1000)), squared, keep)
    assert crew.begun <= 3 + 2 * WINDOW_PER_WORKER
