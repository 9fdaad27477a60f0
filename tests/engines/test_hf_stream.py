"""The engine `hf` hands over its completions as rows end, may be stopped among them, and need not answer twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from katsuo.budget import BudgetReached, Meter
from katsuo.cache import AnswerCache, CachedEngine
from katsuo.config import Budget, EngineOptions, Sampling
from katsuo.engines import CanGenerate, CanStream, EngineSettings, open_engine
from katsuo.pipeline.ask import ask
from katsuo.records import Passage, Prompt
from katsuo.tasks import load_task
from katsuo.tasks.codec import find_codec

SAMPLING = Sampling(max_new_tokens=24, temperature=1.0, grammar=False)


@pytest.fixture(scope="module")
def engine(tiny_model: Callable[[str], Path]) -> CanGenerate:
    options = EngineOptions(batch_size=3, dtype="float32", device="cpu")
    return open_engine("hf", EngineSettings(str(tiny_model("llama")), options=options))


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    texts = [f"The ferry to Ven leaves pier {number} at nine." for number in range(8)]
    passages = [Passage(f"p{number}", text, "a.txt", 0, len(text)) for number, text in enumerate(texts)]
    return list(ask(passages, tasks=[load_task("nli")], codec=find_codec("bonito-v1"), n=1, seed=5))


def test_rows_are_handed_over_before_the_last_has_ended(engine: CanGenerate, prompts: list[Prompt]) -> None:
    assert isinstance(engine, CanStream)
    before = engine._decoder.memory.prompt_tokens_read
    with closing(engine.stream(prompts, SAMPLING)) as stream:
        next(stream)
        halfway = engine._decoder.memory.prompt_tokens_read - before
        rest = list(stream)
    assert len(rest) == len(prompts) - 1
    assert engine._decoder.memory.prompt_tokens_read - before > halfway, "prompts were read after the first had ended"


def test_who_takes_the_rows_is_left_out_of_inference_mode(engine: CanGenerate, prompts: list[Prompt]) -> None:
    assert isinstance(engine, CanStream)
    for _ in engine.stream(prompts, SAMPLING):
        assert not torch.is_inference_mode_enabled()


def test_a_model_that_was_stopped_goes_on_as_if_it_had_not_been(
    engine: CanGenerate, prompts: list[Prompt], tmp_path: Path
) -> None:
    whole = engine.generate(prompts, SAMPLING)
    cached = CachedEngine(engine, AnswerCache(tmp_path), {}, Meter(Budget(max_tokens=1)))
    for answered in range(1, len(prompts)):
        with pytest.raises(BudgetReached):
            cached.generate(prompts, SAMPLING)
        assert sum(answer is not None for answer in cached.recall(prompts, SAMPLING)) == answered
    assert cached.generate(prompts, SAMPLING) == whole
    assert cached.asked == len(prompts)
