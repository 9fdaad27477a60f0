"""Well-formed pairs without a model: what the fake engine answers in tests, docs and dry runs."""

from __future__ import annotations

import re

from katsuo.tasks.shapes import PLACEHOLDER, AnswerShape, Labels, Options, Span

_TOKENS = re.compile(r"\S+")
_PHRASE_WORDS = 6


def sketch_pair(shape: AnswerShape, passage: str, seed: int) -> str:
    """Give instruction, separator and response of the given shape about words that `seed` picks from the passage."""
    words = _TOKENS.findall(passage)
    start = seed % max(1, len(words) - _PHRASE_WORDS)
    phrase = " ".join(words[start : start + _PHRASE_WORDS])
    instruction, response = _fill(shape, phrase, words, seed)
    return f"{instruction}\n<|pipe|>\n{response}"


def _fill(shape: AnswerShape, phrase: str, words: list[str], seed: int) -> tuple[str, str]:
    if isinstance(shape, Span):
        head, tail = phrase.split()[:-2], phrase.split()[-2:]
        return f'{PLACEHOLDER}\n\nWhich words come right after "{" ".join(head)}"?', " ".join(tail)
    if isinstance(shape, Labels):
        labels = shape.sets[seed % len(shape.sets)]
        names = ", ".join(labels[:-1]) + f" or {labels[-1]}"
        return f'{PLACEHOLDER}\n\nDoes the text speak of "{phrase}"? Answer {names}.', labels[(seed // 7) % len(labels)]
    if isinstance(shape, Options):
        other = " ".join(reversed(phrase.split())) or "none"
        right = seed % 2
        first, second = (phrase, other) if right == 0 else (other, phrase)
        return f"{PLACEHOLDER}\n\nWhich words stand in the text?\nA. {first}\nB. {second}", "AB"[right]
    return f'{PLACEHOLDER}\n\nWrite a line about "{phrase}".', " ".join(words[: 2 * _PHRASE_WORDS]) or "nothing"
