"""What a command may spend."""

from __future__ import annotations

import pytest

from katsuo.budget import BudgetReached, Meter
from katsuo.config import Budget, recipe_from
from katsuo.errors import RecipeError


def test_without_a_budget_nothing_ever_stops() -> None:
    meter = Meter(Budget(), clock=iter([0.0, 1e9, 1e9]).__next__)
    meter.spend(10**12)
    meter.check()
    meter.check_kept(10**12)
    assert meter.room(5, 10**12) == 10**12


def test_minutes_run_from_the_moment_the_meter_is_made() -> None:
    seconds = iter([100.0, 189.9, 190.0])
    meter = Meter(Budget(max_minutes=1.5), clock=seconds.__next__)
    meter.check()
    with pytest.raises(BudgetReached, match=r"1\.5 minutes are over .* the same command goes on"):
        meter.check()


def test_tokens_stop_when_as_many_are_written() -> None:
    meter = Meter(Budget(max_tokens=1000))
    meter.spend(999)
    meter.check()
    meter.spend(1)
    with pytest.raises(BudgetReached, match="1,000 new tokens were written, of 1,000"):
        meter.check()


def test_examples_are_counted_over_the_whole_run() -> None:
    meter = Meter(Budget(max_examples=10))
    meter.check_kept(9)
    assert [meter.room(kept, 4) for kept in (0, 8, 10, 12)] == [4, 2, 0, 0]
    with pytest.raises(BudgetReached, match=r"10 examples are kept, of 10 .* raise it"):
        meter.check_kept(10)


@pytest.mark.parametrize("wrong", [{"max_minutes": 0}, {"max_tokens": 0}, {"max_examples": -1}, {"max_money": 3}])
def test_a_budget_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="budget"):
        recipe_from({"budget": wrong})
