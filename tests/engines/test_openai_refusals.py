"""A refusal is looked into by one harmless question, so that one prompt is told from all of them; without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from katsuo.engines.openai_server import patience as patience_module
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.line import Line, Outcome, Refusal, Reply, Trouble
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.width import Width
from katsuo.errors import EngineError

URL = "completions"
REPLY, REFUSAL = Reply({}, str), Refusal(404, "", "no such model")

SECONDS = {"later": 0.05, "harmless": 0.2}


class Scripted(Line):
    """A line to a server that has an outcome for each prompt; of a list it gives one after the other."""

    def __init__(self, **outcomes: list[Outcome]) -> None:
        super().__init__("http://127.0.0.1:9/v1", key=None, timeout_s=1)
        self._outcomes = outcomes
        self.asked: list[str] = []

    async def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Outcome:
        prompt = str((body or {}).get("prompt"))
        self.asked.append(prompt)
        await asyncio.sleep(SECONDS.get(prompt, 0.01))
        left = self._outcomes[prompt]
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "_wait_s", lambda tries, asked: 0.0)


def ask_all(line: Line, *prompts: str, width: int = 32) -> list[Outcome]:
    async def scenario() -> list[Outcome]:
        patience = Patience(line, Gate(Width(width, 60.0, first=width)), retries=2)
        patience.remember(URL, {"prompt": "harmless"})

        async def ask(prompt: str) -> Outcome:
            async with patience.gate.passed() as place:
                outcome = await patience.ask(place, URL, {"prompt": prompt})
                if isinstance(outcome, Refusal):
                    await patience.look_into(place, URL, outcome)
                return outcome

        try:
            return list(await asyncio.wait_for(asyncio.gather(*map(ask, prompts)), 20))
        finally:
            await line.close()

    return asyncio.run(scenario())


def test_prompts_that_are_refused_together_share_a_harmless_question():
    line = Scripted(bad=[REFUSAL], harmless=[REPLY])
    assert ask_all(line, *["bad"] * 16) == [REFUSAL] * 16
    assert line.asked.count("harmless") <= 4


def test_all_that_is_refused_ends_the_work():
    with pytest.raises(EngineError, match=r"refuses all that it is asked \(404\): no such model"):
        ask_all(Scripted(bad=[REFUSAL], harmless=[REFUSAL]), "bad")


def test_an_answer_to_what_was_asked_before_shows_nothing():
    with pytest.raises(EngineError, match="refuses all"):
        ask_all(Scripted(bad=[REFUSAL], later=[REFUSAL], harmless=[REPLY, REFUSAL]), "bad", "later")


@pytest.mark.parametrize("width", [1, 4])
def test_a_harmless_question_that_is_pushed_back_is_asked_again_and_nobody_waits_for_ever(width: int):
    busy = Trouble("status 429", is_push_back=True, is_busy=True)
    line = Scripted(bad=[REFUSAL], good=[REPLY], harmless=[busy, busy, REPLY])
    assert ask_all(line, *["bad", "good"] * 8, width=width) == [REFUSAL, REPLY] * 8


def test_trouble_is_not_the_prompt_s_when_what_was_answered_before_is_refused_now():
    with pytest.raises(EngineError, match="refuses all"):
        ask_all(Scripted(bad=[Trouble("status 500", is_push_back=True)], harmless=[REFUSAL]), "bad")
    with pytest.raises(EngineError, match="refuses the key"):
        ask_all(Scripted(bad=[Trouble("cut")], harmless=[Refusal(401, "", "who are you?")]), "bad")
