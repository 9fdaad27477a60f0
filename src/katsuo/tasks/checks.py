"""Pure predicates: a draft of an example in, None or the reason of its rejection out."""

from __future__ import annotations

import re
from functools import lru_cache

from katsuo.records import Reason
from katsuo.tasks.shapes import PLACEHOLDER, Labels, allowed_answers, find_options
from katsuo.tasks.task_type import Draft, Worked

_WORDS = re.compile(r"\w+")
_TEMPLATE_WORDS = frozenset(
    """
    about above according after also and answer are article based because been before below between but can choose
    context correct could document does each false follow following for from given generate give had has have how
    if imply infer inference instruction into is it its maybe more most must neither not of on one only option
    options or paragraph passage possible question read reading refer refers same sentence should some such text
    than that the their them then there these they this those to true using was were what when where whether which
    who whom whose why will with word would write yes you your
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
"""Words that templates bring along, so that sharing them says nothing about the passage."""


def content_words(text: str) -> set[str]:
    """Give the words of a text that carry content: at least three letters or a digit, and no template word."""
    words = _WORDS.findall(text.casefold())
    return {word for word in words if (len(word) >= 3 or word.isdigit()) and word not in _TEMPLATE_WORDS}


def normalise(text: str) -> str:
    """Fold case and white space and drop punctuation: what counts when two short texts are compared."""
    return " ".join(_WORDS.findall(text.casefold()))


def refers_to_passage(draft: Draft) -> Reason | None:
    """Ask for the placeholder in one of the two parts. Does not measure whether it stands in a sensible place."""
    if PLACEHOLDER in draft.instruction or PLACEHOLDER in draft.response:
        return None
    return Reason.NO_PLACEHOLDER


def not_copied(draft: Draft) -> Reason | None:
    """Refuse the worked example's own instruction on another passage. Does not measure a reworded copy."""
    if normalise(draft.instruction) not in _specific_instructions(draft.task.examples):
        return None
    is_own = any(example.passage == draft.passage for example in draft.task.examples)
    return None if is_own else Reason.COPIES_EXAMPLE


@lru_cache(maxsize=256)
def _specific_instructions(examples: tuple[Worked, ...]) -> frozenset[str]:
    """Give the instructions that speak of their own passage; a bare template may well be used again."""
    return frozenset(
        normalise(example.instruction)
        for example in examples
        if content_words(example.instruction.replace(PLACEHOLDER, " ")) & content_words(example.passage)
    )


def about_passage(draft: Draft) -> Reason | None:
    """Ask for a content word that instruction and passage share. Does not measure sense."""
    return _shares_words(draft.instruction, draft.passage)


def response_about_passage(draft: Draft) -> Reason | None:
    """Ask for a content word that response and passage share. Does not measure whether the response is true."""
    return _shares_words(draft.response, draft.passage)


def _shares_words(written: str, passage: str) -> Reason | None:
    words = content_words(written.replace(PLACEHOLDER, " "))
    folded = passage.casefold()
    if any(word in folded for word in words):
        return None
    return Reason.OFF_TOPIC


def answer_in_passage(draft: Draft) -> Reason | None:
    """Ask for a response that stands in the passage, white space aside. Does not measure whether it is the answer."""
    if draft.response in draft.passage:
        return None
    answer, passage = " ".join(draft.response.split()), " ".join(draft.passage.split())
    return None if answer in passage else Reason.NOT_IN_PASSAGE


def not_given_away(draft: Draft) -> Reason | None:
    """Refuse a question that already holds its answer. Does not measure hints."""
    answer = normalise(draft.response)
    asked = normalise(draft.instruction.replace(PLACEHOLDER, " "))
    return Reason.ANSWER_GIVEN_AWAY if answer and f" {answer} " in f" {asked} " else None


def is_whole_passage(draft: Draft) -> Reason | None:
    """Ask for the placeholder, and nothing else, as the response. Does not measure whether the instruction fits."""
    if PLACEHOLDER in draft.instruction:
        return Reason.ANSWER_GIVEN_AWAY
    return None if draft.response == PLACEHOLDER else Reason.NOT_WHOLE_PASSAGE


def answer_in_labels(draft: Draft) -> Reason | None:
    """Ask for a label of the set that the instruction names. Does not measure whether it is the right label."""
    shape = draft.task.answer
    assert isinstance(shape, Labels), "only for task types whose answer is a label"  # our own table
    answer = draft.response.casefold().rstrip(".")
    allowed = (label.casefold() for label in shape.allowed(draft.instruction))
    return None if answer in allowed else Reason.NOT_IN_CHOICES


def answer_an_option(draft: Draft) -> Reason | None:
    """Ask for two different options and a response that is one. Does not measure whether it is the right one."""
    allowed = allowed_answers(options := find_options(draft.instruction))
    if len({option.text.casefold() for option in options}) < max(2, len(options)):
        return Reason.NO_OPTIONS
    answer = normalise(draft.response)
    return None if any(answer == normalise(option) for option in allowed) else Reason.NOT_AN_OPTION


def first_failure(draft: Draft) -> Reason | None:
    """Run the checks of the draft's task type in order; give the first reason, None if all pass."""
    for check in draft.task.checks:
        reason = check(draft)
        if reason:
            return reason
    return None
