"""How many requests are under way, and how long they wait: learned from answers and push-backs, without a server."""

from __future__ import annotations

import asyncio
import email.utils
import heapq
import time
from collections.abc import Mapping
from typing import Any

import pytest

from katsuo.engines.openai_server import patience as patience_module
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.line import Line, Outcome, Reply, Trouble, _retry_after
from katsuo.engines.openai_server.patience import Patience, _wait_s
from katsuo.engines.openai_server.width import Width
from katsuo.errors import EngineError


def simulate(width: Width, *, requests: int, places: int, refuses: bool = False) -> list[int]:
    """
    Let a server with so many places answer each request after a second of work, or one behind the other.

    A server that `refuses` pushes back at once when its places are taken. Gives the widths, answer by answer.
    """
    under_way: list[tuple[float, float]] = []  # end and beginning
    free = [0.0] * places
    now, widths = 0.0, []
    while len(widths) < requests:
        while len(under_way) < width.limit:
            if refuses and len(under_way) >= places:
                width.pushed_back(now, now + 0.01)
                now += 0.01
                continue
            begins = max(now, heapq.heappop(free))
            heapq.heappush(free, begins + 1.0)
            heapq.heappush(under_way, (begins + 1.0, now))
        now, began = heapq.heappop(under_way)
        width.answered(began, now)
        widths.append(width.limit)
    return widths


def test_it_grows_as_far_as_it_may_while_that_helps():
    assert simulate(Width(32, 60.0), requests=300, places=64)[-1] == 32


def test_it_never_grows_past_what_is_allowed():
    assert max(simulate(Width(10, 60.0), requests=300, places=64)) == 10
    assert max(simulate(Width(1, 60.0), requests=20, places=64)) == 1


def test_every_answer_makes_it_wider_by_one_whatever_the_pace():
    assert simulate(Width(32, 600.0), requests=28, places=2) == list(range(5, 33))


def test_a_server_that_refuses_more_than_it_can_do_is_asked_about_as_much_as_it_can_do():
    widths = simulate(Width(64, 60.0), requests=600, places=6, refuses=True)
    last = widths[200:]
    assert max(last) <= 7
    assert sum(last) / len(last) > 3.5


def test_it_recovers_after_a_push_back():
    width = Width(32, 60.0)
    simulate(width, requests=200, places=64)
    width.pushed_back(10**6, 10**6)
    assert width.limit == 16
    assert simulate(width, requests=100, places=64)[-1] >= 19
    assert simulate(width, requests=800, places=64)[-1] == 32


def test_one_push_back_of_many_at_once_counts():
    width = Width(32, 60.0)
    simulate(width, requests=200, places=64)
    for _ in range(20):
        width.pushed_back(1000.0, 1001.0)
    assert width.limit == 16


def test_answers_that_come_near_the_time_limit_make_it_narrower():
    widths = simulate(Width(32, 4.0), requests=200, places=4)  # two seconds of waiting at 8 of them
    assert max(widths) <= 24
    assert max(widths[100:]) <= 10
    assert sum(widths[100:]) / 100 <= 8
    width = Width(8, 10.0)
    for number in range(40):
        width.answered(float(number), number + 9.0)
    assert width.limit == 1


class Poisoned(Line):
    """A line to a server that breaks whenever one text is asked."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/v1", key=None, timeout_s=1)
        self.asked: list[str] = []

    async def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Outcome:
        self.asked.append(url)
        return Trouble("status 500", is_push_back=True) if body else Reply({}, str)


def test_a_prompt_that_is_never_answered_counts_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience_module, "_wait_s", lambda tries, asked: 0.0)

    async def scenario() -> tuple[int, int]:
        patience = Patience(Poisoned(), Gate(Width(32, 60.0, first=32)), retries=6)
        async with patience.gate.passed() as place:
            assert await patience.ask(place, "completions", {"prompt": "x"}) == Trouble("status 500", is_push_back=True)
        await patience.line.close()
        return len(patience.line.asked), patience.gate.width.limit

    assert asyncio.run(scenario()) == (8, 16)


def test_a_server_that_is_gone_is_not_waited_for_after_the_last_try(monkeypatch: pytest.MonkeyPatch):
    waits: list[int] = []
    monkeypatch.setattr(patience_module, "_wait_s", lambda tries, asked: waits.append(tries) or 0.0)

    async def scenario() -> None:
        line = Line("http://127.0.0.1:9/v1", key=None, timeout_s=1)
        patience = Patience(line, Gate(Width(32, 60.0)), retries=2)
        async with patience.gate.passed() as place:
            with pytest.raises(EngineError, match="does not answer"):
                await patience.ask(place, line.address)
        await line.close()

    asyncio.run(scenario())
    assert waits == [1, 2, 1, 2]


def test_waits_double_up_to_half_a_minute_and_no_two_are_alike():
    waits = [_wait_s(tries, None) for tries in range(1, 12)]
    assert all(0.25 * 2**place <= wait <= 0.5 * 2**place for place, wait in enumerate(waits[:6]))
    assert max(waits) <= 30
    assert len(set(waits)) == len(waits)


def test_a_wait_is_never_shorter_than_asked_for_nor_longer_than_five_minutes():
    assert _wait_s(1, 7.0) == 7.0
    assert _wait_s(1, 86400.0) == 300.0


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-4", 0.0), (None, None), ("soon", None)])
def test_retry_after_is_read(header, seconds):
    assert _retry_after(header) == seconds


def test_retry_after_may_be_a_date():
    assert 8 < (_retry_after(email.utils.formatdate(time.time() + 10, usegmt=True)) or 0) <= 10


def test_the_gate_lets_as_many_through_as_the_width_says_and_survives_those_who_go_away():
    async def scenario() -> int:
        gate = Gate(Width(2, 60.0))
        inside = most = 0

        async def visit() -> None:
            nonlocal inside, most
            async with gate.passed() as place:
                inside += 1
                most = max(most, inside)
                try:
                    await asyncio.sleep(0.001)
                finally:
                    inside -= 1  # also of who is cancelled in here
                await place.step_aside(0.001)
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(visit()) for _ in range(30)]
        await asyncio.sleep(0.003)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate._under_way == 0
        return most

    assert asyncio.run(scenario()) == 2


def test_who_goes_away_when_its_turn_has_come_leaves_its_place_to_the_next():
    async def scenario() -> None:
        gate = Gate(Width(1, 60.0))

        async def visit() -> None:
            async with gate.passed():
                pass

        async with gate.passed():
            waiting = asyncio.create_task(visit())
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(visit(), 1)

    asyncio.run(scenario())


def test_a_closed_gate_lets_nobody_through_until_its_time_is_over():
    async def scenario() -> float:
        gate = Gate(Width(2, 60.0))
        gate.close_for(0.2)
        began = time.monotonic()
        async with gate.passed():
            return time.monotonic() - began

    assert asyncio.run(scenario()) >= 0.2
