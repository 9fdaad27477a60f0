"""Servers that limit how often they are asked: every prompt is answered in the end, in a time that passes by itself."""

from __future__ import annotations

import asyncio
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from katsuo.engines.openai_server import gate as gate_module
from katsuo.engines.openai_server import patience as patience_module
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.line import Line, Outcome, Reply, Trouble
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.score import _all
from katsuo.engines.openai_server.width import Width
from katsuo.errors import EngineError

LATENCY_S, REFUSAL_S = 1.0, 0.02


class ShortLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to what it would wait for; nothing in it may wait for anything outside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._look, self._selector.select = self._selector.select, self._jump

    def time(self) -> float:
        return self.now

    def _jump(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return self._look(0)


@pytest.fixture
def in_short(monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine[Any, Any, Any]], tuple[Any, float]]:
    """Run a coroutine on such a loop, and give its result and how many of the loop's seconds that took."""

    def run(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
        loop = ShortLoop()
        for module in (gate_module, patience_module):
            monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=loop.time))
        try:
            return loop.run_until_complete(work), loop.now
        finally:
            loop.close()

    return run


class Limited(Line):
    """A line to a server that answers so many requests per second, and so many more at once after a rest."""

    def __init__(self, per_s: float, burst: int, *, wait_s: float | None = None) -> None:
        super().__init__("http://127.0.0.1:9/v1", key=None, timeout_s=60)
        self._per_s, self._burst, self._wait_s = per_s, burst, wait_s
        self._left, self._seen = float(burst), 0.0
        self.ends: Counter[str] = Counter()

    async def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Outcome:
        self._fill(asyncio.get_running_loop().time())
        is_answered = self._left >= 1 and url != "too large"
        self._left -= is_answered
        self.ends["answered" if is_answered else "busy"] += 1
        await asyncio.sleep(LATENCY_S if is_answered else REFUSAL_S)
        return Reply({}, str) if is_answered else Trouble("status 429", self._wait_s, is_push_back=True, is_busy=True)

    def _fill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_s)
        self._seen = now


class Windowed(Limited):
    """A line to a server that answers so many requests in every so many seconds."""

    def __init__(self, answers: int, window_s: float) -> None:
        super().__init__(1 / window_s, answers)

    def _fill(self, now: float) -> None:
        if int(now * self._per_s) > int(self._seen * self._per_s):
            self._left = float(self._burst)
        self._seen = now


async def ask_all(line: Line, urls: list[str]) -> list[Outcome]:
    patience = Patience(line, Gate(Width(32, 60.0)), retries=6)

    async def ask(url: str) -> Outcome:
        async with patience.gate.passed() as place:
            return await patience.ask(place, url, {})

    try:
        return await _all([ask(url) for url in urls])
    finally:
        await line.close()


@pytest.mark.parametrize(
    ("per_s", "burst", "wait_s"), [(1, 5, None), (1, 60, None), (20 / 60, 20, None), (3 / 60, 3, None), (1, 5, 1.0)]
)
def test_a_server_that_limits_its_answers_loses_no_prompt(in_short, per_s: float, burst: int, wait_s: float | None):
    line = Limited(per_s, burst, wait_s=wait_s)
    outcomes, took_s = in_short(ask_all(line, ["completions"] * 128))
    assert [type(outcome) for outcome in outcomes] == [Reply] * 128
    assert took_s < 1.2 * (128 - burst) / per_s + 10, "what it gives is taken"
    assert line.ends["busy"] < 6 * took_s, "it is not asked all the time"


@pytest.mark.parametrize("window_s", [20, 30])
def test_a_server_that_answers_a_few_per_window_loses_no_prompt(in_short, window_s: float):
    outcomes, _ = in_short(ask_all(Windowed(5, window_s), ["completions"] * 60))
    assert [type(outcome) for outcome in outcomes] == [Reply] * 60


def test_a_prompt_that_is_too_large_for_the_limit_is_given_up_when_the_others_are_answered(in_short):
    outcomes, took_s = in_short(ask_all(Limited(5, 5), ["too large", *["completions"] * 200]))
    assert [type(outcome) for outcome in outcomes] == [Trouble, *[Reply] * 200]
    assert took_s < 400


def test_every_word_of_a_busy_server_makes_the_width_smaller(in_short):
    gate = Gate(Width(32, 60.0, first=32))

    async def scenario() -> None:
        patience = Patience(Limited(1, 1), gate, retries=6)
        async with gate.passed() as place:
            await patience.ask(place, "too large", {})
        await patience.line.close()

    in_short(scenario())
    assert gate.width.limit == 1


def test_a_server_that_answers_no_more_ends_the_work(in_short):
    line = Limited(0, 4)
    with pytest.raises(EngineError, match="does not answer: status 429"):
        in_short(ask_all(line, ["completions"] * 8))
    assert line.ends["answered"] == 4
    assert 3 * 7 + 7 < line.ends["busy"] <= 4 * 8 + 7
