"""The words of a text, to compare texts by: the same whichever way Unicode writes them, also where no spaces are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
)
_SPACED_WORDS = re.compile(r"\w+")
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
"""Soft hyphens and the like: where a line may break, no part of a word."""


def words_of(text: str) -> list[str]:
    r"""
    Give the words of a text, case folded; each character is one where a script puts no spaces between words.

    >>> words_of("The Caf\u00e9, cafe\u0301")
    ['the', 'café', 'café']
    """
    if text.isascii():
        return _SPACED_WORDS.findall(text.casefold())
    plain = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return _WORDS.findall(plain.casefold())


def runs_of(words: Sequence[str], size: int) -> Iterator[str]:
    """Give every run of `size` words in a row, as one text."""
    return (" ".join(words[start : start + size]) for start in range(len(words) - size + 1))
