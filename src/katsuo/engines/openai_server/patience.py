"""Ask again, later and later, until there is an answer, or it is plain that there will be none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
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

    A request is given up after `retries` tries again; a push-back counts only if nobody was answered meanwhile. Then
    the server is asked something that it has answered before (`knock`): if it answers, the request was at fault and
    what went wrong is given; if not, `EngineError` is raised.
    """

    def __init__(self, line: Line, gate: Gate, *, retries: int) -> None:
        self.line = line
        self.gate = gate
        self._retries = retries
        self._answers = 0
        self._knock: tuple[str, Mapping[str, Any] | None] = (f"{line.address}/models", None)
        self._knocking = asyncio.Lock()
        self._last_answer = 0.0

    def remember(self, url: str, body: Mapping[str, Any]) -> None:
        """Keep a request that the server has answered, to see later whether it still does."""
        self._knock = (url, body)

    async def ask(
        self, place: Place, url: str, body: Mapping[str, Any] | None = None, *, is_probe: bool = False
    ) -> Outcome:
        """
        Give the answer or the refusal, or the last trouble of a request that alone cannot be answered.

        Raise `EngineError` where the server refuses the key, unless this only tries what the server can be asked.
        """
        tries, pushes_back = 0, 0
        while True:
            began, answers = time.monotonic(), self._answers
            outcome = await self.line.ask(url, body)
            pushes_back += isinstance(outcome, Trouble) and outcome.is_push_back
            self._learn(outcome, began, is_news=pushes_back <= 1)
            if isinstance(outcome, Refusal) and outcome.is_denial and not is_probe:
                raise denied(self.line, outcome)
            if not isinstance(outcome, Trouble):
                return outcome
            if not (outcome.is_push_back and not outcome.ran_out_of_time and self._answers > answers):
                tries += _cost(outcome)
            if tries > self._retries:
                place.give_up()
                await self._see_whether_it_lives(outcome, began)
                return outcome
            await place.step_aside(_wait_s(tries, outcome.wait_s))

    def _learn(self, outcome: Outcome, began: float, *, is_news: bool) -> None:
        now = time.monotonic()
        if isinstance(outcome, Trouble):
            if outcome.wait_s:
                self.gate.close_for(outcome.wait_s)
            if outcome.is_push_back and is_news:  # one request that is never answered tells of itself alone
                self.gate.width.pushed_back(began, now)
            return
        self._answers += 1
        self._last_answer = now
        if isinstance(outcome, Reply):
            self.gate.width.answered(began, now)

    async def _see_whether_it_lives(self, trouble: Trouble, since: float) -> None:
        async with self._knocking:  # one for all
            tries = 0
            while tries <= self._retries:
                if tries:
                    await asyncio.sleep(_wait_s(tries, trouble.wait_s))
                if self._last_answer > since:
                    return
                outcome = await self.line.ask(*self._knock)
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


def _cost(trouble: Trouble) -> int:
    return _TRIES_OF_A_TIME_LIMIT if trouble.ran_out_of_time else 1


def _wait_s(tries: int, asked_s: float | None) -> float:
    """Give a wait that doubles with every try, no two alike, and no shorter than the server asks for."""
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** max(0, tries - 1))
    return max(min(asked_s or 0.0, LONGEST_PAUSE_S), _draw.uniform(longest / 2, longest))
