"""
What an adaptation may cost: general text, simple requests, and tasks of other types, before and after.

Does not measure knowledge beyond the suites given, long answers, or other languages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from katsuo.config import Sampling
from katsuo.engines import CanScore, Choices, Scores
from katsuo.errors import EngineError
from katsuo.evaluate.ask import Examiner, check_numbers
from katsuo.evaluate.judge import judge, read_sheet
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import load_suite
from katsuo.evaluate.system import System, open_examiner
from katsuo.experiment.settings import Forgetting
from katsuo.places import write_json
from katsuo.records import Completion, Passage, Prompt
from katsuo.tasks.style import Asked

GENERAL = "general.json"
SUITES = "suites"
_LONGEST_ANSWER = 48


@dataclass(frozen=True)
class Request:
    """A simple request and the form that an answer to it has."""

    ask: str
    form: re.Pattern[str]

    def is_followed(self, answer: str) -> bool:
        """Say whether an answer has the form that was asked for; whether it is right is not looked at."""
        return self.form.fullmatch(answer.strip()) is not None


def general_texts() -> list[str]:
    """Give short general texts."""
    return [str(text) for text in _told()["texts"]]


def general_requests() -> list[Request]:
    """Give simple requests whose answers a pattern can judge."""
    return [Request(one["ask"], re.compile(one["form"])) for one in _told()["requests"]]


def measure(system: System, output: Path, settings: EvaluateSettings, forgetting: Forgetting) -> None:
    """Write what a system still can: scores on general suites, perplexity, requests followed."""
    if forgetting.suites:
        usual = settings.model_copy(update={"limit": forgetting.limit, "templates": None})
        data = Path(forgetting.data) if forgetting.data else None
        sheets = [read_sheet(load_suite(name), data, usual) for name in forgetting.suites]
        judge(system, sheets, output / SUITES, usual)
    told: dict[str, Any] = {"suites": list(forgetting.suites)}
    if forgetting.built_in:
        examiner, _ = open_examiner(system, settings)
        told |= {"texts": _read_texts(examiner), "requests": _make_requests(examiner)}
    write_json(output / GENERAL, told)


def _read_texts(examiner: Examiner) -> list[dict[str, float]]:
    """Give for each text its negative log-probability and its tokens; nothing for an engine that cannot score."""
    if not isinstance(examiner.engine, CanScore):
        return []
    texts = general_texts()
    asked = [Choices(_prompt(f"text-{place}"), (text,), has_end=False) for place, text in enumerate(texts)]
    scores = examiner.engine.score(asked)
    for one in scores:
        _check_answered(one)
        check_numbers(one, "a general text")
    return [{"nats": -one.log_probabilities[0], "tokens": one.tokens[0]} for one in scores]


def _make_requests(examiner: Examiner) -> list[dict[str, Any]]:
    requests = general_requests()
    sampling = Sampling(temperature=0.0, max_new_tokens=_LONGEST_ANSWER, grammar=False)
    prompts = [_prompt(f"request-{place}", examiner.ask(one.ask)) for place, one in enumerate(requests)]
    answers = examiner.engine.generate(prompts, sampling)
    for one in answers:
        _check_answered(one)
    return [
        {"ask": request.ask, "answer": answer.text.strip(), "followed": request.is_followed(answer.text)}
        for request, answer in zip(requests, answers, strict=True)
    ]


def _check_answered(one: Completion | Scores) -> None:
    """Raise `EngineError` for a question that was not answered: it says nothing about what a model has forgotten."""
    if one.finish not in ("stop", "length"):
        raise EngineError(
            f"a general question was not answered: {one.error or one.finish}", hint="give the same command again"
        )


def _prompt(name: str, asked: Asked = "") -> Prompt:
    passage = Passage(name, "", "", 0, 0)
    if isinstance(asked, str):
        return Prompt(name, passage, "", 0, 0, text=asked)
    return Prompt(name, passage, "", 0, 0, messages=asked)


def _told() -> dict[str, Any]:
    text = (resources.files(__package__) / "general.yaml").read_text(encoding="utf-8")
    told: dict[str, Any] = yaml.safe_load(text)
    return told
