"""The engine behind the cache: asks what was never answered, keeps what ended properly, loses nothing to a failure."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from katsuo.budget import BudgetReached, Meter
from katsuo.cache import AnswerCache, CachedEngine
from katsuo.cache.key import answer_keys
from katsuo.config import Budget, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.base import CanGenerate, CanRecall, ModelInfo
from katsuo.errors import EngineError
from katsuo.pipeline.ask import ask
from katsuo.records import Completion, Message, Passage, Prompt
from katsuo.tasks import load_task
from katsuo.tasks.codec import find_codec

from counting import asked  # isort: skip

SAMPLING = Sampling()
MODEL = {"model": "m"}


@pytest.fixture
def prompts() -> list[Prompt]:
    texts = [f"The ferry to Ven leaves pier {number} at nine." for number in range(12)]
    passages = [Passage(f"p{number}", text, "a.txt", 0, len(text)) for number, text in enumerate(texts)]
    return list(ask(passages, tasks=[load_task("exqa")], codec=find_codec("bonito-v1"), n=1, seed=5))


def behind_cache(engine: CanGenerate | str, folder: Path, **budget: object) -> CachedEngine:
    opened = open_engine(engine, EngineSettings("m")) if isinstance(engine, str) else engine
    return CachedEngine(opened, AnswerCache(folder), MODEL, Meter(Budget(**budget)))


@pytest.mark.parametrize("kind", ["counting", "streaming"])
def test_nothing_that_was_answered_is_asked_again(kind: str, prompts: list[Prompt], tmp_path: Path, log: Path) -> None:
    engine = behind_cache(kind, tmp_path / "cache")
    first = engine.generate(prompts[:7], SAMPLING)
    assert (engine.found, engine.asked) == (0, 7)
    again = behind_cache(kind, tmp_path / "cache")
    assert isinstance(again, CanGenerate)
    assert isinstance(again, CanRecall)
    whole = again.generate(prompts, SAMPLING)
    assert (again.found, again.asked) == (7, 5)
    assert whole[:7] == first
    assert whole == open_engine(kind, EngineSettings("m")).generate(prompts, SAMPLING)
    assert sorted(asked(log)[:12]) == sorted(prompt.id for prompt in prompts)
    assert again.recall(list(reversed(prompts)), SAMPLING) == list(reversed(whole))


def test_an_engine_that_streams_loses_nothing_that_came_before_it_died(
    prompts: list[Prompt], tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTING_DIES_AT", "5")
    with pytest.raises(EngineError, match="went away"):
        behind_cache("streaming", tmp_path / "cache").generate(prompts, SAMPLING)
    monkeypatch.delenv("COUNTING_DIES_AT")
    engine = behind_cache("streaming", tmp_path / "cache")
    assert [answer is not None for answer in engine.recall(prompts, SAMPLING)] == [False] * 7 + [True] * 5
    engine.generate(prompts, SAMPLING)
    assert (engine.found, engine.asked) == (5, 7)
    assert sorted(asked(log)) == sorted(prompt.id for prompt in prompts)


@pytest.mark.parametrize("kind", ["counting", "streaming"])
def test_what_a_found_answer_does_not_follow_is_told_of_the_engine_behind_the_cache(
    kind: str, prompts: list[Prompt], tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, name in ((prompts[:3], "grammar"), (prompts[3:5], "seed"), (prompts[5:7], "")):
        monkeypatch.setenv("COUNTING_NOT_TAKEN", name)
        behind_cache(kind, tmp_path / "cache").generate(part, SAMPLING)
    monkeypatch.setenv("COUNTING_NOT_TAKEN", "top_p")
    again = behind_cache(kind, tmp_path / "cache")
    again.generate(prompts[5:7], SAMPLING)
    assert again.info.not_taken == ()
    again.generate(prompts[4:7], SAMPLING)
    assert again.info.not_taken == ("seed",)
    again.recall(prompts[:1], SAMPLING)
    assert again.info.not_taken == ("grammar", "seed")
    again.generate(prompts[7:], SAMPLING)
    assert again.info.not_taken == ("grammar", "seed", "top_p")


class Answers:
    """An engine that gives the completions that it was made with; it streams them, and notes that it was closed."""

    info = ModelInfo("answers", "m", "1", codec="bonito-v1", context_tokens=4096)

    def __init__(self, *completions: Completion) -> None:
        self._completions = completions
        self.given = 0
        self.was_closed = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [completion for _, completion in self.stream(prompts, sampling)]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        try:
            for place, completion in enumerate(self._completions[: len(prompts)]):
                self.given += 1
                yield place, completion
        finally:
            self.was_closed = True


def test_only_an_answer_that_the_model_ended_is_kept(prompts: list[Prompt], tmp_path: Path) -> None:
    given = [
        Completion("whole", "stop", 3),
        Completion("cut by the limit", "length", 256),
        Completion("", "error", 0, "the server is busy"),
        Completion("half of it", "error", 4, "the connection broke"),
        Completion(finish="too_long"),
        Completion(" \n", "stop", 1),
    ]
    engine = behind_cache(Answers(*given), tmp_path)
    assert engine.generate(prompts[:6], SAMPLING) == given
    assert engine.recall(prompts[:6], SAMPLING) == [*given[:2], None, None, None, None]


def test_an_engine_that_breaks_the_batch_promise_is_found_out(prompts: list[Prompt], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="gave 1 completions for 3 prompts"):
        behind_cache(Answers(Completion("one")), tmp_path).generate(prompts[:3], SAMPLING)


def test_a_budget_stops_an_engine_that_streams_and_what_came_is_kept(prompts: list[Prompt], tmp_path: Path) -> None:
    inner = Answers(*[Completion(f"answer {number}", "stop", 10) for number in range(12)])
    engine = behind_cache(inner, tmp_path, max_tokens=25)
    with pytest.raises(BudgetReached, match="30 new tokens were written, of 25"):
        engine.generate(prompts, SAMPLING)
    assert (inner.given, inner.was_closed) == (3, True)
    assert sum(answer is not None for answer in engine.recall(prompts, SAMPLING)) == 3
    assert engine.generate(prompts[:3], SAMPLING), "what is in the cache costs nothing"


def test_a_budget_stops_nothing_before_an_answer_is_kept(prompts: list[Prompt], tmp_path: Path) -> None:
    refused = [Completion(finish="too_long"), Completion("", "error", 0, "busy"), Completion(" ", "stop", 1)]
    inner = Answers(*refused, Completion("kept", "stop", 3), *refused, *refused)
    engine = behind_cache(inner, tmp_path, max_minutes=1e-9)
    with pytest.raises(BudgetReached):
        engine.generate(prompts[:10], SAMPLING)
    assert inner.given == 4
    with pytest.raises(BudgetReached):
        behind_cache(Answers(Completion("more", "stop", 1), *refused), tmp_path, max_tokens=1).generate(
            prompts[8:12], SAMPLING
        )


def test_the_last_answer_of_a_batch_stops_nothing(prompts: list[Prompt], tmp_path: Path) -> None:
    engine = behind_cache(Answers(*[Completion("x", "stop", 10)] * 3), tmp_path, max_tokens=30)
    assert len(engine.generate(prompts[:3], SAMPLING)) == 3


def key(prompt: Prompt, sampling: Sampling = SAMPLING, **model: object) -> bytes:
    return answer_keys({**MODEL, **model}, [prompt], sampling)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"text": "Another text."},
        {"messages": (Message("user", "hello"),)},
        {"seed": 1},
        {"constraint": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_question_has_another_key(prompts: list[Prompt], change: dict[str, object]) -> None:
    assert key(replace(prompts[0], **change)) != key(prompts[0])


@pytest.mark.parametrize(
    "change", [{"temperature": 0.1}, {"top_p": 0.5}, {"max_new_tokens": 64}, {"answer": "greedy"}, {"grammar": False}]
)
def test_another_sampling_has_another_key(prompts: list[Prompt], change: dict[str, object]) -> None:
    assert key(prompts[0], Sampling(**change)) != key(prompts[0])


def test_another_model_has_another_key(prompts: list[Prompt]) -> None:
    assert key(prompts[0], files="retrained") != key(prompts[0])


def test_another_form_has_another_key(prompts: list[Prompt]) -> None:
    form = prompts[0].constraint
    assert form is not None
    assert key(replace(prompts[0], constraint=replace(form, passage="Another passage."))) != key(prompts[0])


def test_what_an_answer_does_not_depend_on_changes_no_key(prompts: list[Prompt]) -> None:
    moved = replace(prompts[0], id="x", draw=7, passage=replace(prompts[0].passage, source="b.txt", char_start=9))
    assert key(moved) == key(prompts[0])
    assert key(prompts[0], Sampling(n=5)) == key(prompts[0])
    free = Sampling(grammar=False)
    assert key(replace(prompts[0], constraint=None), free) == key(prompts[0], free)


def test_parts_of_a_question_do_not_run_into_each_other(prompts: list[Prompt]) -> None:
    one = replace(prompts[0], text="", messages=(Message("user", "ab"), Message("user", "c")))
    other = replace(prompts[0], text="", messages=(Message("user", "a"), Message("user", "bc")))
    assert key(one) != key(other)
