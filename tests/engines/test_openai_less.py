"""Servers that take less than others: no seed, no list of models, no count of tokens, a key for one thing alone."""

from __future__ import annotations

import json

import pytest
from chaos import ChaosProxy

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import CanCountTokens, CanScore, EngineSettings, open_engine
from katsuo.errors import EngineError, KatsuoWarning
from katsuo.records import Message, Passage, Prompt

WARM = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=8)


def open_server(chaos: ChaosProxy):
    options = EngineOptions(base_url=f"{chaos.address}/v1", timeout_s=20, retries=1)
    return open_engine("openai", EngineSettings("smollm2-135m-instruct", options=options))


def chat(text: str = "Hello") -> Prompt:
    return Prompt(text, Passage("p", "", "f", 0, 0), "qa", 0, 7, messages=(Message("user", text),))


def last_body(chaos: ChaosProxy) -> dict[str, object]:
    return json.loads(chaos.completions_asked()[-1])


@pytest.mark.parametrize("name", ["seed", "top_p", "temperature", "min_p"])
def test_a_field_that_a_server_refuses_by_name_is_left_out_with_one_warning(chaos: ChaosProxy, name: str):
    chaos.draw = lambda path, body: f"400 {name}" if body and name in json.loads(body) else ""
    engine = open_server(chaos)
    with pytest.warns(KatsuoWarning, match=f"does not take {name}.*Unsupported parameter") as told:
        answers = engine.generate([chat(), chat("Bye")], WARM)
    assert len(told) == 1
    assert {answer.finish for answer in answers} <= {"stop", "length"}, "without a seed they are as they are"
    assert {"seed", "top_p", "temperature"} - set(last_body(chaos)) == {name} - {"min_p"}
    setting = name if name == "seed" else f"{name} {WARM.model_dump().get(name, 0.0)}"
    assert engine.info.not_taken == (setting,)


def test_a_value_that_is_refused_takes_no_other_value_with_it(chaos: ChaosProxy, recwarn: pytest.WarningsRecorder):
    chaos.draw = lambda path, body: "400 temperature" if '"temperature":0.0' in body.replace(" ", "") else ""
    engine = open_server(chaos)
    engine.generate([chat()], WARM)
    assert last_body(chaos)["temperature"] == 0.5
    assert engine.info.not_taken == ()
    assert not recwarn.list


def test_a_refusal_that_may_quote_the_prompt_costs_no_field(chaos: ChaosProxy):
    engine = open_server(chaos)
    engine.generate([chat()], WARM)
    chaos.draw = lambda path, body: "400 seed" if "mustard" in body else ""
    answers = engine.generate([chat("The mustard seed"), chat()], WARM)
    assert [answer.finish for answer in answers] == ["error", "length"]
    assert [json.loads(body)["seed"] for body in chaos.completions_asked() if "Hello" in body] == [7, 7]


def test_a_key_for_chats_alone_writes_chats(chaos: ChaosProxy):
    chaos.draw = lambda path, body: "" if path == "/v1/chat/completions" else "403"
    engine = open_server(chaos)
    assert not isinstance(engine, CanCountTokens | CanScore)
    assert engine.generate([chat()], WARM)[0].finish == "length"
    with pytest.raises(EngineError, match=r"refuses the key \(403\): this key may not do that"):
        engine.generate([Prompt("p", Passage("p", "", "f", 0, 0), "qa", 0, 7, text="Hello")], WARM)


def test_a_key_that_cannot_score_can_still_count_and_write(chaos: ChaosProxy):
    chaos.draw = lambda path, body: "403" if path == "/v1/completions" else ""
    engine = open_server(chaos)
    assert not isinstance(engine, CanScore)
    assert isinstance(engine, CanCountTokens)
    assert engine.generate([chat()], WARM)[0].finish == "length"


@pytest.mark.parametrize("fault", ["403", "404"])
def test_a_gateway_that_does_not_pass_on_what_only_scoring_asks_keeps_no_run_from_starting(
    chaos: ChaosProxy, fault: str
):
    chaos.draw = lambda path, body: fault if path == "/props" else ""
    engine = open_server(chaos)
    assert chaos.faults[fault] > 0
    assert isinstance(engine, CanCountTokens)
    assert engine.generate([chat()], WARM)[0].finish == "length"


def test_a_key_that_is_good_for_nothing_is_told_before_anything_is_read(chaos: ChaosProxy):
    chaos.draw = lambda path, body: "403"
    with pytest.raises(EngineError, match="refuses the key") as caught:
        open_server(chaos)
    assert "KATSUO_API_KEY" in caught.value.hint


def test_an_answer_whose_tokens_nobody_counted_is_not_called_too_long(chaos: ChaosProxy):
    engine = open_server(chaos)
    (counted,) = engine.generate([chat()], WARM)
    chaos.dropped_from_answers = ("usage",)
    (uncounted,) = engine.generate([chat()], WARM)
    assert (counted.finish, uncounted.finish) == ("length", "length")
    assert counted.text == uncounted.text
    assert uncounted.new_tokens < counted.new_tokens == 8
