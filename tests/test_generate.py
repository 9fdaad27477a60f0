"""The main job from files to a run folder, on the engine without a model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import katsuo
from katsuo.errors import EngineError, RunChangedError, RunExistsError, SourceError, StoreError, UsageError
from katsuo.records import Completion, Reason
from katsuo.store import Run

TOPICS = ("harbour", "orchard", "library", "railway", "theatre", "brewery")
COLUMNS = (
    *("id", "task_type", "instruction", "response", "messages", "passage_id", "source", "char_start", "char_end"),
    *("context", "model", "engine", "sampling", "prompt_hash", "seed", "checks"),
)


def write_documents(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        lines = [
            f"In {1800 + 7 * line + number} the {topic} of town {number} got door {line}, painted by {line * number}."
            for line in range(12)
        ]
        (folder / f"{topic}-{number}.txt").write_text(" ".join(lines), encoding="utf-8")
    return folder


def generate(documents: Path, output: Path, **settings: object) -> Run:
    settings = {"engine": "fake", "shard_size": 8, "chunk__size": 64, **settings}
    return katsuo.generate(documents, ["exqa", "ynqa", "nli", "mcqa"], output, **settings)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "documents")


def test_every_prompt_ends_as_kept_or_as_one_reject_with_a_reason(documents: Path, tmp_path: Path) -> None:
    run = generate(documents, tmp_path / "run", sampling__n=3)
    summary, rejects = run.summary(), [r for r in run.rejects() if r.kind == "prompt"]
    assert summary.prompts == summary.passages * 4 * 3 == summary.kept + sum(summary.rejected.values())
    assert summary.rejected == dict(Counter(str(reject.reason) for reject in rejects))
    ended = [example.id for example in run.examples()] + [reject.id for reject in rejects]
    assert len(ended) == len(set(ended)) == summary.prompts
    assert summary.is_complete
    assert run.manifest["summary"]["kept"] == summary.kept == sum(summary.kept_by_task.values())


def test_the_run_folder_holds_what_a_trainer_and_a_reader_need(documents: Path, tmp_path: Path) -> None:
    run = generate(documents, tmp_path / "run")
    rows = pq.read_table(tmp_path / "run" / "examples").to_pylist()
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        assert row["messages"] == [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["response"]},
        ]
        text = (documents.parent / row["source"]).read_text(encoding="utf-8")
        assert text[row["char_start"] : row["char_end"]] == row["context"]
        assert row["context"] in row["instruction"]
    assert katsuo.read_recipe(tmp_path / "run" / "recipe.yaml") == run.recipe
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["model"]["engine"] == "fake"
    assert manifest["versions"]["katsuo"] == katsuo.__version__


def test_rows_do_not_depend_on_the_size_of_shards(documents: Path, tmp_path: Path) -> None:
    small = generate(documents, tmp_path / "small", shard_size=4)
    large = generate(documents, tmp_path / "large", shard_size=1000)
    assert len(small.shards()) > len(large.shards()) == 1
    assert list(small.examples()) == list(large.examples())


def test_another_seed_gives_other_rows_and_another_sample_another_row(documents: Path, tmp_path: Path) -> None:
    first, second = generate(documents, tmp_path / "a", seed=1), generate(documents, tmp_path / "b", seed=2)
    assert {e.id for e in first.examples()}.isdisjoint(e.id for e in second.examples())
    several = generate(documents, tmp_path / "c", sampling__n=4)
    by_passage = Counter((e.passage_id, e.task_type, e.instruction) for e in several.examples())
    assert max(by_passage.values()) == 1


def test_a_finished_run_is_taken_up_without_asking_again(documents: Path, tmp_path: Path) -> None:
    before = generate(documents, tmp_path / "run")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "examples").iterdir()}
    after = generate(documents, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "examples").iterdir()} == stamps
    assert after.summary() == before.summary()


def test_a_changed_recipe_is_refused_with_the_difference(documents: Path, tmp_path: Path) -> None:
    generate(documents, tmp_path / "run")
    with pytest.raises(RunChangedError, match=r"sampling\.n: 1 → 2"):
        generate(documents, tmp_path / "run", sampling__n=2)


def test_changed_documents_are_refused(documents: Path, tmp_path: Path) -> None:
    generate(documents, tmp_path / "run")
    (documents / "harbour-0.txt").write_text("Something else entirely.")
    with pytest.raises(RunChangedError, match="documents have changed"):
        generate(documents, tmp_path / "run")


TASK = """
name: clause type
description: Ask which kind of clause the passage is.
answer: labels
labels: [alpha, beta]
examples:
  - {passage: Doors are open., instruction: "{{context}} Alpha or beta?", response: alpha}
"""


@pytest.mark.parametrize("change", [("[alpha, beta]", "[alpha, beta, gamma]"), ("clause type", "clause kind")])
def test_a_task_type_that_was_edited_is_refused_and_the_run_stays_as_it_was(
    documents: Path, tmp_path: Path, change: tuple[str, str]
) -> None:
    (tmp_path / "clause.yaml").write_text(TASK)
    settings = {"engine": "fake", "shard_size": 4, "chunk__size": 64, "budget__max_examples": 5}
    katsuo.generate(documents, [str(tmp_path / "clause.yaml")], tmp_path / "run", **settings)
    before = (tmp_path / "run" / "manifest.json").read_text()
    (tmp_path / "clause.yaml").write_text(TASK.replace(*change))
    with pytest.raises(RunChangedError, match=r"tasks\.clause"):
        katsuo.generate(documents, [str(tmp_path / "clause.yaml")], tmp_path / "run", **settings)
    assert (tmp_path / "run" / "manifest.json").read_text() == before


def test_two_task_types_of_one_name_are_refused(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TASK.replace("clause type", "yes-no question answering"))
    with pytest.raises(UsageError, match='two task types are called "yes-no question answering"'):
        katsuo.generate(documents, ["ynqa", str(tmp_path / "mine.yaml")], tmp_path / "run", engine="fake")


def test_a_held_out_file_that_was_edited_is_refused(documents: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "test.txt"
    held_out.write_text("Nothing of this stands anywhere.")
    generate(documents, tmp_path / "run", held_out=str(held_out))
    generate(documents, tmp_path / "run", held_out=str(held_out))
    held_out.write_text((documents / "orchard-1.txt").read_text())
    with pytest.raises(RunChangedError, match="held-out"):
        generate(documents, tmp_path / "run", held_out=str(held_out))


def test_changed_documents_leave_the_manifest_of_a_finished_run(documents: Path, tmp_path: Path) -> None:
    before = generate(documents, tmp_path / "run").manifest
    (documents / "more.txt").write_text("One more.")
    with pytest.raises(RunChangedError):
        generate(documents, tmp_path / "run")
    assert Run(tmp_path / "run").manifest == before
    assert "summary" in before


def test_documents_that_are_not_there_leave_no_run_folder(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        generate(tmp_path / "dcos", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert generate(documents, tmp_path / "run").summary().kept


def test_a_run_inside_its_documents_does_not_read_itself(documents: Path, tmp_path: Path) -> None:
    beside = generate(documents, tmp_path / "run").summary()
    stopped = generate(documents, documents / "run", budget__max_examples=5)
    assert stopped.summary().kept == 5
    inside = generate(documents, documents / "run")
    assert inside.summary().documents == beside.documents == 6
    assert [example.id for example in inside.examples()] == [example.id for example in Run(tmp_path / "run").examples()]


def test_two_processes_do_not_work_on_one_run(documents: Path, tmp_path: Path) -> None:
    run = generate(documents, tmp_path / "run", budget__max_examples=5)
    with run.alone(), pytest.raises(StoreError, match="another process works on the run"):
        generate(documents, tmp_path / "run")
    assert generate(documents, tmp_path / "run").summary().is_complete


def test_resume_never_and_always_mean_what_they_say(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run to take up"):
        generate(documents, tmp_path / "run", resume="always")
    generate(documents, tmp_path / "run", resume="never")
    generate(documents, tmp_path / "run", resume="always")
    with pytest.raises(RunExistsError, match="already holds a run"):
        generate(documents, tmp_path / "run", resume="never")
    with pytest.raises(UsageError, match='"maybe"'):
        generate(documents, tmp_path / "run", resume="maybe")


def test_a_folder_that_holds_something_else_is_left_alone(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="exists and holds no run"):
        generate(documents, tmp_path / "precious")
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["thesis.txt"]


def test_bad_documents_are_counted_by_name_and_the_rest_goes_on(documents: Path, tmp_path: Path) -> None:
    (documents / "copy.txt").write_text((documents / "harbour-0.txt").read_text())
    (documents / "empty.txt").write_text(" \n")
    (documents / "binary.txt").write_bytes(bytes(range(256)) * 8)
    (documents / "marked.txt").write_text("Please answer <|pipe|> at once.")
    run = generate(documents, tmp_path / "run")
    named = {(r.kind, Path(r.source).name, r.reason) for r in run.rejects()}
    assert ("document", "harbour-0.txt", Reason.DUPLICATE_DOCUMENT) in named
    assert ("document", "empty.txt", Reason.EMPTY_DOCUMENT) in named
    assert ("document", "binary.txt", Reason.NOT_TEXT) in named
    assert ("passage", "marked.txt", Reason.CONTROL_MARKER) in named
    summary = run.summary()
    assert summary.documents == 10
    assert sum(summary.documents_rejected.values()) == 3
    assert summary.kept > 0


def test_what_stands_in_the_held_out_file_is_never_asked_about(documents: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "test.txt"
    held_out.write_text((documents / "orchard-1.txt").read_text())
    run = generate(documents, tmp_path / "run", held_out=str(held_out))
    assert run.summary().passages_rejected[str(Reason.HELD_OUT)] > 0
    assert "orchard-1.txt" not in {Path(e.source).name for e in run.examples()}


def test_a_held_out_file_that_cannot_be_read_stops_the_run(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_bytes(b"\x00\xff\xfe\x01" * 100)
    with pytest.raises(SourceError, match="held-out file"):
        generate(documents, tmp_path / "run", held_out=str(tmp_path / "test.txt"))


def test_a_limit_takes_the_first_passages(documents: Path, tmp_path: Path) -> None:
    whole = generate(documents, tmp_path / "whole")
    few = generate(documents, tmp_path / "few", limit=3)
    assert list(few.passages()) == list(whole.passages())[:3]


@pytest.mark.parametrize(("tasks", "told"), [([], "no task type"), (["nlu"], "unknown task type")])
def test_wrong_use_is_told_before_anything_is_written(
    documents: Path, tmp_path: Path, tasks: list[str], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        katsuo.generate(documents, tasks, tmp_path / "run", engine="fake")
    assert not (tmp_path / "run").exists()


def test_a_dead_engine_stops_the_run_and_what_was_done_is_kept(documents: Path, tmp_path: Path, monkeypatch) -> None:
    whole = list(generate(documents, tmp_path / "whole").examples())
    from katsuo.engines.fake import FakeEngine

    answer, calls = FakeEngine.generate, []

    def dies_at_the_third_shard(self, prompts, sampling):
        calls.append(len(prompts))
        if len(calls) == 3:
            raise EngineError("the model went away", hint="start it again")
        return answer(self, prompts, sampling)

    monkeypatch.setattr(FakeEngine, "generate", dies_at_the_third_shard)
    with pytest.raises(EngineError):
        generate(documents, tmp_path / "run")
    assert Run(tmp_path / "run").done_shards() == [0, 1]
    assert list(generate(documents, tmp_path / "run").examples()) == whole


def test_what_an_engine_could_not_answer_is_rejected_with_its_words(
    documents: Path, tmp_path: Path, monkeypatch
) -> None:
    from katsuo.engines.fake import FakeEngine

    finishes = ["too_long", "error", "length", "stop"]
    monkeypatch.setattr(
        FakeEngine,
        "generate",
        lambda self, prompts, sampling: [Completion("x", finishes[i % 4], 1, "its words") for i in range(len(prompts))],
    )
    run = generate(documents, tmp_path / "run")
    reasons = {Reason.TOO_LONG, Reason.ENGINE_ERROR, Reason.UNFINISHED, Reason.PARSE_FAILURE}
    assert {reject.reason for reject in run.rejects()} == reasons
    assert run.summary().kept == 0
    assert "its words" in {reject.detail for reject in run.rejects()}


def test_a_model_whose_context_is_too_short_is_refused(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave no room for a passage"):
        generate(documents, tmp_path / "run", sampling__max_new_tokens=8190)


def test_a_preview_writes_nothing_and_an_estimate_counts_as_the_run_does(documents: Path, tmp_path: Path) -> None:
    recipe = katsuo.Recipe(documents=(str(documents),), tasks=("exqa",), engine="fake")
    shown = katsuo.preview(recipe, 2)
    assert len(shown) == 2
    estimate = katsuo.estimate(recipe)
    summary = katsuo.generate(recipe=recipe, output=tmp_path / "run").summary()
    assert (estimate.documents, estimate.passages, estimate.prompts) == (6, summary.passages, summary.prompts)
    assert estimate.new_tokens == pytest.approx(summary.new_tokens, rel=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "run"]


def test_a_run_whose_passages_this_process_does_not_see_is_no_success(documents: Path, tmp_path: Path) -> None:
    run = generate(documents, tmp_path / "run")
    assert run.read_marker("documents")["shards"] == len(run.shards()) > 1
    for path in (tmp_path / "run" / "passages").iterdir():
        path.rename(tmp_path / path.name)  # a disk that shows them late
    with pytest.raises(StoreError, match=r"not all that was read .* can be seen here: 0 of"):
        generate(documents, tmp_path / "run")
    for path in tmp_path.glob("*.parquet"):
        path.rename(tmp_path / "run" / "passages" / path.name)
    assert generate(documents, tmp_path / "run").summary() == run.summary()
