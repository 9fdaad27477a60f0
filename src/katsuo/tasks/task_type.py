"""What a task type is made of, and the draft of an example that its checks judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from katsuo.records import Reason
from katsuo.tasks.shapes import AnswerShape, Frame, Text


@dataclass(frozen=True)
class Worked:
    """A worked example: `instruction` holds `{{context}}` where the passage is to stand."""

    passage: str
    instruction: str
    response: str


@dataclass(frozen=True)
class TaskType:
    """One task type: how it is called, what an answer may be, what is checked, and worked examples."""

    name: str
    short: str
    description: str
    answer: AnswerShape
    checks: tuple[Check, ...]
    examples: tuple[Worked, ...]
    frame: Frame | None = None

    @property
    def has_free_answer(self) -> bool:
        """True where two answers to one instruction may both be good; elsewhere the second one is a repetition."""
        return isinstance(self.answer, Text)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is judged: the pair as the model wrote it, placeholder and all, and the passage it is about."""

    task: TaskType
    passage: str
    instruction: str
    response: str


Check = Callable[[Draft], Reason | None]
"""A pure predicate: None, or the reason of a rejection."""
