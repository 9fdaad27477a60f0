from __future__ import annotations

import random

import pytest

from katsuo.evaluate.metrics import (
    LABEL_METRICS,
    accuracy,
    exact_match,
    macro_f1,
    majority,
    score_labels,
    token_f1,
)

GOLDS = ["yes", "no", "maybe", "yes", "yes", "no"]


@pytest.mark.parametrize("metric", LABEL_METRICS.values())
def test_perfect_labels_score_100_and_wrong_ones_0(metric):
    assert metric(GOLDS, GOLDS) == 100
    assert metric(GOLDS, ["other"] * 6) == 0
    assert metric([], []) == 0


@pytest.mark.parametrize("metric", [token_f1, exact_match])
def test_perfect_answers_score_100_and_empty_ones_0(metric):
    assert metric(["in the inn"], "in the inn") == 100
    assert metric(["in the inn"], "") == 0


@pytest.mark.parametrize("metric", LABEL_METRICS.values())
def test_the_order_of_items_does_not_matter(metric):
    pairs = list(zip(GOLDS, ["yes", "yes", "maybe", "no", "yes", "no"], strict=True))
    shuffled = random.Random(3).sample(pairs, len(pairs))
    assert metric(*zip(*pairs, strict=True)) == pytest.approx(metric(*zip(*shuffled, strict=True)))


def test_macro_f1_weighs_every_label_that_occurs_alike():
    # yes: 2 of 3 found and 3 said, no: 1 of 2 found and 2 said, maybe: found; the mean of 2/3, 1/2 and 1.
    assert macro_f1(GOLDS, ["yes", "yes", "maybe", "no", "yes", "no"]) == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
    # A label that is only predicted counts with 0, as in scikit-learn.
    assert macro_f1(["a", "a"], ["a", "b"]) == pytest.approx(100 * (2 / 3 + 0) / 2)


def test_accuracy_is_the_share_of_right_labels():
    assert accuracy(GOLDS, ["yes", "no", "maybe", "no", "no", "yes"]) == 50


def test_squad_metrics_ignore_case_articles_and_punctuation_and_take_the_nearest_gold():
    assert exact_match(["The Inn."], "inn") == 100
    assert exact_match(["hill", "an inn!"], "INN") == 100
    assert token_f1(["the old inn on a hill"], "old inn") == pytest.approx(100 * 2 * 2 / (4 + 2))
    assert token_f1(["far away", "the old inn"], "old inn") == 100
    # Words count as often as they stand there.
    assert token_f1(["inn inn"], "inn") == pytest.approx(200 / 3)
    # Nothing is left of either after normalisation.
    assert token_f1(["the"], "a") == 100


def test_labels_have_macro_f1_and_accuracy():
    assert score_labels(GOLDS, GOLDS) == {"macro_f1": 100, "accuracy": 100}


def test_the_majority_says_the_most_frequent_label():
    assert majority(GOLDS)["accuracy"] == 50
    assert majority(GOLDS)["macro_f1"] == pytest.approx(100 * (2 / 3) / 3)
    assert majority([])["accuracy"] == 0
