"""Run shards on workers of a Ray cluster, each an actor with a bench of its own; the only file that knows Ray."""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Generic

from katsuo.config import RunnerOptions
from katsuo.errors import KatsuoWarning, MissingPackageError, RunnerError
from katsuo.runners.base import Bench, Outcome, Result, RunnerSettings, Tell, tell_nobody
from katsuo.runners.pool import MAX_LOSSES, Order, Pool, Worker, WorkerLostError, too_many_losses

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""No library tells anybody that it was called, on no node; what is set there already stays as it is."""
_CAN_BE_JOINED = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own word for a node that others may join; where it is 0, its servers listen on the loopback address alone."""
_OBJECT_STORE_BYTES = 256 << 20
_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
_FOLDER = "katsuo-ray-"
_STARTS = 3
"""Ray gives up on itself after 30 seconds, which a machine that is busy with other things may need."""
_SECONDS_BETWEEN_LOOKS = 1.0


class RayRunner(Generic[Bench]):
    """As many workers as there is room for, or as the recipe asks for; see `Runner`."""

    def __init__(self, settings: RunnerSettings[Bench]) -> None:
        self._crew = RayCrew(settings)
        self._workers: list[Worker] = []

    def call(self, function: Callable[[Bench, Tell], Result], tell: Tell = tell_nobody) -> Result:
        """Call `function` at the bench of one worker; from the beginning, on another, should that one be lost."""
        error: Exception | None = None
        for _ in range(MAX_LOSSES):
            if not self._workers:
                self._workers.append(Worker(self._crew.hire()))
            worker = self._workers[0]
            try:
                result: Result = self._crew.call(worker.handle, function, tell)
            except WorkerLostError as lost:
                self._workers.remove(worker)
                self._crew.dismiss(worker.handle)
                error = lost
            else:
                worker.is_open = True
                return result
        raise too_many_losses("while it opened its engine or read the documents") from error

    def run(
        self, shards: Iterable[int], work: Callable[[Bench, int], Outcome], keep: Callable[[int, Outcome], None]
    ) -> None:
        """Call `work` on the workers and hand each outcome to `keep`, in the order of `shards`."""
        pool: Pool[Outcome] = Pool(self._crew, self._workers, self._crew.count)
        pool.run(iter(shards), self._crew.share(work), keep)

    def __enter__(self) -> RayRunner[Bench]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._crew.dismiss(worker.handle)
        self._crew.close()


class RayCrew:
    """Actors of one cluster, which is joined or, at the address `local`, started for this crew and stopped with it."""

    def __init__(self, settings: RunnerSettings[Any]) -> None:
        options = settings.options
        self._open_bench = settings.open_bench
        self._ray, self._own_folder, self._has_joined = _connect(options)
        needs = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
        self._resources = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"]}
        self.count = options.workers or _room(self._ray.nodes(), needs)
        if not self.count:
            self.close()
            raise RunnerError(
                f"no node has room for a worker of {needs['CPU']:g} processors and {needs['GPU']:g} GPUs",
                hint="lower `runner_options.cpus_per_worker` or `gpus_per_worker`; or set `runner_options.workers`, "
                "and the run waits for nodes to join",
            )
        lasting = {"max_restarts": -1, "max_task_retries": -1}
        self._board = self._actor(_Board, num_cpus=0, scheduling_strategy=self._here(), **lasting)
        self._warned: set[tuple[str, str]] = set()

    def hire(self) -> Any:
        """Start an actor; Ray finds it a node."""
        return self._actor(_Desk, self._open_bench, self._board, max_restarts=0, max_task_retries=0, **self._resources)

    def dismiss(self, worker: Any) -> None:
        """Stop an actor."""
        self._ray.kill(worker)

    def open(self, worker: Any) -> Order:
        """Have the bench opened."""
        return Order(worker.open.remote(), None)

    def send(self, worker: Any, work: Any, shard: int) -> Order:
        """Have a shard done; the outcome stays on its node until it is fetched."""
        return Order(*worker.work.options(num_returns=2).remote(work, shard))

    def wait(self, statuses: list[Any], timeout_s: float) -> list[Any]:
        """Give what has come, and warn of what workers have warned of by then."""
        done: list[Any] = self._ray.wait(statuses, timeout=timeout_s)[0]
        for message, hint in self._ray.get(self._board.take_warnings.remote()):
            if (message, hint) not in self._warned:
                self._warned.add((message, hint))
                warnings.warn(KatsuoWarning(message, hint=hint), stacklevel=2)
        return done

    def fetch(self, reply: Any) -> Any:
        """Give a reply; raise what the work raised as it was raised."""
        try:
            return self._ray.get(reply)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(str(error)) from error

    def call(self, worker: Any, function: Any, tell: Tell) -> Any:
        """Call a function at a worker's bench and hand on what it tells, once a second."""
        reply = worker.call.remote(function)
        while not self.wait([reply], _SECONDS_BETWEEN_LOOKS):
            if (told := self._ray.get(self._board.look.remote())) is not None:
                tell(told)
        return self.fetch(reply)

    def share(self, value: Any) -> Any:
        """Send a value that all orders have in common once."""
        return self._ray.put(value)

    def close(self) -> None:
        """Stop what was started and leave what was joined; a Ray that was here before stays as it is."""
        if self._own_folder or self._has_joined:
            self._ray.shutdown()
        if self._own_folder:
            shutil.rmtree(self._own_folder, ignore_errors=True)

    def _actor(self, kind: type, *arguments: Any, **options: Any) -> Any:
        return self._ray.remote(kind).options(**options).remote(*arguments)

    def _here(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)


class _Desk:
    """The worker's side: one bench, opened on first use; what is warned of there goes to the board."""

    def __init__(self, open_bench: Callable[[], Any], board: Any) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        warnings.simplefilter("always", KatsuoWarning)
        warnings.showwarning = partial(_pass_on, board, warnings.showwarning)
        self._open_bench = open_bench
        self._board = board
        self._bench: Any = None

    def open(self) -> None:
        if self._bench is None:
            self._bench = self._open_bench()

    def call(self, function: Callable[[Any, Tell], Any]) -> Any:
        self.open()
        last = 0.0

        def tell(told: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LOOKS:
                last = time.monotonic()
                self._board.put.remote(told)

        return function(self._bench, tell)

    def work(self, work: Callable[[Any, int], Any], shard: int) -> tuple[None, Any]:
        return None, work(self._bench, shard)


def _pass_on(
    board: Any, show: Callable[..., None], warning: Warning | str, category: type[Warning], *place: Any
) -> None:
    """Leave a warning of ours on the board, before the work that it tells of is done; show any other."""
    if isinstance(warning, KatsuoWarning):
        import ray

        ray.get(board.warn.remote(str(warning.args[0]), warning.hint))
    else:
        show(warning, category, *place)


class _Board:
    """Where workers leave word: how far a function that takes long has come, and what to warn of."""

    def __init__(self) -> None:
        self._told: Any = None
        self._warnings: list[tuple[str, str]] = []

    def warn(self, message: str, hint: str) -> None:
        self._warnings.append((message, hint))

    def take_warnings(self) -> list[tuple[str, str]]:
        taken, self._warnings = self._warnings, []
        return taken

    def put(self, told: Any) -> None:
        self._told = told

    def look(self) -> Any:
        told, self._told = self._told, None
        return told


def _connect(options: RunnerOptions) -> tuple[ModuleType, Path | None, bool]:
    """Give Ray, connected; the folder of its session where it was started here; and whether a cluster was joined."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        message = f'runner "ray" needs the package "{error.name}", which is not installed'
        raise MissingPackageError(message, hint="pip install 'katsuo[ray]'") from error
    if ray.is_initialized():
        _refuse_other_cluster(ray, options.address)
        return ray, None, False
    if options.address == "local":
        return ray, _start_here(ray, options), False
    try:
        ray.init(address=options.address, **_SILENT)
    except Exception as error:  # Ray raises whatever it meets
        raise _no_cluster(options.address, error) from error
    return ray, None, True


def _refuse_other_cluster(ray: ModuleType, address: str) -> None:
    """Raise `RunnerError` where this program has initialised a Ray that is not the one asked for."""
    here = str(ray.get_runtime_context().gcs_address)
    if address != "auto" and _resolved(address) != _resolved(here):
        raise RunnerError(
            f'this program has initialised Ray at "{here}", and the recipe asks for "{address}"',
            hint="set `runner_options.address: auto` to use that one, or call `ray.shutdown()` first",
        )


def _resolved(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host) if host else "", port
    except OSError:
        return host, port  # a name that nobody knows is no other name of the same machine


def _start_here(ray: ModuleType, options: RunnerOptions) -> Path:
    """Start a Ray of our own on this machine and give its folder."""
    # Under /tmp, because a socket's path may have no more than about 100 characters.
    place = Path("/tmp" if os.name == "posix" else tempfile.gettempdir())  # noqa: S108
    _clear_up(place)
    for attempt in range(_STARTS):
        folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=place)
        try:
            with _on_loopback_only(ray):
                ray.init(
                    address="local",
                    num_cpus=_own_processors(options),
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **_SILENT,
                )
        except Exception as error:  # Ray raises whatever it meets; a bare Exception where a busy machine was too slow
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
            if attempt + 1 == _STARTS:
                raise _no_cluster("local", error) from error
        else:
            return Path(folder)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _on_loopback_only(ray: ModuleType) -> Iterator[None]:
    """Have what is started here, and what that starts, listen on the loopback address alone."""
    constants, before = ray._private.ray_constants, os.environ.get(_CAN_BE_JOINED)
    could_be_joined = constants.ENABLE_RAY_CLUSTER
    # This process has read the variable when it imported Ray; the others will when they start.
    os.environ[_CAN_BE_JOINED], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = could_be_joined
        if before is None:
            del os.environ[_CAN_BE_JOINED]
        else:
            os.environ[_CAN_BE_JOINED] = before


def _clear_up(place: Path) -> None:
    """Drop the folders of processes that were killed: logs, and outcomes that were never kept."""
    for folder in place.glob(f"{_FOLDER}*-*"):
        process = folder.name.removeprefix(_FOLDER).partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            continue  # not of our making, or another user's


def _no_cluster(address: str, error: Exception) -> RunnerError:
    return RunnerError(
        f'no Ray cluster can be had at "{address}": {error}',
        hint="start one with `ray start --head` and give its address, or set `runner_options.address: local`",
    )


def _own_processors(options: RunnerOptions) -> int:
    """Let as many workers as were asked for share this machine, however few processors it has."""
    return max(os.cpu_count() or 1, math.ceil((options.workers or 1) * options.cpus_per_worker))


def _room(nodes: list[dict[str, Any]], needs: dict[str, float]) -> int:
    """Count the workers that the nodes have room for."""
    asked = {name: need for name, need in needs.items() if need}
    return sum(
        min((int(node["Resources"].get(name, 0) // need) for name, need in asked.items()), default=1)
        for node in nodes
        if node["Alive"]
    )
