"""One system against another on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from katsuo.errors import UsageError
from katsuo.evaluate.folder import Evaluation
from katsuo.evaluate.settings import PAIRED
from katsuo.evaluate.statistics import RESAMPLES, Gain, mean_gain, paired_bootstrap
from katsuo.evaluate.verdict import Claim


@dataclass(frozen=True)
class Comparison:
    """The gain of one system over another, by data set and over all of them."""

    system: str
    baseline: str
    sets: dict[str, Gain]
    mean: Gain
    metric: str

    def claim(self, set_name: str | None = None) -> Claim:
        """Give the gain on a data set, or over all of them, in numbers for the verdict."""
        gain = self.mean if set_name is None else self.sets[set_name]
        low, high = gain.interval
        return Claim(self.baseline, gain.difference, low, high, gain.items, self.metric)


def compare(
    system: Evaluation, baseline: Evaluation, *, sets: Sequence[str] | None = None, seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:  # fmt: skip
    """Compare two evaluations on the data sets that both have, or on `sets`; raise `UsageError` if they differ."""
    names = list(sets) if sets is not None else [name for name in system.sets if name in baseline.sets]
    for key in PAIRED:
        one, other = (told.scores["settings"].get(key) for told in (system, baseline))
        if one != other:
            raise UsageError(
                f'"{system.name}" and "{baseline.name}" were judged with different {key}: {one!r} and {other!r}',
                hint="judge both with the same settings",
            )
    gains = {name: _gain(system, baseline, name, seed, resamples) for name in names}
    metrics = {system.scores["sets"][name]["metric"] for name in names}
    metric = metrics.pop() if len(metrics) == 1 else "points"
    return Comparison(system.name, baseline.name, gains, mean_gain(list(gains.values())), metric)


def _gain(system: Evaluation, baseline: Evaluation, name: str, seed: int, resamples: int) -> Gain:
    (ours, *asked), (theirs, *asked_of_baseline) = system.outcomes(name), baseline.outcomes(name)
    hashes = {told.scores["sets"][name]["asked"] for told in (system, baseline)}
    if asked != asked_of_baseline or len(hashes) > 1:
        raise UsageError(
            f'"{system.name}" and "{baseline.name}" were not asked the same about "{name}"',
            hint="judge both on the same rows with the same templates",
        )
    return paired_bootstrap(ours, theirs, seed=seed, resamples=resamples, name=name)
