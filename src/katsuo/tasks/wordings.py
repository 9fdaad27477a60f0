"""Other ways to ask the same: read the question out of an instruction and put it into another wording."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from katsuo.tasks.shapes import PLACEHOLDER, AnswerShape, Labels, Span
from katsuo.tasks.task_type import TaskType

REWORDED = ("exqa", "ynqa", "te", "nli")
"""Task types whose instructions are a passage and one question or statement; others say more, which would be lost."""
_PASSAGE, _ASKED = "{passage}", "{asked}"


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What an instruction asks about its passage, free of how it asks.

    `asked` is a question or, where `is_statement`, a statement to be judged; `label` the place of the answer in its set
    of labels, -1 for an answer that is none.
    """

    asked: str
    is_statement: bool = False
    label: int = -1


@dataclass(frozen=True, slots=True)
class Wording:
    """A way to ask, with `{passage}` and `{asked}` in it, and what the labels are called in it, if there are any."""

    text: str
    labels: tuple[str, ...] = ()

    def write(self, asked: Asked, passage: str, response: str) -> tuple[str, str]:
        """Give instruction and response."""
        # The passage goes in last: what looks like a mark in it is text.
        instruction = self.text.replace(_ASKED, asked.asked).replace(_PASSAGE, passage)
        return instruction, self.labels[asked.label] if self.labels else response


FOR_SPANS = tuple(
    Wording(text)
    for text in (
        "{passage}\n\n{asked}",
        "{asked}\n\n{passage}",
        "{passage}\n\nQuestion: {asked}\nAnswer:",
        "Question: {asked}\nText: {passage}\nAnswer:",
        "Read this text and answer the question with words from it.\n\n{passage}\n\n{asked}",
        'Text:\n{passage}\n\nWhich words of the text answer the question "{asked}"?',
        "I would like to know: {asked} Here is what I have:\n\n{passage}",
        "{passage}\n\nSomebody who has read this asks you: {asked}",
        'Find the answer to "{asked}" below and give it in as few words as you can.\n\n{passage}',
        "Passage: {passage}\n\nGive the part of the passage that answers: {asked}",
        "Below are a question and a passage.\nQuestion: {asked}\nPassage: {passage}",
        "You are given a passage, and a question about it. Quote the answer.\n{passage}\n{asked}",
    )
)
FOR_QUESTIONS = (
    Wording("{passage}\n\n{asked}", ("Yes", "No")),
    Wording("{asked}\n\n{passage}", ("Yes", "No")),
    Wording("{passage}\n\nQuestion: {asked} True or false?", ("True", "False")),
    Wording("Text: {passage}\nQuestion: {asked} Yes or no?", ("yes", "no")),
    Wording("{asked} Decide by this text, yes or no.\n\n{passage}", ("yes", "no")),
    Wording("Somebody asks: {asked}\nHere is what is known:\n{passage}\nIs the answer yes or no?", ("Yes", "No")),
    Wording("{passage}\n\nGoing by the text, say yes or no: {asked}", ("Yes", "No")),
    Wording("Answer with true or false.\n{asked}\n\n{passage}", ("True", "False")),
)
FOR_TWO = (
    Wording("{passage}\n\nDoes this follow? {asked} Yes or no?", ("Yes", "No")),
    Wording("{passage}\n\nStatement: {asked}\nTrue or false?", ("True", "False")),
    Wording("Statement: {asked}\nDoes this text say so, yes or no?\n\n{passage}", ("yes", "no")),
    Wording("Read the text.\n{passage}\nThe text makes this true or false: {asked}", ("true", "false")),
    Wording("Text: {passage}\nCan one conclude: {asked} Answer yes or no.", ("Yes", "No")),
    Wording('True or false: "{asked}"\n\n{passage}', ("True", "False")),
)
FOR_THREE = (
    Wording("{passage}\n\nDoes this follow? {asked} Yes, no, or maybe?", ("Yes", "No", "Maybe")),
    Wording("{passage}\n\nStatement: {asked}\nTrue, false, or inconclusive?", ("True", "False", "Inconclusive")),
    Wording("Statement: {asked}\nIs it so, after this text? Yes, no, or maybe.\n\n{passage}", ("yes", "no", "maybe")),
    Wording(
        "Text: {passage}\nStatement: {asked}\nIs it correct, incorrect, or inconclusive?",
        ("Correct", "Incorrect", "Inconclusive"),
    ),
    Wording(
        "Text: {passage}\nHypothesis: {asked}\nentailment, contradiction, or neutral?",
        ("entailment", "contradiction", "neutral"),
    ),
    Wording("Judge by the text alone: true, false, or neither?\n{asked}\n\n{passage}", ("True", "False", "Neither")),
    Wording('Somebody says: "{asked}"\nHere is the source:\n{passage}\nYes, no, or maybe?', ("Yes", "No", "Maybe")),
    Wording("{passage}\n\nWould you call this true, false, or neither? {asked}", ("true", "false", "neither")),
)
"""What the labels stand for comes in the order of the task types' own sets: yes, no and, of three, neither."""

_QUESTION_LINE = re.compile(r"(?:^|\s)(?:Q|Question):\s*(?P<asked>\S.+?\?)", re.S)
_AFTER_COMMA = re.compile(r"(?:context|passage|text|article|below|above)[^,.:?\n]*[,.:]\s*(?P<asked>\S.+?\?)", re.S)
_LINE = re.compile(r"(?P<asked>[^\n.:]+\?)")
_VERBS = "is|are|was|were|do|does|did|can|could|may|must|has|have|had|will|would|should"
_LEAD = r"(?:^|[,.:\n])\s*(?:(?:could|can) you tell me|I wonder)?\s*"
_YES_NO = re.compile(rf"{_LEAD}(?P<asked>(?:{_VERBS})\s[^?\n]{{3,}}\?)", re.I)
_IS_THE_ANSWER = re.compile(r"\bis the answer\b", re.I)
_QUOTED = re.compile(
    r'\b(?:that|claim:|saying|say|assume|infer|is)\s+"(?P<asked>[^\n]{8,})"[\s.?]*(?:is true\W*)?'
    r"(?:[\w, ]+\bor\b [\w ]+\W*|always, sometimes[^\n]*)?$",
)
_NAMED = re.compile(
    rf"(?:\b(?:Question|Statement|consider|Hypothesis|Claim):|\bfollow that)\s*(?!(?i:{_VERBS})\s)"
    r"(?P<asked>\w[^\n]{8,}?[.!]?)(?=\s+(?:True|Yes|Is this|Is it)\b|\n|$)"
)


def read_asked(answer: AnswerShape, instruction: str, response: str) -> Asked | None:
    """
    Give what an instruction, with its placeholder, asks; None where it cannot be told from how it asks.

    A question with a span or with yes or no as its answer, or a statement that is judged.
    """
    if instruction.count(PLACEHOLDER) != 1:
        return None
    written = "\n".join(part.strip() for part in instruction.split(PLACEHOLDER)).strip()
    if isinstance(answer, Span):
        found = _first((_QUESTION_LINE, _AFTER_COMMA, _LINE), written)
        return Asked(_capital(found)) if found else None
    label = label_place(answer, response)
    if not isinstance(answer, Labels) or label < 0:
        return None
    if _IS_THE_ANSWER.search(written):
        return None  # whether a given answer is the right one is no question that stands by itself
    statement = _first((_QUOTED, _NAMED), written)
    if statement and not statement.endswith("?"):
        return Asked(_sentence(statement), is_statement=True, label=label)
    question = _first((_YES_NO,), written)
    return Asked(_capital(question), label=label) if question else None


def wordings_of(asked: Asked, labels: int) -> tuple[Wording, ...]:
    """Give the wordings that fit; `labels` is how many an answer is chosen from, 0 for an answer that is no label."""
    if not labels:
        return FOR_SPANS
    if not asked.is_statement:
        return FOR_QUESTIONS if labels == 2 else ()
    return {2: FOR_TWO, 3: FOR_THREE}.get(labels, ())


def reword(task: TaskType, instruction: str, response: str, passage: str, key: int) -> tuple[str, str] | None:
    """
    Put an instruction about `passage` into the wording that `key` picks; None where it has to stay as it is.

    The question and the answer stay; a label is called as the new wording calls it.
    """
    if task.short not in REWORDED or not passage or instruction.count(passage) != 1:
        return None
    asked = read_asked(task.answer, instruction.replace(passage, PLACEHOLDER), response)
    if asked is None:
        return None
    fitting = wordings_of(asked, len(_own_set(task.answer, response)))
    return fitting[key % len(fitting)].write(asked, passage, response) if fitting else None


def label_place(answer: AnswerShape, response: str) -> int:
    """Give the place of a label in its set, -1 where the answer is no label: yes and true are 0, no and false 1."""
    own = _own_set(answer, response)
    return own.index(_folded(response)) if own else -1


def _own_set(answer: AnswerShape, response: str) -> tuple[str, ...]:
    if not isinstance(answer, Labels):
        return ()
    folded = (tuple(_folded(label) for label in labels) for labels in answer.sets)
    return next((labels for labels in folded if _folded(response) in labels), ())


def _folded(label: str) -> str:
    return label.casefold().strip().rstrip(".")


def _first(patterns: Iterable[re.Pattern[str]], text: str) -> str:
    found = (pattern.search(text) for pattern in patterns)
    return next((one["asked"].strip() for one in found if one), "")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _sentence(text: str) -> str:
    return _capital(text) if text[-1] in ".!?" else f"{_capital(text)}."
