"""Cut a passage until its question fits: from the passage's side, never at the answer's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy

from katsuo.evaluate.suites.items import Question

CountTokens = Callable[[Sequence[str]], list[int]]
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"\w+")


def fit(questions: Sequence[Question], limit: int, count_tokens: CountTokens) -> list[str | None]:
    """
    Give for each question the passage that leaves its instruction within `limit` tokens.

    The whole passage where that fits; else its beginning, or the run of words that shares most with `near`, cut at
    words; None where not even an empty passage fits.
    """
    counts = count_tokens([question.instruction() for question in questions])
    return [
        question.item.passage if count <= limit else _cut(question, limit, count_tokens)
        for question, count in zip(questions, counts, strict=True)
    ]


def _cut(question: Question, limit: int, count_tokens: CountTokens) -> str | None:
    passage = question.item.passage
    words = [(found.start(), found.end()) for found in _WORD.finditer(passage)]
    weights = _weights([passage[start:end] for start, end in words], question.item.near)

    def window(size: int) -> str:
        if not size:
            return ""
        start = _best_start(weights, size)
        return passage[words[start][0] : words[start + size - 1][1]]

    low, high = 0, len(words)
    if count_tokens([question.instruction("")])[0] > limit:
        return None
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
