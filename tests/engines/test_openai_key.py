"""The key of a server: read from the environment, sent to that server alone, and told to nobody."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from chaos import ChaosProxy

from katsuo.config import EngineOptions, Sampling, api_key
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.greet import PLAIN, Served
from katsuo.engines.openai_server.likelihood import LikelihoodAsker
from katsuo.engines.openai_server.line import Line, Refusal, Trouble
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.width import Width
from katsuo.errors import RecipeError
from katsuo.records import Passage, Prompt

KEY = 'sk-se/cr\\et"7'
"""With all that JSON or Python may write otherwise."""


def test_white_space_around_the_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KATSUO_API_KEY", " \n")
    monkeypatch.setenv("OPENAI_API_KEY", "\tsk-secret\n")
    assert api_key() == "sk-secret"
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert api_key() is None


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se\x7fcret", "sk-sécret", "“sk-secret”"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(RecipeError, match="the key in OPENAI_API_KEY") as caught:
        api_key()
    assert "sk-s" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.evil.example", "127.0.0.1.evil.example", "127.1", "localhost.evil.example"])
def test_a_host_that_only_looks_like_this_machine_gets_no_key_in_the_clear(host: str):
    with pytest.raises(RecipeError, match="in the clear"):
        Line(f"http://{host}/v1", key="sk-secret", timeout_s=1)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9:80", "[::1]:8080"])
def test_this_machine_is_asked_past_all_proxies_with_the_key(host: str):
    line = Line(f"http://{host}/v1", key="sk-secret", timeout_s=1)
    assert not line._client.trust_env
    asyncio.run(line.close())


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(500, text=f"oops, Bearer {KEY}"),
        httpx2.Response(500, text=f"oops, b{f'Bearer {KEY}'!r}"),
        httpx2.Response(400, json={"error": {"message": f"what is {KEY}?"}}),
        httpx2.Response(403, text=json.dumps({"detail": [KEY]}).replace("/", "\\/")),
        httpx2.Response(200, text=json.dumps({"error": KEY})[:-1].replace("/", "\\/")),
        httpx2.Response(200, json={"error": {KEY: KEY}}),
    ],
)
def test_what_a_server_says_of_the_key_is_quoted_without_it(response: httpx2.Response):
    line = Line("http://127.0.0.1/v1", key=KEY, timeout_s=1)
    outcome = line._read(response)
    asyncio.run(line.close())
    assert isinstance(outcome, Refusal | Trouble)
    assert "[key]" in outcome.words
    assert "sk-" not in outcome.words


def test_a_reply_that_repeats_the_key_puts_it_nowhere(chaos: ChaosProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KATSUO_API_KEY", KEY)
    options = EngineOptions(base_url=f"{chaos.address}/v1", timeout_s=20)
    engine = open_engine("openai", EngineSettings("tiny.gguf", options=options))
    prompt = Prompt("p", Passage("p", "", "f", 0, 0), "qa", 0, 0, text="Hello")
    engine.generate([prompt], Sampling(max_new_tokens=8))
    chaos.draw = lambda path, body: "echo"
    (completion,) = engine.generate([prompt], Sampling(max_new_tokens=8))
    assert completion.finish == "error"
    assert "another shape" in completion.error
    assert "Bearer [key]" in completion.error
    assert "sk-" not in completion.error


def test_log_probabilities_that_are_not_there_are_told_without_the_key(chaos: ChaosProxy):
    async def scenario() -> object:
        line = Line(f"{chaos.address}/v1", key=KEY, timeout_s=20)
        patience = Patience(line, Gate(Width(1, 20.0)), retries=0)
        asker = LikelihoodAsker(patience, Served("m", PLAIN, 100, "1", "instruct"))
        async with patience.gate.passed() as place:
            told = await asker.echoed(place, [1], [2])
        await line.close()
        return told

    chaos.draw = lambda path, body: "echo"
    told = asyncio.run(scenario())
    assert isinstance(told, Trouble)
    assert "Bearer [key]" in told.words
    assert "sk-" not in told.words
