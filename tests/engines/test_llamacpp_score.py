"""The engine `llamacpp` scores answers as the engine `hf` does with the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from katsuo.config import EngineOptions
from katsuo.engines import CanScore, Choices, EngineSettings, open_engine
from katsuo.models.gguf_files.checkpoint import FolderCheckpoint
from katsuo.models.gguf_files.write import write_gguf
from katsuo.records import Message, Passage, Prompt

TEXT = "the inn on the hill " * 4
RAW = [
    (f"{TEXT}Q: who?\nA: ", ("yes", "no", "may be")),
    ("In the inn\n", ("here", "here and there")),
    ("", ("the inn",)),
    ("日本 12", ("語", "é <|im_end|>")),
]


def ask(text: str, answers: tuple[str, ...], *, has_end: bool = False, is_chat: bool = False) -> Choices:
    messages = (Message("user", text),) if is_chat else ()
    prompt = Prompt(text, Passage("", "", "", 0, 0), "", 0, 0, text="" if is_chat else text, messages=messages)
    return Choices(prompt, answers, has_end)


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path):
    return open_engine("llamacpp", EngineSettings(str(tiny_gguf), options=EngineOptions(batch_size=2, device="cpu")))


@pytest.fixture(scope="module")
def hf(tiny_gguf: Path):
    options = EngineOptions(device="cpu", dtype="float32")
    return open_engine("hf", EngineSettings(str(tiny_gguf.with_suffix("")), options=options))


@pytest.mark.parametrize("is_chat", [False, True])
@pytest.mark.parametrize("has_end", [False, True])
def test_answers_are_as_likely_as_the_engine_hf_finds_them(engine, hf, is_chat: bool, has_end: bool) -> None:
    assert isinstance(engine, CanScore)
    assert engine.end_text(is_chat=is_chat) == hf.end_text(is_chat=is_chat)
    asked = [ask(*one, has_end=has_end, is_chat=is_chat) for one in RAW]
    for ours, theirs in zip(engine.score(asked), hf.score(asked), strict=True):
        assert (ours.finish, ours.tokens) == ("stop", theirs.tokens)
        assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=1e-3)


def test_a_turn_ends_with_the_token_that_its_template_writes(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "turns"
    shutil.copytree(tiny_gguf.with_suffix(""), folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": "<|endoftext|>"}))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>\n", " .<|im_end|>\n<|endoftext|>"))
    write_gguf(FolderCheckpoint(folder), folder / "turns.gguf", kind="f32")
    engine = open_engine("llamacpp", EngineSettings(str(folder), options=EngineOptions(batch_size=2, device="cpu")))
    hf = open_engine("hf", EngineSettings(str(folder), options=EngineOptions(device="cpu", dtype="float32")))
    assert (engine.end_text(is_chat=True), engine.end_text(is_chat=False)) == (" .<|im_end|>", "<|endoftext|>")
    asked = [ask(*one, has_end=True, is_chat=True) for one in RAW]
    for ours, theirs in zip(engine.score(asked), hf.score(asked), strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=1e-3)


def test_a_question_that_cannot_be_asked_is_told_alone(engine) -> None:
    asked = [ask("a", ("b",)), ask("x" * 5000, ("b",)), ask("a", ("b", "")), ask("a", ())]
    assert [scores.finish for scores in engine.score(asked)] == ["stop", "too_long", "error", "error"]
    assert engine.score([]) == []
