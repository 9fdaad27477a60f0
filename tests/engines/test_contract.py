"""What every registered engine promises, on a real model where it needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from vllm_environment import open_here

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import ENGINES, CanCountTokens, CanGenerate, CanStream, EngineSettings, open_engine
from katsuo.pipeline.ask import ask
from katsuo.records import Passage, Prompt
from katsuo.tasks import load_task
from katsuo.tasks.codec import find_codec

pytestmark = pytest.mark.contract
SAMPLING = Sampling(max_new_tokens=48, temperature=1.0)
SLOW = {"vllm": pytest.mark.slow}


@pytest.fixture(params=[pytest.param(name, marks=SLOW.get(name, ())) for name in ENGINES.names()], scope="module")
def engine(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Iterator[CanGenerate]:
    if request.param == "vllm":
        settings = EngineSettings(str(tiny_model("llama with wide heads")), options=EngineOptions(dtype="float32"))
        with closing(open_here(request.getfixturevalue("vllm_python"), settings)) as opened:
            yield opened
        return
    base_url = request.getfixturevalue("llama_server").base_url if request.param == "openai" else None
    model = request.getfixturevalue("tiny_gguf") if request.param == "llamacpp" else tiny_model("llama")
    options = EngineOptions(batch_size=3, dtype="float32", device="cpu", base_url=base_url)
    yield open_engine(request.param, EngineSettings(str(model), options=options))


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    texts = ("The ferry to Ven leaves at nine.", "Rye bread keeps for a week.", "The choir sang in the old mint.")
    passages = [Passage(f"p{number}", text, "a.txt", 0, len(text)) for number, text in enumerate(texts)]
    tasks = [load_task("exqa"), load_task("nli")]
    return list(ask(passages, tasks=tasks, codec=find_codec("bonito-v1"), n=1, seed=5))


def test_it_can_generate_and_count(engine: CanGenerate) -> None:
    assert isinstance(engine, CanGenerate)
    assert isinstance(engine, CanCountTokens)
    assert engine.count_tokens([]) == []
    short, long = engine.count_tokens(["one", "one two three four five"])
    assert 0 < short < long
    assert engine.info.context_tokens > 0
    assert "/" not in engine.info.model, "a row must not carry a path of this machine"


def test_an_empty_batch_gives_an_empty_list(engine: CanGenerate) -> None:
    assert engine.generate([], SAMPLING) == []


def test_it_gives_one_completion_per_prompt_in_order(engine: CanGenerate, prompts: list[Prompt]) -> None:
    whole = engine.generate(prompts, SAMPLING)
    assert len(whole) == len(prompts)
    assert engine.generate(list(reversed(prompts)), SAMPLING) == list(reversed(whole))
    assert [engine.generate([prompt], SAMPLING)[0] for prompt in prompts] == whole


def test_one_that_streams_gives_every_place_once_and_can_be_stopped(engine: CanGenerate, prompts: list[Prompt]) -> None:
    if not isinstance(engine, CanStream):
        pytest.skip("it answers whole batches")
    whole = engine.generate(prompts, SAMPLING)
    for taken in (1, len(prompts)):
        with closing(engine.stream(prompts, SAMPLING)) as stream:
            streamed = list(islice(stream, taken))
        assert len({place for place, _ in streamed}) == taken
        assert all(completion == whole[place] for place, completion in streamed)


def test_it_ends_for_a_reason_and_counts_what_it_wrote(engine: CanGenerate, prompts: list[Prompt]) -> None:
    for completion in engine.generate(prompts, SAMPLING):
        assert completion.finish in ("stop", "length")
        assert not completion.error
        assert 0 < completion.new_tokens <= SAMPLING.max_new_tokens


def test_too_few_tokens_end_a_row_by_length(engine: CanGenerate, prompts: list[Prompt]) -> None:
    few = Sampling(max_new_tokens=8, temperature=1.0)
    assert {completion.finish for completion in engine.generate(prompts, few)} == {"length"}


def test_a_greedy_answer_needs_no_other_prompt(engine: CanGenerate, prompts: list[Prompt]) -> None:
    greedy = SAMPLING.model_copy(update={"answer": "greedy"})
    assert len(engine.generate(prompts, greedy)) == len(prompts)
