from __future__ import annotations

import numpy
import pytest

from katsuo.errors import UsageError
from katsuo.evaluate import statistics
from katsuo.evaluate.metrics import macro_f1
from katsuo.evaluate.statistics import Outcomes, mean_gain, paired_bootstrap

RANDOM = numpy.random.default_rng(5)
ITEMS, TEMPLATES = 200, 5


def answers(mean: float, *, templates: int = TEMPLATES, items: int = ITEMS) -> Outcomes:
    return Outcomes(numpy.clip(RANDOM.normal(mean, 20, (templates, items)), 0, 100))


def labels(share: float, golds, *, templates: int = TEMPLATES) -> Outcomes:
    noise = RANDOM.integers(3, size=(templates, len(golds)))
    return Outcomes(numpy.where(RANDOM.random(noise.shape) < share, golds, noise), golds, 3)


GOLDS = RANDOM.integers(3, size=ITEMS)


def test_the_score_of_labels_is_macro_f1_averaged_over_templates():
    system = labels(0.6, GOLDS)
    expected = [macro_f1([str(gold) for gold in GOLDS], [str(one) for one in row]) for row in system.values]
    assert system.score() == pytest.approx(numpy.mean(expected))


@pytest.mark.parametrize("make", [lambda share: labels(share, GOLDS), lambda share: answers(100 * share)])
def test_a_clear_gain_excludes_zero_and_a_system_against_itself_does_not(make):
    better, worse = make(0.7), make(0.4)
    gain = paired_bootstrap(better, worse, resamples=500)
    low, high = gain.interval
    assert low < gain.difference < high
    assert gain.is_significant
    assert gain.difference == pytest.approx(better.score() - worse.score())
    assert paired_bootstrap(worse, better, resamples=500).is_significant
    same = paired_bootstrap(better, better, resamples=100)
    assert same.interval == (0, 0)
    assert not same.is_significant


def test_pairing_makes_the_interval_narrow_where_systems_agree():
    base = answers(50, templates=1)
    shifted = Outcomes(base.values + 5)
    gain = paired_bootstrap(shifted, base, resamples=300)
    assert gain.interval == pytest.approx((5, 5))


def test_one_template_leaves_the_usual_error_of_a_mean():
    base, better = Outcomes(numpy.zeros((1, 400))), answers(50, templates=1, items=400)
    low, high = paired_bootstrap(better, base, resamples=4000).interval
    error = better.values.std() / numpy.sqrt(400)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.08)


def test_templates_are_resampled_too():
    base = Outcomes(numpy.zeros((5, 400)))
    steady, moody = numpy.full((5, 400), 10.0), numpy.repeat([[0.0], [5.0], [10.0], [15.0], [20.0]], 400, axis=1)
    assert paired_bootstrap(Outcomes(steady), base, resamples=300).interval == pytest.approx((10, 10))
    low, high = paired_bootstrap(Outcomes(moody), base, resamples=300).interval
    assert low < 6
    assert high > 14


def test_seeds_are_drawn_apart_from_templates():
    base, steady = Outcomes(numpy.zeros((9, 400)), seeds=3), numpy.full((9, 400), 10.0)
    moods = numpy.repeat([0.0, 10.0, 20.0], 3)[:, None]  # one per seed, the same in all of its templates
    low, high = paired_bootstrap(Outcomes(steady - 10 + moods, seeds=3), base).interval
    # One of 27 draws is the worst seed three times, one the best: the interval reaches both, however many templates.
    assert (low, high) == pytest.approx((0, 20))
    alone = paired_bootstrap(Outcomes(steady - 10 + moods), Outcomes(base.values)).interval
    assert alone[1] - alone[0] < 14
    with pytest.raises(UsageError, match="400 items by 9 templates and 400 items by 3 templates by 3 seeds"):
        paired_bootstrap(Outcomes(base.values), base)


def test_the_same_set_is_drawn_alike_and_another_by_itself():
    better, worse = answers(60, templates=1), answers(50, templates=1)
    one, again, other = (paired_bootstrap(better, worse, resamples=400, name=name) for name in ("a", "a", "b"))
    assert (one.samples == again.samples).all()
    assert abs(numpy.corrcoef(one.samples, other.samples)[0, 1]) < 0.2


def test_the_same_seed_gives_the_same_interval_in_portions_or_at_once(monkeypatch):
    better, worse = labels(0.6, GOLDS), labels(0.5, GOLDS)
    at_once = paired_bootstrap(better, worse, resamples=300, seed=3)
    again = paired_bootstrap(better, worse, resamples=300, seed=3)
    assert at_once.interval == again.interval
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 10 * ITEMS)
    assert len(paired_bootstrap(better, worse, resamples=301, seed=3).samples) == 301


def test_the_mean_over_data_sets_is_narrower_than_each():
    better, worse = answers(60), answers(50)
    gains = [paired_bootstrap(better, worse, resamples=2000, name=name) for name in "abcd"]
    together = mean_gain(gains)
    assert together.items == 4 * ITEMS
    assert together.difference == pytest.approx(numpy.mean([gain.difference for gain in gains]))
    widths = [high - low for low, high in (gain.interval for gain in gains)]
    low, high = together.interval
    assert high - low == pytest.approx(numpy.mean(widths) / 2, rel=0.15)  # four sets, each resampled by itself


def test_systems_that_were_not_asked_the_same_are_not_compared():
    with pytest.raises(UsageError, match="200 items by 5 templates and 200 items by 4"):
        paired_bootstrap(answers(50), answers(50, templates=4))
    with pytest.raises(UsageError, match="other labels"):
        paired_bootstrap(labels(0.5, GOLDS), labels(0.5, (GOLDS + 1) % 3))
    with pytest.raises(UsageError, match="other labels"):
        paired_bootstrap(labels(0.5, GOLDS), answers(50))
    with pytest.raises(UsageError, match="nothing to compare"):
        mean_gain([])
