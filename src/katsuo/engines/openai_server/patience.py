"""Ask again, later and later, until there is an answer, or it is plain that there will be none."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from katsuo.engines.openai_server.gate import LONGEST_PAUSE_S, Gate, Place
from katsuo.engines.openai_server.line import Line, Outcome, Refusal, Reply, Trouble
from katsuo.errors import EngineError

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_TRIES_OF_A_TIME_LIMIT = 2
"""A request that ran out of time counts for so many tries: it has been waited for long enough."""
_draw = random.SystemRandom()


class Patience:
    """
    Make requests until they are answered, through a gate that they all share.

    A request is given up after `retries` tries again; a push-back counts only if nobody was answered meanwhile, and one
    of a server that is busy only if nobody was since the request's try before. Then the server is asked something that
    it has answered before: if it answers, the request was at fault and what went wrong is given; if not, `EngineError`
    is raised. A refusal is looked into in the same way (`look_into`).
    """

    def __init__(self, line: Line, gate: Gate, *, retries: int) -> None:
        self.line = line
        self.gate = gate
        self._retries = retries
        self._answers = 0
        self._answered: dict[str, Mapping[str, Any]] = {}
        self._knocking, self._looking = asyncio.Lock(), asyncio.Lock()
        self._last_answer = 0.0
        self._last_taken = -math.inf

    def remember(self, url: str, body: Mapping[str, Any]) -> None:
        """Keep a request that the server has answered, to see later whether it still does."""
        self._answered.pop(url, None)
        self._answered[url] = body

    async def ask(
        self, place: Place, url: str, body: Mapping[str, Any] | None = None, *, is_probe: bool = False
    ) -> Outcome:
        """
        Give the answer or the refusal, or the last trouble of a request that alone cannot be answered.

        Raise `EngineError` where the server refuses the key, unless this only tries what the server can be asked.
        """
        tries = _Tries(self._answers)
        while True:
            began, answers = time.monotonic(), self._answers
            outcome = await self.line.ask(url, body)
            self._learn(outcome, began, is_news=not tries.pushes_back)
            if isinstance(outcome, Refusal) and outcome.is_denial and not is_probe:
                raise denied(self.line, outcome)
            if not isinstance(outcome, Trouble):
                return outcome
            tries.count(outcome, answers, self._answers)
            if tries.spent > self._retries:
                place.give_up()
                await self._see_whether_it_lives(outcome, began)
                if not tries.begin_again(outcome):
                    return outcome
            await place.step_aside(_wait_s(tries.waits, outcome.wait_s))

    async def look_into(self, place: Place, url: str, refusal: Refusal) -> None:
        """
        Raise `EngineError` where a server that refuses a request refuses what it has answered before, too.

        An answer to anything that was asked after the refusal shows as well that it was meant for one request alone.
        """
        if refusal.is_for_all:
            raise _refused(self.line, refusal)
        if url not in self._answered:
            return
        refused = time.monotonic()
        place.give_up()  # who waits here must not hold what the one who asks may wait for
        async with self._looking:  # one for all
            if self._last_taken >= refused:
                return
            outcome = await self.ask(place, url, self._answered[url])
        if isinstance(outcome, Refusal):
            raise _refused(self.line, outcome)

    def _learn(self, outcome: Outcome, began: float, *, is_news: bool) -> None:
        now = time.monotonic()
        if isinstance(outcome, Trouble):
            if outcome.wait_s:
                self.gate.close_for(outcome.wait_s)
            # One request that is never answered tells of itself alone, unless the server says that it is busy.
            if outcome.is_push_back and (is_news or outcome.is_busy):
                self.gate.width.pushed_back(began, now)
            return
        self._answers += 1
        self._last_answer = now
        if isinstance(outcome, Reply):
            self._last_taken = max(self._last_taken, began)
            self.gate.width.answered(began, now)

    @property
    def _knock(self) -> tuple[str, Mapping[str, Any] | None]:
        """What to ask to see whether the server lives: what it answered last, or before that which models it has."""
        return next(reversed(self._answered.items()), (f"{self.line.address}/models", None))

    async def _see_whether_it_lives(self, trouble: Trouble, since: float) -> None:
        async with self._knocking:  # one for all
            tries = 0
            while tries <= self._retries:
                if tries:
                    await asyncio.sleep(_wait_s(tries, trouble.wait_s))
                if self._last_answer > since:
                    return
                outcome = await self.line.ask(*self._knock)
                if isinstance(outcome, Refusal) and self._answered:
                    raise _refused(self.line, outcome)
                if not isinstance(outcome, Trouble):
                    self._last_answer = time.monotonic()
                    return
                trouble = outcome
                tries += _cost(outcome)
        raise EngineError(
            f'the server at "{self.line.address}" does not answer: {trouble.words}',
            hint="start it, or wait until it has recovered; the same command then goes on",
        )


def denied(line: Line, refusal: Refusal) -> EngineError:
    """Say that a server does not take the key."""
    return EngineError(
        f'the server at "{line.address}" refuses the key ({refusal.status}): {refusal.words}',
        hint="set KATSUO_API_KEY (or OPENAI_API_KEY) to a key that it takes",
    )


def _refused(line: Line, refusal: Refusal) -> EngineError:
    if refusal.is_denial:
        return denied(line, refusal)
    return EngineError(
        f'the server at "{line.address}" refuses all that it is asked ({refusal.status}): {refusal.words}',
        hint="see to what it says, such as credit, a login or the name of the model; the same command then goes on",
    )


@dataclass
class _Tries:
    """What became of one request up to now; `answers` is how many of all were answered when it was last tried."""

    answers: int
    failed: int = 0
    pushes_back: int = 0
    busy: int = 0
    in_vain: int = 0
    has_begun_again: bool = False

    @property
    def spent(self) -> int:
        """Give the tries that count against the request."""
        return self.failed + self.in_vain

    @property
    def waits(self) -> int:
        """Give what the next wait grows with: a busy server is asked more rarely, whoever it answers meanwhile."""
        return max(self.spent, self.busy)

    def count(self, trouble: Trouble, answers_before: int, answers: int) -> None:
        """Count a try, made when so many requests had been answered and over when so many had."""
        self.pushes_back += trouble.is_push_back
        if trouble.is_busy:
            self.busy += 1
            self.in_vain = 0 if answers > self.answers else self.in_vain + 1
            self.has_begun_again = self.has_begun_again and self.in_vain > 0
        elif trouble.ran_out_of_time or not trouble.is_push_back or answers == answers_before:
            self.failed += _cost(trouble)
        self.answers = answers

    def begin_again(self, trouble: Trouble) -> bool:
        """Forget the tries in vain of a request whose server was only busy and lives; say no when it has done so."""
        if not trouble.is_busy or self.has_begun_again:
            return False
        self.busy, self.in_vain, self.has_begun_again = 0, 0, True
        return True


def _cost(trouble: Trouble) -> int:
    return _TRIES_OF_A_TIME_LIMIT if trouble.ran_out_of_time else 1


def _wait_s(tries: int, asked_s: float | None) -> float:
    """Give a wait that doubles with every try, no two alike, and no shorter than the server asks for."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** max(0, tries - 1))
    return max(min(asked_s or 0.0, LONGEST_PAUSE_S), _draw.uniform(longest / 2, longest))
