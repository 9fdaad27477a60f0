"""The engine `openai` before a real server: llama.cpp's, with a tiny model of random weights."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import pytest
from chaos import ChaosProxy, first_requests_fail
from servers import RunningServer, start_llama

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import CanStream, EngineSettings, open_engine
from katsuo.engines.openai_server.dialects import obeys_probe
from katsuo.errors import EngineError, KatsuoWarning, RecipeError, UsageError
from katsuo.pipeline.ask import ask
from katsuo.records import Message, Passage, Prompt
from katsuo.tasks import load_task
from katsuo.tasks.codec import find_codec

GREEDY = Sampling(temperature=0, max_new_tokens=12)
SHORT = EngineOptions(timeout_s=20, retries=3)


def open_server(address: str, model: str = "smollm2-135m-instruct", **options):
    chosen = SHORT.model_copy(update={"base_url": address, **options})
    return open_engine("openai", EngineSettings(model, options=chosen))


def prompt(text: str = "", *, seed: int = 0, messages: tuple[Message, ...] = ()) -> Prompt:
    return Prompt(f"{text[:9]}{seed}", Passage("p", "", "f", 0, 0), "qa", 0, seed, text=text, messages=messages)


def task_prompts(task: str, codec: str, *texts: str) -> list[Prompt]:
    passages = [Passage(f"p{number}", text, "f", 0, len(text)) for number, text in enumerate(texts)]
    return list(ask(passages, tasks=[load_task(task)], codec=find_codec(codec), n=1, seed=3))


@pytest.fixture(scope="module")
def engine(llama_server: RunningServer):
    return open_server(llama_server.base_url)


def test_the_server_tells_model_and_context_and_no_path(engine):
    info = engine.info
    assert (info.engine, info.model, info.context_tokens) == ("openai", "tiny.gguf", 4096)
    assert info.revision.startswith("served-")


def test_raw_text_goes_to_completions_and_messages_to_chat(chaos: ChaosProxy):
    engine = open_server(f"{chaos.address}/v1")
    engine.generate([prompt("In the inn"), prompt(messages=(Message("user", "In the inn"),))], GREEDY)
    assert {path for _, path, body in chaos.asked if "In the inn" in body} == {
        "/v1/completions",
        "/v1/chat/completions",
    }


def test_a_seed_is_passed_on(engine):
    warm = Sampling(temperature=1.5, top_p=1.0, max_new_tokens=16)
    big = 2**62 + 7
    first, again, other = engine.generate([prompt("a", seed=seed) for seed in (big, big, big + 1)], warm)
    assert first == again
    assert first.text != other.text


def test_what_the_server_adds_to_sampling_is_turned_off(engine):
    # At this temperature all 268 tokens are about as likely; the server's own rule would leave the 40 likeliest.
    hot = Sampling(temperature=2.0, top_p=1.0, max_new_tokens=8)
    answers = engine.generate([prompt("a", seed=seed) for seed in range(160)], hot)
    assert len({answer.text[:1] for answer in answers}) > 30


def test_the_answer_is_held_to_the_grammar_in_raw_text_and_in_a_chat(engine):
    text = "The ferry to Ven leaves at nine from the old harbour."
    for codec in ("bonito-v1", "instruct"):
        roomy = Sampling(temperature=0, max_new_tokens=1600)
        (answer,) = engine.generate(task_prompts("sentiment", codec, text), roomy)
        assert answer.text.count("<|pipe|>") == 1
        instruction, _, label = answer.text.partition("\n<|pipe|>\n")
        assert label.casefold() in load_task("sentiment").answer.allowed(instruction)
        assert answer.finish == "stop"


def test_a_span_of_the_passage_is_what_an_extractive_answer_is(engine):
    text = "The ferry to Ven leaves at nine from the old harbour."
    (answer,) = engine.generate(task_prompts("exqa", "instruct", text), Sampling(temperature=0, max_new_tokens=800))
    assert answer.text.partition("<|pipe|>\n")[2] in text


def test_without_grammar_one_request_is_made_and_the_checks_do_the_rest(chaos: ChaosProxy):
    engine = open_server(f"{chaos.address}/v1")
    asked = task_prompts("sentiment", "instruct", "A fine day.")
    free = Sampling(temperature=0, max_new_tokens=12, grammar=False)
    engine.generate(asked, free)
    before = len(chaos.completions_asked())
    engine.generate(asked, free)
    assert len(chaos.completions_asked()) - before == 1
    assert "llguidance" not in chaos.completions_asked()[-1]


def test_a_server_that_leaves_grammars_aside_is_found_out(chaos: ChaosProxy):
    chaos.dropped_fields = ("grammar",)
    engine = open_server(f"{chaos.address}/v1")
    asked = task_prompts("sentiment", "instruct", "A fine day.")
    engine.generate(asked, GREEDY.model_copy(update={"grammar": False}))
    assert engine.info.not_taken == ()
    with pytest.warns(KatsuoWarning, match="takes no grammar .it leaves grammars aside") as told:
        (answer, _) = engine.generate(asked * 2, GREEDY)
    assert len(told) == 1
    assert "llguidance" not in chaos.completions_asked()[-1]
    assert "<|pipe|>" not in answer.text
    assert engine.info.not_taken == ("grammar",)


def test_the_probe_tells_obedience_from_chance():
    assert obeys_probe("birch cedar")
    for text in ("", "amber cedar", "oak", "amber birch cedar", "The amber"):
        assert not obeys_probe(text)


def test_a_greedy_answer_follows_a_sampled_instruction(chaos: ChaosProxy):
    engine = open_server(f"{chaos.address}/v1")
    sampling = Sampling(temperature=0.7, max_new_tokens=400, answer="greedy")
    engine.generate(task_prompts("sentiment", "instruct", "A fine day."), sampling)
    instruction, answer = chaos.completions_asked()[-2:]
    assert '"temperature":0.7' in instruction.replace(" ", "")
    assert '"temperature":0.0' in answer.replace(" ", "")


def test_an_overlong_prompt_says_so_alone(engine):
    answers = engine.generate([prompt("a"), prompt("x" * 5000), prompt("b")], GREEDY)
    assert [answer.finish for answer in answers] == ["length", "too_long", "length"]
    assert "5000" in answers[1].error


def test_a_prompt_that_leaves_no_room_for_its_answer_is_too_long(engine):
    (answer,) = engine.generate([prompt("x" * 4090)], GREEDY.model_copy(update={"max_new_tokens": 64}))
    assert answer.finish == "too_long"


def test_an_empty_prompt_is_one_error(engine):
    assert [answer.finish for answer in engine.generate([prompt("a"), prompt("")], GREEDY)] == ["length", "error"]


def test_tokens_are_counted_by_the_server(engine):
    assert engine.count_tokens(["the", "12", "<|im_end|>"]) == [2, 2, 9]


def test_completions_come_as_they_are_ready_and_a_stream_may_be_left(engine):
    assert isinstance(engine, CanStream)
    asked = [prompt(f"word {number}") for number in range(8)]
    stream = engine.stream(asked, GREEDY)
    first = next(stream)
    stream.close()
    whole = engine.generate(asked, GREEDY)
    assert first[1] == whole[first[0]]
    assert sorted(place for place, _ in engine.stream(asked, GREEDY)) == list(range(8))


def test_a_slow_prompt_holds_up_no_other(chaos: ChaosProxy):
    engine = open_server(f"{chaos.address}/v1", timeout_s=4, batch_size=2, retries=1)
    engine.generate([prompt("a")], GREEDY)
    chaos.draw = lambda path, body: "hang" if "endless" in body else ""
    asked = [prompt("endless"), *(prompt(f"word {number}") for number in range(12))]
    began, arrived = time.monotonic(), {}
    for place, completion in engine.stream(asked, GREEDY):
        arrived[place] = (time.monotonic() - began, completion.finish)
    assert list(arrived)[-1] == 0
    assert arrived[0][1] == "error"
    assert max(seconds for place, (seconds, _) in arrived.items() if place) < 4 <= arrived[0][0]


def test_a_model_that_is_not_served_is_named_beside_those_that_are(llama_server: RunningServer):
    with pytest.raises(EngineError, match=r'serves no model "gpt-9"(.|\n)*tiny\.gguf'):
        open_server(llama_server.base_url, "gpt-9")


def test_nobody_listening_is_told_soon_and_plainly():
    began = time.monotonic()
    with pytest.raises(EngineError, match="does not answer"):
        open_server("http://127.0.0.1:9/v1")
    assert time.monotonic() - began < 10


def test_a_page_of_the_web_is_no_server(llama_server: RunningServer):
    with pytest.raises(EngineError, match="no list of its models") as caught:
        open_server(f"{llama_server.address}/nothing")
    assert "--base-url" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:8080/v1", "no address of a server"),
        ("ftp://127.0.0.1/v1", "no address of a server"),
        ("https://me:secret@models.example/v1", "more than an address"),
        ("https://models.example/v1?key=secret", "more than an address"),
        ("http://models.example/v1", "in the clear"),
    ],
)
def test_an_address_that_would_give_a_secret_away_is_refused(address: str, told: str, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(RecipeError, match=told) as caught:
        open_server(address)
    assert "secret" not in str(caught.value)


def test_without_an_address_nothing_is_asked():
    with pytest.raises(UsageError, match="needs the address"):
        open_engine("openai", EngineSettings("any"))


def test_an_adapter_is_the_server_s_business(llama_server: RunningServer):
    options = EngineOptions(base_url=llama_server.base_url)
    with pytest.raises(UsageError, match="adapter"):
        open_engine("openai", EngineSettings("any", adapter="lora", options=options))


def test_the_key_comes_from_the_environment_and_shows_nowhere(tiny_gguf: Path, tmp_path: Path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "not-this-one")
    server = start_llama(tiny_gguf, tmp_path / "log.txt", key="open-sesame")
    proxy = ChaosProxy(server.address)
    try:
        with pytest.raises(EngineError, match="refuses the key") as caught:
            open_server(f"{proxy.address}/v1").generate([prompt("a")], GREEDY)
        assert "KATSUO_API_KEY" in caught.value.hint
        monkeypatch.setenv("KATSUO_API_KEY", "open-sesame")
        engine = open_server(f"{proxy.address}/v1", retries=0)
        assert engine.generate([prompt("a")], GREEDY)[0].finish == "length"
        proxy.draw = first_requests_fail("500", 99)  # it repeats the key in what it says
        with pytest.raises(EngineError, match=r"oops, Bearer \[key\]") as repeated:
            engine.generate([prompt("a")], GREEDY)
        said = f"{caught.value}{repeated.value}{caplog.text}{dataclasses.asdict(engine.info)}"
        assert "open-sesame" not in said
        assert "not-this-one" not in said
    finally:
        proxy.close()
        server.kill()
