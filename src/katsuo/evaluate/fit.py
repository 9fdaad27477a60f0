"""Cut a passage until its question fits: from the passage's side, never at the answer's."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from katsuo.evaluate.suites.items import Question
from katsuo.pipeline.words import words_of

CountTokens = Callable[[Sequence[str]], list[int]]
_WORD = re.compile(r"\S+")
_CHARACTER = re.compile(r"\S")
_LETTERS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is left of a passage, None where not even an empty one fits, and the tokens of its instruction."""

    passage: str | None
    tokens: int


def fit(questions: Sequence[Question], limit: int, count_tokens: CountTokens) -> list[Fitted]:
    """
    Give for each question the passage that leaves its instruction within `limit` tokens.

    The whole passage where that fits; else its beginning, or the run of words that shares most with `near`, cut at
    words, or at characters where not even one word fits. All questions about one item get the same part of its passage,
    that which fits the longest of them: so they are asked about the same text, and begin alike.
    """
    counts = count_tokens([question.instruction() for question in questions])
    fitted = [Fitted(one.item.passage, count) for one, count in zip(questions, counts, strict=True)]
    groups: dict[int, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        groups[question.item.row].append(place)
    for places in groups.values():
        if max(counts[place] for place in places) > limit:
            asked = [questions[place] for place in places]
            for place, one in zip(places, _fit_together(asked, limit, count_tokens), strict=True):
                fitted[place] = one
    return fitted


def _fit_together(questions: Sequence[Question], limit: int, count_tokens: CountTokens) -> list[Fitted]:
    """Cut by the question that leaves least room; one that does not fit even so is cut by itself."""
    frames = count_tokens([question.instruction("") for question in questions])
    passage = _cut(questions[frames.index(max(frames))], limit, count_tokens)
    shared = passage or ""
    counts = count_tokens([question.instruction(shared) for question in questions])
    return [
        Fitted(passage, count) if passage is not None and count <= limit else _fit_alone(question, limit, count_tokens)
        for question, count in zip(questions, counts, strict=True)
    ]


def _fit_alone(question: Question, limit: int, count_tokens: CountTokens) -> Fitted:
    passage = _cut(question, limit, count_tokens)
    return Fitted(passage, count_tokens([question.instruction(passage or "")])[0])


def _cut(question: Question, limit: int, count_tokens: CountTokens) -> str | None:
    if count_tokens([question.instruction("")])[0] > limit:
        return None
    passage, near = question.item.passage, question.item.near
    words = [found.span() for found in _WORD.finditer(passage)]
    weights = _weights([passage[start:end] for start, end in words], near)
    if cut := _largest(question, words, weights, limit, count_tokens):
        return cut
    # Not even one word fits: a script without spaces, or no words at all.
    characters = [found.span() for found in _CHARACTER.finditer(passage)]
    shared = {word for word in words_of(near) if len(word) == 1}
    return _largest(question, characters, [float(passage[at] in shared) for at, _ in characters], limit, count_tokens)


def _largest(
    question: Question, pieces: Sequence[tuple[int, int]], weights: Sequence[float], limit: int,
    count_tokens: CountTokens,
) -> str:  # fmt: skip
    """Give as many pieces of the passage in a row as fit, those that weigh most; nothing where not even one fits."""
    passage = question.item.passage

    def window(size: int) -> str:
        if not size:
            return ""
        start = _best_start(weights, size)
        return passage[pieces[start][0] : pieces[start + size - 1][1]]

    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens([question.instruction(window(middle))])[0] <= limit:
            low = middle
        else:
            high = middle - 1
    return window(low)


def _weights(words: Sequence[str], near: str) -> list[float]:
    """Weigh each word of a passage: those of `near` by how rare they are in the passage, all others nothing."""
    wanted = {word for word in _LETTERS.findall(near.casefold()) if len(word) > 2}
    plain = [_LETTERS.findall(word.casefold()) for word in words]
    counts = Counter(letter for letters in plain for letter in letters)
    return [sum(1.0 / counts[letter] for letter in letters if letter in wanted) for letters in plain]


def _best_start(weights: Sequence[float], size: int) -> int:
    """Give where the heaviest run of `size` words begins; of equally heavy ones the first."""
    total = numpy.concatenate([[0.0], numpy.cumsum(weights)])
    return int((total[size:] - total[:-size]).round(9).argmax())
