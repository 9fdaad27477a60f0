"""General abilities: requests are judged by form alone, and what is measured can be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from katsuo.engines.fake import FakeEngine
from katsuo.errors import EngineError
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.system import System
from katsuo.experiment.general import general_requests, general_texts, measure
from katsuo.experiment.settings import Forgetting

FOLLOWED = {
    "opposite of hot": "Cold.",
    "ice colder": "yes",
    "three colours": "red, green, blue",
    "numbers from 1 to 5": "1\n2\n3\n4\n5",
    "two vegetables": "- beans\n- carrots",
    "question about rain": "Will it rain?",
    "dogs in capital": "DOGS BARK.",
    '"name" and "age"': '{"name": "Ann", "age": 3}',
    "lantern": "Lantern",
    "twelve": "12",
    "thank you": "Thank you so much!",
}
NOT_FOLLOWED = {
    "opposite of hot": "It is cold.",
    "ice colder": "yes, it is",
    "three colours": "red\ngreen\nblue",
    "numbers from 1 to 5": "1, 2, 3, 4, 5",
    "two vegetables": "beans and carrots",
    "question about rain": "It rains.",
    "dogs in capital": "Dogs BARK.",
    '"name" and "age"': '```json\n{"name": "Ann", "age": 3}\n```',
    "lantern": "the lantern",
    "twelve": "twelve",
    "thank you": "Thank you.",
}


@pytest.mark.parametrize(("answers", "wanted"), [(FOLLOWED, True), (NOT_FOLLOWED, False)], ids=["right", "wrong"])
def test_a_request_is_followed_when_the_answer_has_its_form(answers: dict[str, str], wanted: bool) -> None:
    for part, answer in answers.items():
        request = next(one for one in general_requests() if part in one.ask)
        assert request.is_followed(answer) is wanted, request.ask


def test_an_empty_answer_follows_no_request() -> None:
    assert not [request.ask for request in general_requests() if request.is_followed("")]


def test_texts_and_requests_are_measured_one_by_one(tmp_path: Path) -> None:
    measure(System("fake"), tmp_path, EvaluateSettings(engine="fake"), Forgetting())
    told = json.loads((tmp_path / "general.json").read_text())
    assert len(told["texts"]) == len(general_texts()) >= 10
    assert len(told["requests"]) == len(general_requests()) >= 20
    assert all(one["tokens"] > 20 for one in told["texts"])


@pytest.mark.parametrize("method", ["generate", "score"])
def test_a_question_that_was_not_answered_is_no_sign_of_forgetting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    answered = getattr(FakeEngine, method)

    def refused(self: FakeEngine, *asked: Any) -> list[Any]:
        first, *others = answered(self, *asked)
        return [replace(first, finish="error", error="the credit is used up"), *others]

    monkeypatch.setattr(FakeEngine, method, refused)
    with pytest.raises(EngineError, match="a general question was not answered: the credit is used up"):
        measure(System("fake"), tmp_path, EvaluateSettings(engine="fake"), Forgetting())
    assert not (tmp_path / "general.json").exists()


def test_a_model_that_gives_no_number_has_no_perplexity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = FakeEngine.score

    def without(self: FakeEngine, asked: Any) -> list[Any]:
        first, *others = scored(self, asked)
        return [replace(first, log_probabilities=(float("nan"),)), *others]

    monkeypatch.setattr(FakeEngine, "score", without)
    with pytest.raises(EngineError, match="no number for a general text"):
        measure(System("fake"), tmp_path, EvaluateSettings(engine="fake"), Forgetting())
    assert not (tmp_path / "general.json").exists()
