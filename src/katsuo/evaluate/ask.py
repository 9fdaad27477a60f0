"""Put questions to an engine: choices are ranked by their log-probabilities, free answers written greedily."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from katsuo.config import Sampling
from katsuo.engines import CanGenerate, CanScore, Choices, Scores
from katsuo.errors import EngineError, UsageError
from katsuo.evaluate.fit import CountTokens, fit
from katsuo.evaluate.metrics import exact_match, token_f1
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites.items import Question
from katsuo.records import Completion, Message, Passage, Prompt
from katsuo.tasks.style import Asked

ROOM_FOR_TURNS = 64
"""Tokens that a chat template may put around an instruction."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """
    What a model made of one question.

    `score` is 100 or 0 for a ranked choice and the token F1 for a written answer; `cut_chars` is how much of the
    passage was left out, `prompt_tokens` those of the instruction. `choice` and `gold_choice` are places among
    `choices`, -1 for a written answer.
    """

    item: str
    row: int
    template: str
    prediction: str
    golds: tuple[str, ...]
    score: float
    exact: float
    choice: int = -1
    gold_choice: int = -1
    choices: tuple[str, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    choice_tokens: tuple[int, ...] = ()
    cut_chars: int = 0
    prompt_tokens: int = 0


@dataclass(frozen=True)
class Examiner:
    """Ask one engine in one style under one set of settings."""

    engine: CanGenerate
    ask: Callable[[str], Asked]
    is_chat: bool
    settings: EvaluateSettings
    count_tokens: CountTokens

    def examine(self, questions: Sequence[Question]) -> list[Prediction]:
        """Give one prediction per question, in order; raise `EngineError` for one that cannot be answered."""
        asked = self._fitted(questions)
        if questions and questions[0].choices:
            return self._rank(asked)
        return self._write(asked)

    def check(self, *, is_ranked: bool) -> None:
        """Raise `UsageError` for an engine that can not do what is asked."""
        if is_ranked and not isinstance(self.engine, CanScore):
            raise UsageError(
                f'"{self.engine.info.model}" behind the engine "{self.settings.engine}" gives no log-probabilities, '
                "which ranking needs",
                hint="use --engine hf, or a server that tells them: vLLM, SGLang or llama.cpp",
            )

    def choices(self, question: Question, instruction: str) -> Choices:
        """Give a ranked question as an engine takes it."""
        prompt = _prompt(question, self.ask(instruction))
        return Choices(prompt, question.choices, has_end=self.has_end(question.choices))

    def has_end(self, choices: Sequence[str]) -> bool:
        """Say whether the end of the answer is scored."""
        if self.settings.eos != "auto":
            return self.settings.eos == "yes"
        # Without its end, a choice that another one begins with can never lose to it.
        is_begun = any(one != other and other.startswith(one) for one in choices for other in choices)
        return not self.is_chat or is_begun

    def instructions(self, questions: Sequence[Question]) -> list[str]:
        """Write the instructions, each cut from its passage's side until it fits."""
        return [one.instruction for one in self._fitted(questions)]

    def _fitted(self, questions: Sequence[Question]) -> list[_Fitted]:
        room = self.engine.info.context_tokens - ROOM_FOR_TURNS - self._longest_answer(questions)
        limit = min(self.settings.max_prompt_tokens, room)
        found = []
        for question, fitted in zip(questions, fit(questions, limit, self.count_tokens), strict=True):
            if fitted.passage is None:
                raise UsageError(
                    f'template "{question.template}" alone is longer than {limit} tokens for row {question.item.row}',
                    hint="raise --max-prompt-tokens, or use a model with a longer context",
                )
            found.append(_Fitted(question, question.instruction(fitted.passage), fitted.tokens))
        return found

    def _longest_answer(self, questions: Sequence[Question]) -> int:
        choices = list({choice for question in questions for choice in question.choices})
        return max(self.count_tokens(choices)) + 2 if choices else self.settings.max_new_tokens

    def _rank(self, asked: Sequence[_Fitted]) -> list[Prediction]:
        assert isinstance(self.engine, CanScore)
        outcomes = self.engine.score([self.choices(one.question, one.instruction) for one in asked])
        return [self._ranked(*pair) for pair in zip(asked, outcomes, strict=True)]

    def _ranked(self, asked: _Fitted, scores: Scores) -> Prediction:
        question = asked.question
        if scores.finish != "stop":
            raise EngineError(
                f'row {question.item.row} with template "{question.template}" cannot be scored: '
                f"{scores.error or 'it is too long for the model'}",
                hint="lower --max-prompt-tokens",
            )
        check_numbers(scores, f'row {question.item.row} with template "{question.template}"')
        values = normalised(scores, question.choices, self.settings.normalise)
        choice = values.index(max(values))
        is_right = 100.0 * (choice == question.gold)
        return Prediction(
            question.item.id, question.item.row, question.template, question.choices[choice], question.item.golds,
            is_right, is_right, choice, question.gold, question.choices, scores.log_probabilities, scores.tokens,
            cut_chars=asked.cut_chars, prompt_tokens=asked.tokens,
        )  # fmt: skip

    def _write(self, asked: Sequence[_Fitted]) -> list[Prediction]:
        sampling = Sampling(temperature=0.0, max_new_tokens=self.settings.max_new_tokens, grammar=False)
        outcomes = self.engine.generate([_prompt(one.question, self.ask(one.instruction)) for one in asked], sampling)
        return [self._written(*pair) for pair in zip(asked, outcomes, strict=True)]

    def _written(self, asked: _Fitted, completion: Completion) -> Prediction:
        question = asked.question
        if completion.finish not in ("stop", "length"):
            raise EngineError(
                f'row {question.item.row} with template "{question.template}" cannot be answered: '
                f"{completion.error or 'it is too long for the model'}",
                hint="lower --max-prompt-tokens",
            )
        golds = question.item.golds[:1] if self.settings.first_gold else question.item.golds
        text = completion.text.strip()
        return Prediction(
            question.item.id, question.item.row, question.template, text, golds, token_f1(golds, text),
            exact_match(golds, text), cut_chars=asked.cut_chars, prompt_tokens=asked.tokens,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A question as it is asked."""

    question: Question
    instruction: str
    tokens: int

    @property
    def cut_chars(self) -> int:
        return len(self.question.instruction()) - len(self.instruction)


def check_numbers(scores: Scores, what: str) -> None:
    """Raise `EngineError` for log-probabilities that are no numbers; what cannot be (minus infinity) is one."""
    if any(math.isnan(value) for value in scores.log_probabilities):
        raise EngineError(
            f"the model gives no number for {what}: its log-probabilities are NaN",
            hint="its number format may be too narrow: set engine_options.dtype (--dtype) to bfloat16 or float32",
        )


def normalised(scores: Scores, choices: Sequence[str], by: str) -> list[float]:
    """Give the choices' log-probabilities, as they are or divided by their length."""
    lengths: Sequence[int] = [1] * len(choices)
    if by == "tokens":
        lengths = scores.tokens
    elif by == "bytes":
        lengths = [len(choice.encode()) for choice in choices]
    return [value / length for value, length in zip(scores.log_probabilities, lengths, strict=True)]


def _prompt(question: Question, asked: Asked) -> Prompt:
    item = question.item
    place = Passage(item.id, "", "", 0, 0)
    messages: tuple[Message, ...] = () if isinstance(asked, str) else asked
    return Prompt(item.id, place, "", 0, 0, text=asked if isinstance(asked, str) else "", messages=messages)
