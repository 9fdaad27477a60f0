"""Worker processes that may die: each has one job at a time, and the parent knows where in it the worker was."""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from katsuo.errors import KatsuoError, TemplateError

J = TypeVar("J")
Place = tuple[int, int]
"""(row, template index): what a worker is rendering."""
Beat = MutableSequence[int]
"""Memory that worker and parent share; the worker writes its place there."""

NOWHERE: Place = (-1, -1)
_DEATHS_AT_ONE_PLACE = 2  # once may be the machine's fault (no memory left, a process killed from outside)
_DEATHS_WITHOUT_PLACE = 3


@dataclass(eq=False)
class _Worker(Generic[J]):
    process: BaseProcess
    pipe: Connection
    beat: Beat
    job: J | None = None


@dataclass
class Pool(Generic[J]):
    """
    Do jobs in `workers` processes: `work(job, skip, beat)` gives a result, `skip` holds the places to leave out.

    A job whose worker dies is begun again; a place where workers die twice is left out from then on. Processes are
    spawned, not forked: the parent may hold threads of libraries.
    """

    work: Callable[[J, frozenset[Place], Beat], dict[str, Any]]
    workers: int
    _deaths: Counter[tuple[int, Place]] = field(default_factory=Counter)
    _skips: dict[int, set[Place]] = field(default_factory=dict)

    def run(self, jobs: Sequence[J]) -> Iterator[tuple[J, dict[str, Any]]]:
        """Yield each job with its result, in order of completion; raise what a worker raised."""
        waiting = deque(jobs)
        crew = [self._start() for _ in range(min(self.workers, len(jobs)))]
        try:
            while waiting or any(worker.job is not None for worker in crew):
                for worker in crew:
                    if worker.job is None and waiting:
                        self._give(worker, waiting.popleft())
                busy = {worker.pipe: worker for worker in crew if worker.job is not None}
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    job, result = worker.job, self._receive(worker)
                    assert job is not None
                    if result is None:
                        crew[crew.index(worker)] = self._start()
                        waiting.appendleft(job)
                    else:
                        worker.job = None
                        yield job, result
        finally:
            for worker in crew:
                worker.process.kill() if worker.job is not None else worker.pipe.close()
                worker.process.join()

    def _start(self) -> _Worker[J]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        beat: Beat = context.RawArray("q", 2)
        process = context.Process(target=_serve, args=(self.work, theirs, beat), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, beat)

    def _give(self, worker: _Worker[J], job: J) -> None:
        worker.beat[0], worker.beat[1] = NOWHERE
        worker.job = job
        try:
            worker.pipe.send((job, frozenset(self._skips.get(id(job), ()))))
        except OSError:
            return  # it died idle: the pipe tells so again when it is read

    def _receive(self, worker: _Worker[J]) -> dict[str, Any] | None:
        """Give the result, or None when the worker died; raise what the job raised."""
        try:
            result = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._bury(worker)
            return None
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, dict)
        return result

    def _bury(self, worker: _Worker[J]) -> None:
        place = (worker.beat[0], worker.beat[1])
        self._deaths[id(worker.job), place] += 1
        deaths = self._deaths[id(worker.job), place]
        if place != NOWHERE and deaths >= _DEATHS_AT_ONE_PLACE:
            self._skips.setdefault(id(worker.job), set()).add(place)
        elif place == NOWHERE and deaths >= _DEATHS_WITHOUT_PLACE:
            raise TemplateError(
                f"a worker process ended with status {worker.process.exitcode} before its first row",
                hint="is there enough memory? try --workers 1",
            )


def _serve(work: Callable[..., dict[str, Any]], pipe: Connection, beat: Beat) -> None:
    """Be a worker: do jobs until the parent closes the pipe."""
    gc.set_threshold(100_000, 50, 50)  # rows and pairs hold no cycles: looking for them often costs a sixth of the time
    try:
        while True:
            job, skip = pipe.recv()
            try:
                pipe.send(work(job, skip, beat))
            except KatsuoError as error:
                pipe.send(error)
            except Exception as error:  # a fault of ours or of a library: the parent has to hear of it, with its name
                pipe.send(TemplateError(f"a worker failed: {error!r}", hint="is there enough memory and space?"))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return  # the parent is done, or gone
