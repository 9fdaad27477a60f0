"""How many requests are under way at once: wider while that helps, narrower when the server pushes back."""

from __future__ import annotations

import math

_FIRST = 4
_GAIN = 1.1
_ROUNDS_WITHOUT_GAIN = 2
_ROUNDS_BEFORE_ANOTHER_TRY = 20
_LATE = 0.5
"""Share of a request's time limit from which answers come so late that more requests would run out of time."""


class Width:
    """
    The number of requests under way, learned from how requests end. Times are seconds of any one clock.

    It doubles with every round (as many answers as it is wide) that gave more answers per second than the rounds
    before; where wider gave no more, it goes back a step and stays, and tries again every twenty rounds. A push-back
    (429, 5xx, a time limit) halves it, once for all requests that were under way by then; afterwards it grows by one
    per round. Answers that take half of the time limit take a quarter off.
    """

    def __init__(self, widest: int, timeout_s: float, *, first: int = _FIRST) -> None:
        self._widest = max(1, widest)
        self._timeout_s = timeout_s
        self._limit = float(min(first, self._widest))
        self._limit_before = self._limit
        self._is_climbing = True
        self._best_per_second = 0.0
        self._misses = self._rounds = 0
        self._cut_at = -math.inf
        self._round_began: float | None = None
        self._answers, self._latency_s = 0, 0.0

    @property
    def limit(self) -> int:
        """Requests that may be under way."""
        return max(1, int(self._limit))

    def answered(self, began: float, ended: float) -> None:
        """Learn that a request that began and ended at these times was answered."""
        if self._round_began is None:
            self._round_began = began
        self._answers += 1
        self._latency_s += ended - began
        if self._answers >= self.limit:
            self._end_round(ended)

    def pushed_back(self, began: float, now: float) -> None:
        """Learn that the server would not or could not answer a request that began at this time."""
        if began < self._cut_at:
            return  # it left before the cut that it would call for
        self._cut(0.5, now)

    def _cut(self, share: float, now: float) -> None:
        self._limit = max(1.0, self._limit * share)
        self._is_climbing, self._rounds, self._cut_at = False, 0, now
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._round_began, self._answers, self._latency_s = now, 0, 0.0

    def _end_round(self, now: float) -> None:
        began = now if self._round_began is None else self._round_began
        per_second = self._answers / max(now - began, 1e-6)
        latency_s = self._latency_s / self._answers
        self._rounds += 1
        if latency_s > _LATE * self._timeout_s:
            self._cut(0.75, now)
            return
        if self._is_climbing:
            self._climb(per_second)
        elif self._rounds >= _ROUNDS_BEFORE_ANOTHER_TRY:
            self._is_climbing, self._misses, self._rounds = True, 0, 0
            self._best_per_second = per_second
            self._grow(self._limit * 1.25)
        elif self._cut_at > -math.inf:
            self._grow(self._limit + 1)
        self._begin_round(now)

    def _climb(self, per_second: float) -> None:
        if per_second > _GAIN * self._best_per_second:
            self._best_per_second, self._misses = per_second, 0
            self._grow(self._limit * 2)
            return
        self._misses += 1
        if self._misses >= _ROUNDS_WITHOUT_GAIN:
            self._is_climbing, self._rounds = False, 0
            self._limit = self._limit_before

    def _grow(self, wanted: float) -> None:
        self._limit_before = self._limit
        self._limit = min(float(self._widest), wanted)
