"""The engine `openai` before the server of transformers, which lists no models and takes no grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import RunningServer, start_transformers

from katsuo.api import generate
from katsuo.config import EngineOptions, Sampling
from katsuo.engines import CanCountTokens, CanScore, EngineSettings, open_engine
from katsuo.errors import EngineError
from katsuo.records import Message, Passage, Prompt

pytestmark = pytest.mark.slow
GREEDY = Sampling(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module")
def server(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="the server of transformers needs it")
    started = start_transformers(tiny_model("llama"), tmp_path_factory.mktemp("transformers") / "log.txt")
    yield started
    started.kill()


def open_server(server: RunningServer, model: Path, **options):
    chosen = EngineOptions(base_url=server.base_url, timeout_s=60, retries=2, **options)
    return open_engine("openai", EngineSettings(str(model), options=chosen))


def prompt(text: str, *, is_chat: bool = False) -> Prompt:
    asked = {"messages": (Message("user", text),)} if is_chat else {"text": text}
    return Prompt(text, Passage("p", "", "f", 0, 0), "qa", 0, 1, **asked)


def test_its_words_are_those_of_the_model_in_this_process(server: RunningServer, tiny_model):
    here = open_engine("hf", EngineSettings(str(tiny_model("llama")), options=EngineOptions(device="cpu")))
    there = open_server(server, tiny_model("llama"))
    asked = [prompt("In the inn"), prompt("Q: who? A:"), prompt("In the inn", is_chat=True)]
    assert [one.text for one in there.generate(asked, GREEDY)] == [one.text for one in here.generate(asked, GREEDY)]


def test_what_it_does_not_tell_is_taken_from_the_recipe(server: RunningServer, tiny_model):
    engine = open_server(server, tiny_model("llama"), context_tokens=512)
    assert not isinstance(engine, CanCountTokens)
    assert engine.info.context_tokens == 512
    assert engine.info.model == "llama"
    assert engine.info.codec == "instruct"


def test_it_gives_no_prompt_log_probabilities_and_is_known_not_to(server: RunningServer, tiny_model):
    assert not isinstance(open_server(server, tiny_model("llama")), CanScore)


def test_a_greedy_answer_in_a_chat_is_refused_since_it_cannot_go_on_in_one(server: RunningServer, tiny_model):
    engine = open_server(server, tiny_model("llama"))
    with pytest.raises(EngineError, match="cannot be made to go on"):
        engine.generate([prompt("a", is_chat=True)], GREEDY.model_copy(update={"answer": "greedy"}))
    greedy = GREEDY.model_copy(update={"answer": "greedy", "temperature": 1.0})
    assert engine.generate([prompt("a")], greedy)[0].finish in ("stop", "length")


def test_a_whole_run_ends_with_every_prompt_kept_or_rejected(server: RunningServer, tiny_model, tmp_path: Path):
    (tmp_path / "a.txt").write_text("The ferry to Ven leaves at nine.")
    settings = {"engine_options__base_url": server.base_url, "engine_options__context_tokens": 512}
    settings |= {"codec": "bonito-v1", "model": str(tiny_model("llama")), "sampling__max_new_tokens": 16}
    run = generate(tmp_path / "a.txt", ["ynqa", "exqa"], tmp_path / "run", engine="openai", **settings)
    assert run.summary().is_complete
    assert run.summary().prompts == 2
