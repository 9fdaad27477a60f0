"""Runs made from others: shuffled passages, labelled rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bridges import write_rows

from katsuo.api import generate
from katsuo.evaluate.suites import task_suite
from katsuo.experiment.derive import make_supervised, shuffle_passages
from katsuo.store import Run


def made_run(documents: Path, output: Path) -> Run:
    return generate(documents, ["ynqa", "exqa"], output, engine="fake", model="fake")


def test_shuffled_examples_keep_their_question_and_answer_and_lose_their_passage(
    bridges: tuple[Path, Path], tmp_path: Path
) -> None:
    run = made_run(bridges[0], tmp_path / "run")
    kept = shuffle_passages(run, tmp_path / "shuffled", 0)
    before, after = list(run.examples()), list(Run(tmp_path / "shuffled").examples())
    assert kept == 0
    assert len(before) == len(after) > 8
    for one, other in zip(before, after, strict=True):
        assert one.response == other.response
        assert one.context != other.context
        assert other.context in other.instruction
        assert one.context not in other.instruction
        assert one.instruction.replace(one.context, "") == other.instruction.replace(other.context, "")
    by_type = [
        sorted(example.context for example in side if example.task_type.startswith("yes")) for side in (before, after)
    ]
    assert by_type[0] == by_type[1], "every passage is used as often as before"


def test_the_same_seed_shuffles_the_same_way_and_a_killed_shuffle_is_done_again(
    bridges: tuple[Path, Path], tmp_path: Path
) -> None:
    run = made_run(bridges[0], tmp_path / "run")
    orders = []
    for name, seed in (("a", 3), ("a", 3), ("b", 3), ("c", 4)):
        shuffle_passages(run, tmp_path / name, seed)
        orders.append([example.context for example in Run(tmp_path / name).examples()])
    assert orders[0] == orders[1] == orders[2] != orders[3]


def test_a_run_of_one_passage_cannot_be_shuffled_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The bridge at Aldern was opened in 1901 and is made of stone from the hills.")
    run = made_run(tmp_path / "one.txt", tmp_path / "run")
    assert shuffle_passages(run, tmp_path / "shuffled", 0) == run.summary().kept > 0


def supervised(rows: Path, output: Path, max_tokens: int = 512) -> int:
    def count(texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    suite = task_suite("ynqa")
    return make_supervised(suite, rows, output, templates=2, max_tokens=max_tokens, count_tokens=count)


def test_long_passages_of_labelled_rows_are_cut_so_that_they_can_be_trained_on(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", places=2)
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    long = [{**row, "passage": "Nothing of it here. " * 200 + row["passage"]} for row in told]
    rows.write_text("".join(json.dumps(row) + "\n" for row in long))
    assert supervised(rows, tmp_path / "run", max_tokens=128) == 16
    for example, row in zip(Run(tmp_path / "run").examples(), long, strict=True):
        assert len(example.instruction.split()) <= 128 - 64 - 1
        assert row["question"] in example.instruction
        assert example.context in example.instruction
        assert row["passage"][example.char_start : example.char_end] == example.context


def test_labelled_rows_become_examples_with_the_right_answers(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", places=2)
    count = supervised(rows, tmp_path / "run")
    run = Run(tmp_path / "run")
    examples = list(run.examples())
    assert count == len(examples) == run.summary().kept == 16
    assert run.summary().is_complete
    assert [example.response for example in examples].count("yes") == 2
    assert all(example.context in example.instruction for example in examples)
    assert len({example.passage_id for example in examples}) == len(list(run.passages())) == 2
