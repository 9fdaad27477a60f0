from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from katsuo.cli.main import build
from katsuo.errors import UsageError

ROWS = [
    {"premise": f"Door {n} is shut.", "hypothesis": "It is open.", "gold": "no" if n % 2 else "yes"} for n in range(6)
]


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path / "t.jsonl"


def invoke(*words):
    result = CliRunner().invoke(build(["evaluate"]), ["evaluate", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


COMMON = ("--engine", "fake", "--task", "ynqa", "--column", "passage=premise", "--column", "question=hypothesis")


def test_the_command_prints_a_line_per_set_and_warnings(rows, tmp_path):
    said = invoke("fake", *COMMON, "--column", "answer=gold", "--data", rows, "-o", tmp_path / "s", "-q")
    assert "ynqa" in said
    assert " macro_f1, 53.3 accuracy, 6 items, 5 templates" in said
    assert "warning: ynqa: only 6 items" in said


def test_json_holds_scores_comparisons_and_the_verdict(rows, tmp_path):
    words = (*COMMON, "--column", "answer=gold", "--data", rows, "-o", tmp_path / "s", "-q", "--json")
    told = json.loads(invoke("one", "two", *words))
    assert [one["system"] for one in told["evaluations"]] == ["one", "two"]
    assert told["comparisons"][0]["gains"]["mean"]["difference"] == 0
    assert "macro F1 over two (95 % 0.0 to 0.0, n = 6, not significant)" in told["verdict"]
    assert "too few for a verdict" in told["verdict"]


def test_what_test_rows_share_with_the_run_is_printed_even_where_it_is_nothing(rows, tmp_path):
    from katsuo.api import generate

    (tmp_path / "a.txt").write_text("A ferry leaves the old harbour at nine and comes back at noon.")
    run = generate(tmp_path / "a.txt", "ynqa", tmp_path / "run", engine="fake", model="fake").path
    words = (*COMMON, "--column", "answer=gold", "--data", rows, "--run", run, "-o", tmp_path / "s", "-q")
    assert "in the run: 0 by their passage, 0 by their question" in invoke("fake", *words)


def test_how_answers_are_scored_is_a_flag_each(rows, tmp_path):
    words = (*COMMON, "--column", "answer=gold", "--data", rows, "-o", tmp_path / "s", "-q")
    invoke("fake", *words, "--normalise", "bytes", "--eos", "no", "--first-gold", "--templates", 2)
    told = json.loads((tmp_path / "s" / "scores.json").read_text())
    kept = {key: told["settings"][key] for key in ("normalise", "eos", "first_gold", "templates")}
    assert kept == {"normalise": "bytes", "eos": "no", "first_gold": True, "templates": 2}


def test_two_systems_on_two_sets_are_compared_set_by_set(rows, tmp_path):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    suites = []
    for name in ("doors", "gates"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\ntask: ynqa\ndata: {name}.jsonl\npassage: '{{{{ premise }}}}'\ngold: '{{{{ gold }}}}'\n"
            "labels: ['yes', 'no']\ntemplates:\n- {name: below, jinja: '{{ premise }} {{ hypothesis }}'}\n"
        )
        suites += ["--suite", tmp_path / f"{name}.yaml"]
    said = invoke("a/fake", "b/fake", "--engine", "fake", *suites, "-o", tmp_path / "s", "-q").splitlines()
    assert [line.split()[0] for line in said if " over " in line][-2:] == ["doors", "gates"]
    assert all("F1 over b/fake (95 %" in line for line in said[-2:])


def test_wrong_flags_say_how_they_are_written(rows, tmp_path):
    with pytest.raises(UsageError, match="names no column"):
        invoke("fake", "--task", "ynqa", "--data", rows, "--column", "premise", "-o", tmp_path / "s")
    with pytest.raises(UsageError, match="no JSON list"):
        invoke("fake", *COMMON, "--data", rows, "--labels", '["yes, no', "-o", tmp_path / "s")
    with pytest.raises(UsageError, match="the same name"):
        invoke("a/fake", "a/fake", *COMMON, "--column", "answer=gold", "--data", rows, "-o", tmp_path / "s")


def test_a_ranked_set_is_written_as_tasks_of_the_harness(rows, tmp_path):
    words = (*COMMON, "--column", "answer=gold", "--data", rows, "--export-harness", tmp_path / "tasks")
    assert "katsuo_ynqa" in invoke("fake", *words)
    place = tmp_path / "tasks" / "katsuo_ynqa"
    first, *others = [json.loads(line) for line in (place / "katsuo_ynqa_0.jsonl").read_text().splitlines()]
    assert len(others) == 5
    assert first["choices"] == ["yes</s>", "no</s>"]
    assert first["prompt"].startswith("<|input|>\nDoor 0 is shut.")
    assert first["gold"] == 0
    assert "doc_to_choice: '{{choices}}'" in (place / "katsuo_ynqa_0.yaml").read_text()
