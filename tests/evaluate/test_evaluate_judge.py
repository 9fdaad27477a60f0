from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from katsuo.api import evaluate, generate
from katsuo.cli.main import build
from katsuo.errors import RunChangedError, RunExistsError, StoreError, UsageError
from katsuo.evaluate import judge as judging
from katsuo.evaluate.ask import Prediction
from katsuo.evaluate.compare import compare
from katsuo.evaluate.folder import Evaluation, scores_beside
from katsuo.evaluate.judge import hash_of, read_sheet, summary
from katsuo.evaluate.overlap import find_overlap
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import Item, make_sheet, read_suite, task_suite
from katsuo.evaluate.system import System


def evaluate_claims(claims, output, **settings):
    return evaluate("fake", output, task="nli", data=claims, engine="fake", **settings)


def test_an_evaluation_leaves_scores_and_every_prediction(claims, tmp_path):
    seen = []
    done = evaluate_claims(claims, tmp_path / "scores", on_progress=seen.append)
    told = done.scores["sets"]["nli"]
    assert (told["items"], told["metric"], len(told["templates"])) == (8, "macro_f1", 5)
    assert told["mean"] == pytest.approx(sum(one["macro_f1"] for one in told["templates"].values()) / 5)
    assert "too few for a verdict" in told["warnings"][0]
    assert len(done.predictions("nli")) == 40
    outcomes, items, templates = done.outcomes("nli")
    assert outcomes.score() == pytest.approx(told["mean"])
    assert (len(items), len(templates)) == (8, 5)
    assert seen[-1].done == seen[-1].total == 8
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        "evaluation.json",
        "predictions.parquet",
        "scores.json",
    ]


def test_a_stopped_evaluation_goes_on_and_ends_with_the_same_predictions(claims, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "_ITEMS_PER_PART", 3)
    whole = evaluate_claims(claims, tmp_path / "whole")

    def stop(progress):
        if progress.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_claims(claims, tmp_path / "stopped", on_progress=stop)
    with pytest.raises(StoreError, match="no finished evaluation"):
        Evaluation(tmp_path / "stopped")
    fresh = []
    resumed = evaluate_claims(claims, tmp_path / "stopped", on_progress=fresh.append)
    assert [progress.per_s for progress in fresh[:2]] == [0, 0]
    assert resumed.predictions("nli") == whole.predictions("nli")
    assert evaluate_claims(claims, tmp_path / "stopped").scores == resumed.scores


def test_a_folder_of_another_evaluation_is_not_touched(claims, tmp_path):
    evaluate_claims(claims, tmp_path / "scores")
    with pytest.raises(RunChangedError, match=r"settings\.normalise: 'none' → 'tokens'"):
        evaluate_claims(claims, tmp_path / "scores", normalise="tokens")
    before = claims.read_text()
    claims.write_text(before.replace('"neutral"', '"entailment"'))
    with pytest.raises(RunChangedError, match=r"sets\.nli"):
        evaluate_claims(claims, tmp_path / "scores")
    claims.write_text(before.replace("painted blue", "painted red"))
    with pytest.raises(RunChangedError, match=r"sets\.nli"):
        evaluate_claims(claims, tmp_path / "scores")
    claims.write_text(before)
    with pytest.raises(RunChangedError, match=r"sets\.nli"):
        evaluate_claims(claims, tmp_path / "scores", labels=["contradiction", "neutral", "entailment"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(RunExistsError):
        evaluate_claims(claims, tmp_path / "mine")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('near: "{{ claim }}"\n', ""),
        ('passage: "{{ text }}"\n', ""),
        ('labels: ["Yes", "No"]\n', ""),
        ('labels: ["Yes", "No"]', 'labels: ["No", "Yes"]'),
    ],
)
def test_what_decides_cut_choice_and_metric_makes_another_evaluation(tmp_path, old, new):
    suite = (
        'name: doors\npassage: "{{ text }}"\nnear: "{{ claim }}"\ngold: "{{ answer }}"\nlabels: ["Yes", "No"]\n'
        'templates:\n- {name: one, jinja: "{{ text }} {{ claim }}", answer_choices: "Yes ||| No"}\n'
    )
    assert old in suite
    row = {"text": "The door is shut.", "claim": "It is open.", "answer": "No"}
    hashes = set()
    for text in (suite, suite.replace(old, new)):
        (tmp_path / "suite.yaml").write_text(text)
        hashes.add(hash_of(make_sheet(read_suite(tmp_path / "suite.yaml"), [row])))
    assert len(hashes) == 2


def test_a_set_of_written_answers_is_scored_by_token_f1(tmp_path):
    rows = [{"context": f"The cat {n} sleeps.", "question": f"Who {n}?", "answers": ["cat"]} for n in range(3)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = evaluate("fake", tmp_path / "s", task="exqa", data=tmp_path / "t.jsonl", engine="fake", templates=2)
    assert done.scores["sets"]["exqa"]["metric"] == "f1"
    outcomes, *_ = done.outcomes("exqa")
    assert outcomes.golds is None
    assert outcomes.score() == done.scores["sets"]["exqa"]["mean"] == 0


def test_how_long_answers_are_is_told_beside_how_long_they_should_be(tmp_path):
    rows = [{"context": "The cat sleeps.", "question": f"Who {n}?", "answers": answers} for n, answers in
            enumerate([["the old cat", "cat"], ["a dog or a cat"]])]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sheet = read_sheet(task_suite("exqa"), tmp_path / "t.jsonl", EvaluateSettings(templates=1))
    (template,) = sheet.suite.templates
    told = [("cat", ("the old cat", "cat")), ("", ("a dog or a cat",)), ("the dog", ("a dog or a cat",))]
    predictions = [Prediction(str(n), n, template.name, *one, 0.0, 0.0) for n, one in enumerate(told)]
    beside = scores_beside(summary(sheet, predictions))
    assert (beside["words"], beside["gold_words"]) == (1, 4)


def test_two_evaluations_are_compared_item_by_item(claims, tmp_path):
    one = evaluate_claims(claims, tmp_path / "one")
    other = evaluate_claims(claims, tmp_path / "other", style="chat")
    told = compare(one, other, resamples=200)
    assert told.mean.difference == pytest.approx(one.scores["mean"] - other.scores["mean"])
    assert told.claim().items == 8
    assert told.claim("nli").metric == "macro_f1"
    assert compare(one, one, resamples=50).mean.interval == (0, 0)
    fewer = evaluate_claims(claims, tmp_path / "fewer", limit=4)
    with pytest.raises(UsageError, match="different limit: None and 4"):
        compare(one, fewer)


def test_evaluations_of_other_rows_are_not_compared(claims, tmp_path):
    one = evaluate_claims(claims, tmp_path / "one")
    claims.write_text(claims.read_text().replace("painted blue", "painted red"))
    other = evaluate_claims(claims, tmp_path / "other")
    with pytest.raises(UsageError, match="not asked the same"):
        compare(one, other)


def test_a_judge_is_told_what_to_judge_by(claims, tmp_path):
    with pytest.raises(UsageError, match="a suite or a task type"):
        evaluate("fake", tmp_path / "s", engine="fake")
    with pytest.raises(UsageError, match="a suite or a task type"):
        evaluate("fake", tmp_path / "s", "pubmed_qa", task="nli", data=claims, engine="fake")


def test_test_rows_that_stand_in_the_run_are_counted_and_warned_of(claims, tmp_path):
    (tmp_path / "docs").mkdir()
    text = "Two things to know. The ferry to the island leaves at nine and comes back at noon. That is all there is."
    (tmp_path / "docs" / "a.txt").write_text(text)
    run = generate(tmp_path / "docs", "ynqa", tmp_path / "run", engine="fake", model="fake")
    done = evaluate_claims(claims, tmp_path / "scores", run=run.path)
    told = done.scores["sets"]["nli"]
    assert told["overlap"]["passages"] == 3
    assert any("3 by their passage" in warning for warning in told["warnings"])


def test_a_finished_evaluation_is_searched_for_in_another_run(claims, tmp_path):
    for name, text in (
        ("a", "The ferry to the island leaves at nine and comes back at noon."),
        ("b", "Nothing of it."),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(text + " That is all that there is to know about this matter today.")
        generate(tmp_path / name, "ynqa", tmp_path / f"run-{name}", engine="fake", model="fake")
    assert "overlap" not in evaluate_claims(claims, tmp_path / "scores").scores["sets"]["nli"]
    for name, count in (("a", 3), ("b", 0)):
        told = evaluate_claims(claims, tmp_path / "scores", run=tmp_path / f"run-{name}").scores["sets"]["nli"]
        assert told["overlap"]["passages"] == count
        assert sum("by their passage" in warning for warning in told["warnings"]) == bool(count)
        assert any("too few" in warning for warning in told["warnings"])
    assert evaluate_claims(claims, tmp_path / "scores").scores["sets"]["nli"]["overlap"]["passages"] == 0


def test_an_overlap_is_a_run_of_words_whatever_case_and_punctuation():
    words = " ".join(f"word{number}" for number in range(30))
    items = [Item("a", 0, words, "", "", ()), Item("b", 1, "other words here are all new", "Is it so?", "", ())]
    assert find_overlap(items, [words[30:].upper().replace(" ", ", ")]).passages == 1
    assert find_overlap(items, [" ".join(words.split()[:12])]).passages == 0
    assert find_overlap(items, ["X other words here are all new Y"]).rows == ("b",)
    # Three words occur anywhere.
    assert find_overlap(items, ["is it so"]).warning == ""


def test_an_overlap_is_found_without_spaces_and_in_other_forms_of_unicode():
    text = "港の委員会は三月の雨の夜に集まった。"
    items = [Item("a", 0, text, "", "", ()), Item("b", 1, "Fünf ﬁne words über alles", "", "", ())]
    found = find_overlap(items, [f"前置き。{text}それで終わり。", "So: Fu\u0308nf fine wo\u00adrds u\u0308ber alles!"])
    assert found.rows == ("a", "b")


def test_a_mean_over_sets_of_other_metrics_is_in_points(claims, tmp_path):
    rows = [{"context": f"The cat {n} sleeps.", "question": f"Who {n}?", "answers": ["cat"]} for n in range(3)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = EvaluateSettings(engine="fake", templates=1)
    sheets = [read_sheet(task_suite("exqa"), tmp_path / "t.jsonl", settings)]
    sheets += [read_sheet(task_suite("nli"), claims, settings)]
    one, other = (judging.judge(System(name), sheets, tmp_path / name, settings) for name in ("one", "other"))
    told = compare(one, other, resamples=50)
    assert told.claim().metric == "points"
    assert compare(one, other, sets=["exqa"], resamples=50).claim().metric == "f1"


def test_an_evaluation_is_not_written_behind_a_url(claims):
    with pytest.raises(UsageError, match='an evaluation is not written to "memory://scores"'):
        evaluate_claims(claims, "memory://scores")
    words = ["evaluate", "fake", "--task", "nli", "--data", str(claims), "--engine", "fake", "-o", "memory://scores"]
    done = CliRunner().invoke(build(words), words)
    assert isinstance(done.exception, UsageError)
