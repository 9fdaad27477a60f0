"""Metrics: accuracy and macro F1 of labels, exact match and token F1 of short answers; all from 0 to 100."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy
from numpy.typing import ArrayLike, NDArray

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(golds: Sequence[str], predictions: Sequence[str]) -> float:
    """Give the share of predictions that are the gold label; 0 for no items."""
    right = sum(gold == found for gold, found in zip(golds, predictions, strict=True))
    return 100.0 * right / len(golds) if golds else 0.0


def macro_f1(golds: Sequence[str], predictions: Sequence[str]) -> float:
    """
    Give the mean of the labels' F1, over the labels that occur among golds or predictions.

    The same number as scikit-learn's `f1_score(average="macro")`, times 100. Does not measure how many items each
    label has: a label of two items weighs as much as one of two hundred.
    """
    labels = sorted({*golds, *predictions})
    place = {label: number for number, label in enumerate(labels)}
    counts = numpy.zeros((len(labels), len(labels)))
    for gold, found in zip(golds, predictions, strict=True):
        counts[place[gold], place[found]] += 1
    return float(macro_f1_of_counts(counts)) if labels else 0.0


def macro_f1_of_counts(counts: ArrayLike) -> NDArray[numpy.float64]:
    """Give macro F1 for confusion matrices of shape (…, golds, predictions)."""
    cells = numpy.asarray(counts, dtype=numpy.float64)
    hits = numpy.diagonal(cells, axis1=-2, axis2=-1)
    occurring = cells.sum(-1) + cells.sum(-2)
    f1 = numpy.divide(2 * hits, occurring, out=numpy.zeros_like(hits), where=occurring > 0)
    mean: NDArray[numpy.float64] = 100.0 * f1.sum(-1) / numpy.maximum((occurring > 0).sum(-1), 1)
    return mean


def normalize_answer(text: str) -> str:
    """Lower, drop punctuation, articles and surplus white space (Rajpurkar et al. 2016, SQuAD's official script)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(golds: Sequence[str], prediction: str) -> float:
    """Give 100 where the prediction is one of the gold answers after normalisation, else 0."""
    found = normalize_answer(prediction)
    return 100.0 * any(found == normalize_answer(gold) for gold in golds)


def token_f1(golds: Sequence[str], prediction: str) -> float:
    """Give the F1 of shared words with the nearest gold answer (SQuAD). Does not measure their order."""
    return max((_shared_words(gold, prediction) for gold in golds), default=0.0)


def _shared_words(gold: str, prediction: str) -> float:
    wanted, found = normalize_answer(gold).split(), normalize_answer(prediction).split()
    if not wanted or not found:
        return 100.0 * (wanted == found)
    shared = (Counter(wanted) & Counter(found)).total()
    return 200.0 * shared / (len(wanted) + len(found))


LABEL_METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "macro_f1": macro_f1,
    "accuracy": accuracy,
}
"""Metrics of a whole set of labels; the first is the one that counts."""


def score_labels(golds: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Give every metric of labels."""
    return {name: metric(golds, predictions) for name, metric in LABEL_METRICS.items()}


def majority(golds: Sequence[str]) -> dict[str, float]:
    """Give the metrics of one who always says the most frequent label: what a model has to beat."""
    if not golds:
        return score_labels([], [])
    most_frequent, _ = Counter(golds).most_common(1)[0]
    return score_labels(golds, [most_frequent] * len(golds))
