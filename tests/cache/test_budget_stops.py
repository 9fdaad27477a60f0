"""A budget ends a run where nothing is lost, and the same command goes on to the rows of a run without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import katsuo
from katsuo.store import Run

from counting import asked  # isort: skip

SHARD = 16


def generate(documents: Path, output: Path, engine: str = "streaming", **settings: object) -> Run:
    settings = {"shard_size": SHARD, "model": "m", **settings}
    return katsuo.generate([documents], ["exqa", "ynqa"], output, engine=engine, **settings)


@pytest.fixture
def documents(write_rows: Callable[..., Path]) -> Path:
    return write_rows(rows=40)


def check_ledger(run: Run) -> None:
    summary, ended = run.summary(), [example.id for example in run.examples()]
    ended += [reject.id for reject in run.rejects() if reject.kind == "prompt"]
    assert len(set(ended)) == len(ended) == summary.kept + sum(summary.rejected.values())
    assert summary.kept == len(list(run.examples()))


@pytest.mark.parametrize("engine", ["streaming", "counting", "fake"])
def test_the_run_holds_exactly_as_many_examples_as_it_may(
    documents: Path, tmp_path: Path, log: Path, engine: str
) -> None:
    whole = generate(documents, tmp_path / "whole", engine, cache=False)
    for limit in (1, 10, 23, 23, 40):
        run = generate(documents, tmp_path / "run", engine, budget__max_examples=limit)
        assert len(list(run.examples())) == limit
        assert "budget.max_examples" in run.manifest["stopped"]
        assert list(run.examples()) == list(whole.examples())[:limit]
        check_ledger(run)
    finished = generate(documents, tmp_path / "run", engine)
    assert list(finished.examples()) == list(whole.examples())
    assert list(finished.rejects()) == list(whole.rejects())
    assert finished.manifest["stopped"] == ""
    assert finished.summary().is_complete


def test_a_limit_that_is_reached_asks_nothing_more(documents: Path, tmp_path: Path, log: Path) -> None:
    for _ in range(2):
        generate(documents, tmp_path / "run", budget__max_examples=5, cache=False)
        assert len(asked(log)) == SHARD


def test_a_limit_that_is_not_passed_stops_nothing(documents: Path, tmp_path: Path, log: Path) -> None:
    whole = generate(documents, tmp_path / "whole").summary()
    limits = {"budget__max_examples": whole.kept, "budget__max_tokens": whole.new_tokens, "budget__max_minutes": 60.0}
    for name in ("a", "b"):
        run = generate(documents, tmp_path / name, "counting", cache=False, **limits)
        assert run.manifest["stopped"] == ""
        assert run.summary().is_complete
        limits["budget__max_examples"] = 10_000


def test_tokens_stop_within_a_shard_and_nothing_is_asked_twice(documents: Path, tmp_path: Path, log: Path) -> None:
    whole, stops = generate(documents, tmp_path / "whole", cache=False), []
    log.unlink()
    for _ in range(100):
        run = generate(documents, tmp_path / "run", budget__max_tokens=120)
        check_ledger(run)
        stops.append(len(asked(log)))
        assert stops[-1] == run.summary().kept + sum(run.summary().rejected.values()), "what was answered is shown"
        if not run.manifest["stopped"]:
            break
        assert "budget.max_tokens" in run.manifest["stopped"]
    assert len(stops) > 5
    assert any(stop % SHARD for stop in stops[:-1]), "it stops within shards"
    assert len(asked(log)) == len(set(asked(log))) == 80
    assert list(run.examples()) == list(whole.examples())
    assert list(run.rejects()) == list(whole.rejects())


@pytest.mark.parametrize(("engine", "cache"), [("counting", True), ("streaming", False), ("fake", True)])
def test_where_answers_would_be_lost_it_stops_after_the_shard(
    documents: Path, tmp_path: Path, log: Path, engine: str, cache: bool
) -> None:
    run = generate(documents, tmp_path / "run", engine, budget__max_tokens=1, cache=cache)
    assert run.done_shards() == run.answered_shards() == [0]
    check_ledger(run)
    assert "budget.max_tokens" in run.manifest["stopped"]
    generate(documents, tmp_path / "run", engine, budget__max_tokens=1, cache=cache)
    assert run.done_shards() == [0, 1]


def test_minutes_that_are_over_at_once_still_bring_one_answer(documents: Path, tmp_path: Path, log: Path) -> None:
    for count in (1, 2, 3):
        run = generate(documents, tmp_path / "run", budget__max_minutes=1e-9)
        assert len(asked(log)) == count
        assert "minutes are over" in run.manifest["stopped"]
        check_ledger(run)


def test_what_a_budget_left_is_shown_and_exported_like_any_run(documents: Path, tmp_path: Path, log: Path) -> None:
    run = generate(documents, tmp_path / "run", budget__max_examples=5)
    katsuo.export_run(run.path, "alpaca", tmp_path / "out", allow_partial=True)
    rows = [json.loads(line) for file in (tmp_path / "out").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(rows) == 5


@pytest.mark.end_to_end
def test_the_command_exits_with_3_says_how_to_go_on_and_goes_on(
    documents: Path, tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    def katsuo_generate(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "katsuo", "generate", str(documents), "-t", "exqa", "--engine", "streaming"]
        command += ["--model", "m", "-o", str(tmp_path / "run"), "--allow-partial", "--json", "-q", *flags]
        return subprocess.run(command, capture_output=True, text=True, env=elsewhere)

    stopped = katsuo_generate("--max-tokens", "50", "--max-minutes", "30")
    assert stopped.returncode == 3, stopped.stderr
    assert stopped.stderr.startswith("stopped: ")
    assert "the same command goes on" in stopped.stderr
    told = json.loads(stopped.stdout)
    assert told["stopped"] in stopped.stderr
    assert 0 < told["kept"] < 40
    assert katsuo_generate("--max-examples", "20").returncode == 3
    finished = katsuo_generate()
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["kept"] + sum(json.loads(finished.stdout)["rejected"].values()) == 40
    assert json.loads(finished.stdout)["from_cache"] > 0
