"""What a command may spend, and what it has spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from katsuo.config import Budget


class BudgetReached(Exception):  # noqa: N818
    """
    The budget ends the work here; not a failure, and never seen outside katsuo.

    Its text says what was reached and how to go on.
    """


@dataclass
class Meter:
    """Count what one command spends; the clock runs from the moment the meter is made."""

    budget: Budget
    clock: Callable[[], float] = time.monotonic
    new_tokens: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def spend(self, new_tokens: int) -> None:
        """Count tokens that a model has written for this command."""
        self.new_tokens += new_tokens

    def check(self) -> None:
        """Raise `BudgetReached` when this command's minutes or tokens are used up."""
        budget, minutes = self.budget, (self.clock() - self.started) / 60
        if budget.max_minutes is not None and minutes >= budget.max_minutes:
            raise BudgetReached(f"{budget.max_minutes:g} minutes are over (budget.max_minutes); {_GO_ON}")
        if budget.max_tokens is not None and self.new_tokens >= budget.max_tokens:
            raise BudgetReached(
                f"{self.new_tokens:,} new tokens were written, of {budget.max_tokens:,} (budget.max_tokens); {_GO_ON}"
            )

    def check_kept(self, kept: int) -> None:
        """Raise `BudgetReached` when the run holds as many examples as it may."""
        limit = self.budget.max_examples
        if limit is not None and kept >= limit:
            raise BudgetReached(
                f"{kept:,} examples are kept, of {limit:,} (budget.max_examples); raise it, or leave it out, to go on"
            )

    def room(self, kept: int, found: int) -> int:
        """Give how many of `found` examples a run that holds `kept` may take."""
        limit = self.budget.max_examples
        return found if limit is None else min(found, max(0, limit - kept))


_GO_ON = "the same command goes on"
