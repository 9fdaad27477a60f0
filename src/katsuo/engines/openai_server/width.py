"""How many requests are under way at once: wider with every answer, narrower when the server pushes back."""

from __future__ import annotations

import math

_FIRST = 4
_LATE = 0.5
"""Share of a request's time limit from which answers come so late that more requests would run out of time."""


class Width:
    """
    The number of requests under way, learned from how requests end. Times are seconds of any one clock.

    It begins narrow, and every answer makes it wider by one, up to the widest: servers hold what they cannot do yet, so
    that wider does no harm until they push back. A push-back (429, 5xx, a time limit) halves it, once for all requests
    that were under way by then; an answer that took half of the time limit ends the quick growth. Afterwards it grows
    by one per round (as many answers as it is wide), and a round whose answers took so long takes off a quarter.

    This is the slow start and the congestion avoidance of TCP (RFC 5681).
    """

    def __init__(self, widest: int, timeout_s: float, *, first: int = _FIRST) -> None:
        self._widest = max(1, widest)
        self._timeout_s = timeout_s
        self._limit = float(min(first, self._widest))
        self._is_starting = True
        self._cut_at = -math.inf
        self._begin_round()

    @property
    def limit(self) -> int:
        """Requests that may be under way."""
        return max(1, int(self._limit))

    def answered(self, began: float, ended: float) -> None:
        """Learn that a request that began and ended at these times was answered."""
        self._answers += 1
        self._latency_s += ended - began
        if ended - began > _LATE * self._timeout_s:
            self._is_starting = False  # what was sent since will come later still
        if self._answers == self._round:
            if self._latency_s > _LATE * self._timeout_s * self._round:
                self._cut(0.75, ended)
                return
            self._begin_round()
        self._limit = min(float(self._widest), self._limit + (1.0 if self._is_starting else 1.0 / self._limit))

    def pushed_back(self, began: float, now: float) -> None:
        """Learn that the server would not or could not answer a request that began at this time."""
        if began < self._cut_at:
            return  # it left before the cut that it would call for
        self._cut(0.5, now)

    def _cut(self, share: float, now: float) -> None:
        self._limit = max(1.0, self._limit * share)
        self._is_starting, self._cut_at = False, now
        self._begin_round()

    def _begin_round(self) -> None:
        self._round, self._answers, self._latency_s = self.limit, 0, 0.0
