"""Whole runs and the cache: what is asked again after a change, and what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import katsuo
from katsuo.cache import AnswerCache
from katsuo.errors import EngineError, KatsuoWarning
from katsuo.pipeline import judge
from katsuo.records import Reason
from katsuo.registry import Door
from katsuo.runners import RUNNERS, RunnerSettings
from katsuo.runners.base import Tell, tell_nobody
from katsuo.store import Run

from counting import asked  # isort: skip


def generate(documents: Path | list[Path], output: Path, **settings: object) -> Run:
    paths = documents if isinstance(documents, list) else [documents]
    return katsuo.generate(paths, ["exqa"], output, **{"engine": "counting", "model": "m", **settings})


def test_another_check_and_another_filter_ask_nothing_again(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_rows()
    first = generate(documents, tmp_path / "a")
    failure = judge.first_failure
    monkeypatch.setattr(
        judge, "first_failure", lambda draft: failure(draft) or (Reason.OFF_TOPIC if len(draft.response) % 2 else None)
    )
    second = generate(documents, tmp_path / "b", checks__duplicate_similarity=0.5, shard_size=7)
    assert len(asked(log)) == first.summary().prompts == second.summary().prompts == 40
    assert (first.manifest["from_cache"], second.manifest["from_cache"]) == (0, 40)
    assert 0 < second.summary().kept < first.summary().kept


def test_a_new_neighbour_in_the_recipe_is_asked_alone(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents, neighbour = write_rows(), write_rows("more.jsonl", rows=5)
    before = generate(documents, tmp_path / "a")
    after = generate([neighbour, documents], tmp_path / "b")
    assert len(asked(log)) == 45
    assert after.manifest["from_cache"] == 40
    assert {example.id for example in before.examples()} < {example.id for example in after.examples()}


def test_more_draws_and_another_task_type_are_asked_alone(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents = write_rows()
    generate(documents, tmp_path / "a")
    generate(documents, tmp_path / "b", sampling__n=2)
    assert len(asked(log)) == 80
    recipe = katsuo.Recipe(documents=(str(documents),), tasks=("exqa", "ynqa"), engine="counting", model="m")
    katsuo.generate(recipe=recipe, output=tmp_path / "c")
    assert len(asked(log)) == 120


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": "other"},
        {"adapter": "owner/adapter"},
        {"engine_options__dtype": "float32"},
        {"engine_options__base_url": "http://127.0.0.1:9/v1"},
    ],
)
def test_another_seed_or_model_asks_again(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    documents = write_rows(rows=6)
    generate(documents, tmp_path / "a")
    generate(documents, tmp_path / "b", **change)
    assert len(asked(log)) == 12


def test_a_model_trained_again_into_the_same_folder_is_another_model(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents, weights = write_rows(rows=6), tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"old weights")
    for name in ("a", "b"):
        generate(documents, tmp_path / name, model=str(weights), adapter=str(weights))
    assert len(asked(log)) == 6
    (weights / "model.safetensors").write_bytes(b"new weights")
    os.utime(weights / "model.safetensors", (1, 1))
    generate(documents, tmp_path / "c", model=str(weights), adapter=str(weights))
    assert len(asked(log)) == 12


def test_an_adapter_whose_base_was_trained_again_is_another_model(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents, base, adapter = write_rows(rows=6), tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"old weights")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    for name in ("a", "b"):
        generate(documents, tmp_path / name, model=str(adapter))
    assert len(asked(log)) == 6
    (base / "model.safetensors").write_bytes(b"new weights, more of them")
    generate(documents, tmp_path / "c", model=str(adapter))
    assert len(asked(log)) == 12


def test_how_fast_a_run_goes_is_no_reason_to_ask_again(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents = write_rows(rows=6)
    generate(documents, tmp_path / "a")
    generate(documents, tmp_path / "b", engine_options__batch_size=1)
    assert len(asked(log)) == 6


def test_what_answers_do_not_follow_is_told_by_every_run_that_they_come_into(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_rows(rows=6)
    monkeypatch.setenv("COUNTING_NOT_TAKEN", "grammar")
    generate(documents, tmp_path / "a")
    monkeypatch.delenv("COUNTING_NOT_TAKEN")
    found = generate(documents, tmp_path / "b")
    assert len(asked(log)) == found.manifest["from_cache"] == 6
    assert found.manifest["model"]["not_taken"] == ["grammar"]
    assert generate(documents, tmp_path / "c", cache=False).manifest["model"]["not_taken"] == []


def test_what_the_answers_before_a_failure_do_not_follow_stays_told(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_rows(rows=20)
    monkeypatch.setenv("COUNTING_NOT_TAKEN", "grammar")
    monkeypatch.setenv("COUNTING_DIES_AT", "16")
    with pytest.raises(EngineError, match="went away"):
        generate(documents, tmp_path / "run", shard_size=8, cache=False)
    monkeypatch.delenv("COUNTING_NOT_TAKEN")
    monkeypatch.delenv("COUNTING_DIES_AT")
    run = generate(documents, tmp_path / "run", shard_size=8, cache=False)
    assert run.manifest["model"]["not_taken"] == ["grammar"]


class Apart:
    """A runner whose two benches are none of its caller's."""

    def __init__(self, settings: RunnerSettings[Any]) -> None:
        self._benches = [settings.open_bench() for _ in range(2)]

    def call(self, function: Callable[..., Any], tell: Tell = tell_nobody) -> Any:
        return function(self._benches[0], tell)

    def run(self, shards: Iterable[int], work: Callable[..., Any], keep: Callable[..., None]) -> None:
        for shard in shards:
            keep(shard, work(self._benches[shard % 2], shard))

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *ended: object) -> None:
        return None


@pytest.mark.parametrize("runner", ["local", "apart"])
def test_what_workers_found_and_could_not_follow_is_told_by_the_run(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    monkeypatch.setitem(RUNNERS._doors, "apart", Door("test_cache_runs:Apart"))
    documents = write_rows(rows=20)
    generate(documents, tmp_path / "first", limit=9)
    monkeypatch.setenv("COUNTING_NOT_TAKEN", "seed grammar")
    run = generate(documents, tmp_path / "run", runner=runner, shard_size=4)
    assert run.manifest["from_cache"] == 9
    assert run.manifest["model"]["not_taken"] == ["grammar", "seed"]


def test_without_a_cache_nothing_is_kept_and_nothing_is_found(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents = write_rows(rows=6)
    generate(documents, tmp_path / "a", cache=False)
    assert AnswerCache().stats().answers == 0
    generate(documents, tmp_path / "b")
    generate(documents, tmp_path / "c", cache=False)
    assert len(asked(log)) == 18


def test_the_engine_without_a_model_leaves_no_cache(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    generate(write_rows(rows=6), tmp_path / "run", engine="fake")
    assert not AnswerCache().folder.exists()


def test_a_shard_of_a_dead_engine_is_not_asked_again(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = write_rows()
    monkeypatch.setenv("COUNTING_DIES_AT", "25")
    with pytest.raises(EngineError, match="went away"):
        generate(documents, tmp_path / "run", engine="streaming")
    assert Run(tmp_path / "run").done_shards() == []
    monkeypatch.delenv("COUNTING_DIES_AT")
    run = generate(documents, tmp_path / "run", engine="streaming")
    assert len(asked(log)) == len(set(asked(log))) == run.summary().prompts == 40


def test_a_damaged_cache_costs_a_warning_and_its_answers(
    write_rows: Callable[..., Path], log: Path, tmp_path: Path
) -> None:
    documents = write_rows(rows=6)
    whole = generate(documents, tmp_path / "a")
    (AnswerCache().folder / "0001.sqlite").write_bytes(b"noise" * 5000)
    with pytest.warns(KatsuoWarning, match="is damaged"):
        again = generate(documents, tmp_path / "b")
    assert list(again.examples()) == list(whole.examples())
    assert len(asked(log)) == 12


def test_an_estimate_asks_even_what_was_answered(write_rows: Callable[..., Path], log: Path, tmp_path: Path) -> None:
    recipe = katsuo.Recipe(documents=(str(write_rows()),), tasks=("exqa",), engine="counting", model="m")
    katsuo.generate(recipe=recipe, output=tmp_path / "run")
    katsuo.estimate(recipe, measured_passages=4)
    assert len(asked(log)) == 44
    katsuo.preview(recipe, 4)
    assert len(asked(log)) == 44
