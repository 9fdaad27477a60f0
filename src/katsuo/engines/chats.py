"""A rendered chat in pieces: the template's own text, where control tokens count, and messages, where none do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_STAND_IN = "\ue000{}\ue001"
"""Stands for a message while the template is rendered: characters of private use, with the message's number."""


def stand_ins(count: int) -> list[str]:
    """Give what is to stand for so many messages while their template is rendered."""
    return [_STAND_IN.format(number) for number in range(count)]


def pieces(rendered: str, contents: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Give the pieces of a chat rendered with stand-ins, in order, each with whether it is the template's own."""
    rest = rendered
    for content, mark in zip(contents, stand_ins(len(contents)), strict=True):
        before, _, rest = rest.partition(mark)
        yield before, True
        yield content.strip(), False
    yield rest, True


def after_answer(rendered: str) -> str:
    """Give what a template writes after the last of its messages, an answer that was rendered as a stand-in."""
    return rendered.rpartition(_STAND_IN[-1])[2]
