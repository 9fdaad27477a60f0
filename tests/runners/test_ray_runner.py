"""Real workers of a real Ray: on one machine, and on a cluster of several nodes of which one is killed."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import katsuo
from katsuo.config import RunnerOptions, recipe_from
from katsuo.errors import EngineError, RecipeError, RunnerError
from katsuo.runners import RunnerSettings
from katsuo.store import Run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")]


@pytest.fixture(autouse=True)
def own_token(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Ray makes a token in the home folder once per process, and every test has a home of its own.
    monkeypatch.setenv("RAY_AUTH_TOKEN", "5" * 64)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray kills its processes and does not wait for them
        gc.collect()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    draw = random.Random(3)
    words = [f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "nu", "ra") for b in ("dor", "fel", "gin", "jast", "kum")]
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(400):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=30)) + f" {number}."}) + "\n")
    return tmp_path / "rows.jsonl"


def generate(documents: Path, output: str | Path, runner: str, **settings: Any) -> Run:
    settings = {"engine": "fake", "shard_size": 32, "sampling__n": 2, "runner_options__workers": 2, **settings}
    return katsuo.generate(documents, ["exqa", "ynqa"], output, runner=runner, **settings)


def rows(run: Run) -> tuple[list[Any], list[Any], list[Any]]:
    return list(run.passages()), list(run.examples()), list(run.rejects())


def test_rows_equal_those_of_the_local_runner_and_may_lie_in_an_object_store(
    documents: Path, tmp_path: Path, s3: str
) -> None:
    local = generate(documents, tmp_path / "local", "local")
    killed = Path("/tmp/katsuo-ray-4194305-x")  # no process has so high a number
    (killed / "session_x").mkdir(parents=True, exist_ok=True)
    left_before = set(Path("/tmp").glob("katsuo-ray-*/session_*"))
    import ray  # whoever imports it first, and when, must not matter

    told: list[tuple[str, int]] = []
    listening: set[str] = set()

    def look(progress: katsuo.api.Progress) -> None:  # type: ignore[name-defined]
        told.append((progress.stage, progress.done))
        if progress.stage == "answer" and not listening:
            listening.update(
                connection.laddr.ip
                for process in psutil.Process().children(recursive=True)
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            )

    run = generate(documents, f"{s3}/ray", "ray", on_progress=look)
    assert rows(run) == rows(local)
    assert local.summary().rejected  # near-duplicates across shards are part of what has to come out equal
    assert told[-1] == ("answer", run.summary().prompts)
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray.is_initialized()
    assert set(Path("/tmp").glob("katsuo-ray-*/session_*")) < left_before
    assert not killed.exists()


def test_a_node_that_is_killed_half_way_costs_nothing_but_time(documents: Path, tmp_path: Path) -> None:
    local = generate(documents, tmp_path / "local", "local")
    (tmp_path / "recipe.yaml").write_text(local.recipe.to_yaml())
    script = Path(__file__).with_name("kill_a_node.py")
    command = [sys.executable, str(script), str(tmp_path / "recipe.yaml"), str(tmp_path / "ray")]
    subprocess.run([*command, str(tmp_path / "told")], check=True, timeout=500)
    replaced = json.loads((tmp_path / "told").read_text())
    assert len(replaced) == 1, "one worker was lost with its node"
    assert rows(Run(tmp_path / "ray")) == rows(local)


def test_what_a_worker_raises_is_raised_here_with_its_hint(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leave no room for a passage") as caught:
        generate(documents, tmp_path / "run", "ray", sampling__max_new_tokens=8190)
    assert type(caught.value) is RecipeError, "raised as it was raised, and not wrapped"
    assert caught.value.hint


def test_a_worker_that_dies_with_its_shard_again_and_again_stops_the_run(tmp_path: Path) -> None:
    from katsuo.runners.ray_actors import RayRunner

    kept: list[int] = []
    opened = tmp_path

    def open_bench() -> int:
        tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=opened)
        return os.getpid()

    def work(bench: int, shard: int) -> int:
        assert bench == os.getpid()
        if shard == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard == 31:
            raise EngineError("never reached: 30 comes first", hint="none")
        return shard * shard

    settings = RunnerSettings(open_bench, RunnerOptions(workers=2))
    with RayRunner(settings) as runner:
        assert runner.call(lambda bench, tell: bench) != os.getpid()
        runner.run(range(30), work, lambda shard, outcome: kept.append(outcome))
        assert kept == [n * n for n in range(30)]
        workers = [path.name.partition("-")[0] for path in opened.iterdir()]
        assert 1 <= len(workers) == len(set(workers)) <= 2, "an engine is opened once per worker"
        with pytest.raises(RunnerError, match=r"lost 5 times with shard 30"):
            runner.run(range(25, 60), work, lambda shard, outcome: kept.append(outcome))
        assert kept[30:] == [n * n for n in range(25, 30)]


def test_a_cluster_that_is_not_there_or_has_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from katsuo.runners.ray_actors import RayRunner

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    with pytest.raises(RunnerError, match="no node has room for a worker of 1 processors and 4 GPUs"):
        RayRunner(RunnerSettings(int, RunnerOptions(gpus_per_worker=4)))


def test_the_cluster_is_the_one_that_the_address_names_and_is_left_at_the_end() -> None:
    """In a process of its own, because Ray keeps the first environment of one."""
    script = Path(__file__).with_name("two_clusters.py")
    subprocess.run([sys.executable, str(script)], check=True, timeout=300)


def test_a_command_that_is_killed_is_taken_up_by_another_runner(documents: Path, tmp_path: Path) -> None:
    local = generate(documents, tmp_path / "local", "local")
    recipe = recipe_from(
        {"documents": [str(documents)], "tasks": ["exqa", "ynqa"], "engine": "fake", "runner": "ray", "shard_size": 32}
    ).override({"sampling.n": 2, "runner_options.workers": 2})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "katsuo", "generate", "-c", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "run"), "-q"], env={**os.environ})
    while process.poll() is None and len(list((tmp_path / "run").glob("done/0*.json"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(Run(tmp_path / "run").done_shards()) < len(local.shards())
    assert rows(generate(documents, tmp_path / "run", "local", resume="always")) == rows(local)
