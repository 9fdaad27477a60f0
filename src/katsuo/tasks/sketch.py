"""Well-formed pairs without a model: what the fake engine answers in tests, docs and dry runs."""

from __future__ import annotations

import re

from katsuo.tasks.shapes import PLACEHOLDER, AnswerShape, Labels, Options, Span, Whole

_WORD = re.compile(r"\S+")
_PHRASE_WORDS = 6
_ANSWER_WORDS = 2


def sketch_pair(shape: AnswerShape, passage: str, seed: int) -> str:
    """Give instruction, separator and response of the given shape about words that `seed` picks from the passage."""
    words = list(_WORD.finditer(passage))
    start = seed % max(1, len(words) - _PHRASE_WORDS)
    phrase = words[start : start + _PHRASE_WORDS]
    if isinstance(shape, Span):
        instruction, response = _ask_for_span(phrase, passage)
    else:
        instruction, response = _ask(shape, " ".join(match[0] for match in phrase), seed)
    return f"{instruction}\n<|pipe|>\n{response}"


def _ask_for_span(phrase: list[re.Match[str]], passage: str) -> tuple[str, str]:
    before, answer = phrase[:-_ANSWER_WORDS], phrase[-_ANSWER_WORDS:]
    asked = " ".join(match[0] for match in before)
    response = passage[answer[0].start() : answer[-1].end()] if answer else ""
    return f'{PLACEHOLDER}\n\nWhich words come right after "{asked}"?', response


def _ask(shape: AnswerShape, phrase: str, seed: int) -> tuple[str, str]:
    if isinstance(shape, Labels):
        labels = shape.sets[seed % len(shape.sets)]
        names = ", ".join(labels[:-1]) + f" or {labels[-1]}"
        return f'{PLACEHOLDER}\n\nDoes the text speak of "{phrase}"? Answer {names}.', labels[(seed // 7) % len(labels)]
    if isinstance(shape, Options):
        other = " ".join(reversed(phrase.split())) or "none"
        first, second = (phrase, other) if seed % 2 == 0 else (other, phrase)
        return f"{PLACEHOLDER}\n\nWhich words stand in the text?\nA. {first}\nB. {second}", "AB"[seed % 2]
    if isinstance(shape, Whole):
        return f'Write a text in which "{phrase}" stands.', PLACEHOLDER
    return f'{PLACEHOLDER}\n\nWrite a line about "{phrase}".', f"It says: {phrase}"
