"""Is the difference real? A paired bootstrap over items and templates."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from katsuo.errors import UsageError
from katsuo.evaluate.metrics import macro_f1_of_counts

Numbers = NDArray[numpy.float64]
RESAMPLES = 10_000
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Outcomes:
    """
    What one system did on one data set.

    `values` has shape (seeds · templates, items), all templates of one training seed before those of the next. With
    `golds` (items) it holds predicted labels as numbers below `labels`, and the score is macro F1. Without, it holds
    each item's own score (token F1, right or wrong), and the score is their mean.
    """

    values: NDArray[numpy.float64] | NDArray[numpy.int64]
    golds: NDArray[numpy.int64] | None = None
    labels: int = 0
    seeds: int = 1

    def score(self) -> float:
        """Give the score: the mean over seeds and templates."""
        return float(self.scores(numpy.ones((1, self.values.shape[1]))).mean())

    def scores(self, weights: Numbers) -> Numbers:
        """Give the score of every seed and template when items count as often as `weights` (resamples, items) says."""
        if self.golds is None:
            means: Numbers = weights @ self.values.T / weights.sum(1, keepdims=True)
            return means
        found = []
        for predicted in self.values.astype(numpy.int64):
            cells = numpy.zeros((len(predicted), self.labels**2))
            cells[numpy.arange(len(predicted)), self.golds * self.labels + predicted] = 1
            found.append(macro_f1_of_counts((weights @ cells).reshape(len(weights), self.labels, self.labels)))
        return numpy.stack(found, axis=1)


@dataclass(frozen=True, eq=False)
class Gain:
    """How much better one system is than another: the difference of the scores, and what resampling makes of it."""

    difference: float
    samples: Numbers
    items: int

    @property
    def interval(self) -> tuple[float, float]:
        """Give the 95 % interval (percentiles)."""
        low, high = numpy.percentile(self.samples, (2.5, 97.5))
        return float(low), float(high)

    @property
    def is_significant(self) -> bool:
        """True when the interval excludes zero."""
        low, high = self.interval
        return low > 0 or high < 0


def paired_bootstrap(
    system: Outcomes, baseline: Outcomes, *, resamples: int = RESAMPLES, seed: int = 0, name: str = ""
) -> Gain:
    """
    Compare two systems on the same items and templates.

    Each resample draws items, templates and seeds with replacement, the same ones for both systems. So the interval
    covers other items, other wordings of the same kind and other trainings; of what there is one of, nothing is drawn.
    `name` is that of the data set: under one seed, those of other names are drawn independently, and the same set is
    drawn alike for every system. Raises `UsageError` when the two were not asked the same.
    """
    if (system.values.shape, system.seeds) != (baseline.values.shape, baseline.seeds):
        raise UsageError(
            f"the systems were not asked the same: {_shape(system)} and {_shape(baseline)}",
            hint="compare evaluations of the same suite with the same --limit and --templates",
        )
    if not _same(system.golds, baseline.golds):
        raise UsageError("the systems were judged by other labels", hint="compare evaluations of the same suite")
    rows, items = system.values.shape
    seeds, templates = system.seeds, rows // system.seeds
    random = numpy.random.default_rng([seed, zlib.crc32(name.encode())])
    samples: list[Numbers] = []
    for count in _portions(resamples, items):
        weights = _draw(random, count, items)
        gains = system.scores(weights) - baseline.scores(weights)
        drawn = templates * random.integers(seeds, size=(count, seeds, 1))
        drawn = drawn + random.integers(templates, size=(count, 1, templates))
        samples.append(numpy.take_along_axis(gains, drawn.reshape(count, rows), axis=1).mean(1))
    return Gain(system.score() - baseline.score(), numpy.concatenate(samples), items)


def mean_gain(gains: Sequence[Gain]) -> Gain:
    """Give the mean gain over data sets, whose names keep their resamples apart; the items are those of all."""
    if not gains:
        raise UsageError("there is nothing to compare", hint="give evaluations that share a data set")
    samples: Numbers = numpy.mean([gain.samples for gain in gains], axis=0)
    return Gain(float(numpy.mean([gain.difference for gain in gains])), samples, sum(gain.items for gain in gains))


def _shape(outcomes: Outcomes) -> str:
    rows, items = outcomes.values.shape
    seeds = f" by {outcomes.seeds} seeds" if outcomes.seeds > 1 else ""
    return f"{items} items by {rows // outcomes.seeds} templates{seeds}"


def _same(one: NDArray[numpy.int64] | None, other: NDArray[numpy.int64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(numpy.array_equal(one, other))


def _portions(resamples: int, items: int) -> Iterator[int]:
    """Part the resamples so that their weights fit into memory."""
    size = max(1, _CELLS_AT_ONCE // max(items, 1))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _draw(random: numpy.random.Generator, count: int, items: int) -> Numbers:
    """Draw `items` items with replacement, `count` times; give how often each was drawn."""
    drawn = random.integers(items, size=(count, items)) + numpy.arange(count)[:, None] * items
    return numpy.bincount(drawn.ravel(), minlength=count * items).reshape(count, items).astype(numpy.float64)
