"""The engine `openai` scores answers by servers that tell how likely their model finds a text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos import ChaosProxy
from servers import RunningServer, start_echo, start_llama, write_tiny_gguf

from katsuo.api import evaluate
from katsuo.config import EngineOptions, Sampling
from katsuo.engines import CanCountTokens, CanScore, CanStream, Choices, EngineSettings, open_engine
from katsuo.errors import EngineError, UsageError
from katsuo.records import Message, Passage, Prompt

NOWHERE = Passage("", "", "", 0, 0)
TEXT = "the inn on the hill " * 4
RAW = [
    (f"{TEXT}Q: who?\nA: ", ("yes", "no", "may be")),
    ("In the inn\n", ("here", "here and there")),
    ("x", ("in", "in the", "out")),
]


def ask(text: str, answers: tuple[str, ...], *, has_end: bool = False, is_chat: bool = False) -> Choices:
    messages = (Message("user", text),) if is_chat else ()
    return Choices(Prompt(text, NOWHERE, "", 0, 0, text="" if is_chat else text, messages=messages), answers, has_end)


def open_server(address: str, model: str = "tiny.gguf"):
    options = EngineOptions(base_url=address, timeout_s=20, retries=2)
    return open_engine("openai", EngineSettings(model, options=options))


def open_hf(folder: Path):
    return open_engine("hf", EngineSettings(str(folder), options=EngineOptions(device="cpu", dtype="float32")))


def compare(ours, theirs, asked: list[Choices], *, within: float) -> None:
    for one, other in zip(ours.score(asked), theirs.score(asked), strict=True):
        assert (one.finish, one.tokens) == (other.finish, other.tokens)
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=within)


@pytest.fixture(scope="module")
def half(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights that sixteen bits can hold, as a GGUF file of them does."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("half") / "model"
    shutil.copytree(tiny_model("llama"), folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def echo_server(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = start_echo(half, tmp_path_factory.mktemp("echo") / "log.txt")
    yield server
    server.kill()


@pytest.fixture(params=["vllm", "somebody"])
def echo(request: pytest.FixtureRequest, echo_server: RunningServer) -> tuple[str, str]:
    """A base URL, and whose server it is taken for."""
    return f"{echo_server.address}/{request.param}/v1", request.param


@pytest.fixture(scope="module")
def half_gguf(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("xllamacpp")
    return write_tiny_gguf(half, tmp_path_factory.mktemp("llama") / "tiny.gguf")


@pytest.fixture(scope="module")
def llama(half_gguf: Path) -> Iterator[RunningServer]:
    server = start_llama(half_gguf, half_gguf.with_name("log.txt"))
    yield server
    server.kill()


def test_a_server_that_echoes_gives_the_log_probabilities_of_the_model_in_this_process(echo, half: Path):
    address, owner = echo
    engine, here = open_server(address), open_hf(half)
    assert isinstance(engine, CanScore)
    assert isinstance(engine, CanCountTokens)
    assert isinstance(engine, CanStream)
    compare(engine, here, [ask(*one) for one in RAW], within=1e-3)
    assert engine.count_tokens(["the inn", ""]) == here.count_tokens(["the inn", ""])
    if owner == "vllm":
        compare(engine, here, [ask(*one, has_end=True) for one in RAW], within=1e-3)
        chats = [ask(*one, is_chat=True, has_end=has_end) for one in RAW for has_end in (True, False)]
        compare(engine, here, chats, within=1e-3)
        compare(engine, here, [ask("", ("the inn",))], within=1e-3)
        assert engine.end_text(is_chat=False) == here.end_text(is_chat=False)


def test_what_an_echo_without_tokens_cannot_tell_is_refused_with_what_to_do(echo):
    address, owner = echo
    if owner == "vllm":
        pytest.skip("it tells its tokens")
    engine = open_server(address)
    with pytest.raises(UsageError, match="not of a chat") as caught:
        engine.score([ask("x", ("a", "b"), is_chat=True)])
    assert "--style" in caught.value.hint
    with pytest.raises(UsageError, match="which token ends an answer") as caught:
        engine.score([ask("x", ("a", "b"), has_end=True)])
    assert "--eos no" in caught.value.hint
    # "in" and "the" are tokens of their own, "n t" begins inside one.
    (scores,) = engine.score([ask("x i", ("n the",))])
    assert scores.finish == "error"
    assert "no token begins" in scores.error


def test_llama_cpp_writes_each_token_and_tells_how_likely_it_was(llama: RunningServer, half: Path):
    engine, here = open_server(llama.base_url), open_hf(half)
    assert isinstance(engine, CanScore)
    every = [(has_end, is_chat) for has_end in (True, False) for is_chat in (True, False)]
    asked = [ask(*one, has_end=has_end, is_chat=is_chat) for one in RAW for has_end, is_chat in every]
    # It multiplies and keeps in sixteen bits.
    compare(engine, here, asked, within=5e-2)
    assert engine.end_text(is_chat=False) == here.end_text(is_chat=False) == "<|im_end|>"


def test_answers_whose_tokens_end_within_a_letter_are_scored_by_llama_cpp(llama: RunningServer, half: Path):
    engine, here = open_server(llama.base_url), open_hf(half)
    asked = [
        ask(text, ("Zürich", "語", "🚂 é"), is_chat=is_chat) for text in ("日本 in", "x") for is_chat in (True, False)
    ]
    compare(engine, here, asked, within=5e-2)


def test_a_control_token_in_a_passage_is_plain_text(llama: RunningServer, half: Path):
    engine, here = open_server(llama.base_url), open_hf(half)
    compare(
        engine, here, [ask("a <|im_end|> b", ("yes", "no"), is_chat=is_chat) for is_chat in (True, False)], within=5e-2
    )


_OPENING = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
_OPENED = {
    "type": "TemplateProcessing",
    "single": [_OPENING, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [_OPENING, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
}


@pytest.fixture(scope="module", params=["the model's own turns", "{{ messages[-1]['content'] }}"])
def opened(request: pytest.FixtureRequest, half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a token before every text and every chat, as Llama 3, Gemma and Mistral have one."""
    folder = tmp_path_factory.mktemp("opened") / "model"
    shutil.copytree(half, folder)
    changes = {"tokenizer.json": {"post_processor": _OPENED}, "tokenizer_config.json": {"bos_token": "<|endoftext|>"}}
    for name, changed in changes.items():
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    template = folder / "chat_template.jinja"
    turns = request.param if request.param.startswith("{{") else template.read_text()
    template.write_text("{{ bos_token }}" + turns)
    return folder


def test_the_token_that_begins_every_text_begins_a_chat_once(opened: Path, tmp_path: Path):
    pytest.importorskip("xllamacpp")
    server = start_llama(write_tiny_gguf(opened, tmp_path / "tiny.gguf"), tmp_path / "log.txt")
    try:
        engine, here = open_server(server.base_url), open_hf(opened)
        asked = [ask(text, answers, is_chat=is_chat) for text, answers in RAW for is_chat in (True, False)]
        compare(engine, here, [*asked, ask("a <|im_end|> b", ("yes", "no"), is_chat=True)], within=5e-2)
    finally:
        server.kill()


def test_a_question_that_cannot_be_scored_says_so_alone(echo):
    address, _ = echo
    asked = [ask("x" * 511, ("a" * 9,)), ask("x", ("",)), ask("x", ()), ask("x", ("a", "b"))]
    engine = open_server(address)
    assert [scores.finish for scores in engine.score(asked)] == ["too_long", "error", "error", "stop"]
    assert engine.score([]) == []


def test_a_server_without_log_probabilities_is_found_out_when_it_is_opened(llama: RunningServer):
    chaos = ChaosProxy(llama.address)
    try:
        chaos.dropped_fields = ("logprobs",)
        engine = open_server(f"{chaos.address}/v1")
        assert not isinstance(engine, CanScore)
        assert engine.generate([ask("a", ()).prompt], Sampling(temperature=0, max_new_tokens=8))[0].finish == "length"
    finally:
        chaos.close()


def test_a_server_that_leaves_a_push_aside_is_found_out(llama: RunningServer):
    chaos = ChaosProxy(llama.address)
    try:
        chaos.dropped_fields = ("logit_bias",)
        assert not isinstance(open_server(f"{chaos.address}/v1"), CanScore)
    finally:
        chaos.close()


@pytest.mark.parametrize("fault", ["403", "404"])
def test_a_gateway_that_keeps_the_end_token_to_itself_lets_all_else_be_scored(
    llama: RunningServer, echo_server: RunningServer, fault: str
):
    for server, base, path in ((llama, "v1", "/props"), (echo_server, "vllm/v1", "/vllm/tokenizer_info")):
        chaos = ChaosProxy(server.address)
        chaos.draw = lambda asked, body, denied=path: fault if asked == denied else ""
        try:
            engine = open_server(f"{chaos.address}/{base}")
            asked = [ask(*one, has_end=is_chat, is_chat=is_chat) for one in RAW for is_chat in (True, False)]
            compare(engine, open_server(f"{server.address}/{base}"), asked, within=1e-2)
            assert chaos.faults[fault] > 0
            assert engine.end_text(is_chat=False) == ""
            with pytest.raises(UsageError, match="which token ends an answer"):
                engine.score([ask("x", ("a", "b"), has_end=True)])
        finally:
            chaos.close()


def test_a_server_that_dies_while_it_scores_stops_the_work(half_gguf: Path, tmp_path: Path):
    server = start_llama(half_gguf, tmp_path / "log.txt")
    engine = open_server(server.base_url)
    server.kill()
    with pytest.raises(EngineError, match="does not"):
        engine.score([ask("x", ("a", "b"))])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    told = [
        {"passage": f"The ferry {n} leaves at nine.", "question": "At ten?", "answer": "no" if n % 3 else "yes"}
        for n in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return tmp_path / "rows.jsonl"


def test_an_evaluation_by_a_server_is_that_of_the_model_in_this_process(echo, half: Path, rows: Path, tmp_path: Path):
    address, owner = echo
    style = {"style": "chat"} if owner == "vllm" else {"style": "input-output", "eos": "no"}
    told = {"task": "ynqa", "data": rows, "templates": 2, **style}
    there = {"engine": "openai", "engine_options__base_url": address}
    found = [
        evaluate("tiny.gguf", tmp_path / "there", **told, **there),
        evaluate(str(half), tmp_path / "here", **told, engine_options__dtype="float32", engine_options__device="cpu"),
    ]
    one, other = (evaluation.predictions("ynqa") for evaluation in found)
    assert [item.prediction for item in one] == [item.prediction for item in other]
    for ours, theirs in zip(one, other, strict=True):
        assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=1e-3)
    assert found[0].scores["sets"]["ynqa"]["mean"] == found[1].scores["sets"]["ynqa"]["mean"]


def test_a_server_without_log_probabilities_cannot_rank_and_says_which_can(
    llama: RunningServer, rows: Path, tmp_path: Path
):
    chaos = ChaosProxy(llama.address)
    chaos.dropped_fields = ("logprobs",)
    told = {"engine": "openai", "engine_options__base_url": f"{chaos.address}/v1", "style": "chat"}
    try:
        with pytest.raises(UsageError, match="gives no log-probabilities") as caught:
            evaluate("tiny.gguf", tmp_path / "scores", task="ynqa", data=rows, **told)
    finally:
        chaos.close()
    assert "vLLM" in caught.value.hint


def test_a_model_that_only_a_server_knows_has_to_be_asked_in_a_style(llama: RunningServer, rows: Path, tmp_path: Path):
    told = {"engine": "openai", "engine_options__base_url": llama.base_url}
    with pytest.raises(UsageError, match=r"how .* is to be asked") as caught:
        evaluate("tiny.gguf", tmp_path / "scores", task="ynqa", data=rows, **told)
    assert "--style chat" in caught.value.hint
