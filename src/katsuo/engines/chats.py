"""A rendered chat in pieces: the template's own text, where control tokens count, and messages, where none do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from jinja2 import TemplateRuntimeError

_STAND_IN = "\ue000{}\ue001"
"""Stands for a message while the template is rendered: characters of private use, with the message's number."""
_STOOD_IN = re.compile(_STAND_IN.format("([0-9]+)"))


def stand_ins(count: int) -> list[str]:
    """Give what is to stand for so many messages while their template is rendered."""
    return [_STAND_IN.format(number) for number in range(count)]


def pieces(rendered: str, contents: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """
    Give the pieces of a chat rendered with stand-ins, in order, each with whether it is the template's own.

    The order is the template's: some write the system turn where the last question begins. Raise `TemplateError` of
    Jinja for a template that leaves a message out.
    """
    parts = _STOOD_IN.split(rendered)
    missing = {*range(len(contents))} - {int(number) for number in parts[1::2]}
    if missing:
        raise TemplateRuntimeError(f"it leaves out message {min(missing) + 1} of {len(contents)}")
    for place, part in enumerate(parts):
        if place % 2:
            yield contents[int(part)].strip(), False
        else:
            yield part, True


def after_answer(rendered: str) -> str:
    """Give what a template writes after the last of its messages, an answer that was rendered as a stand-in."""
    return rendered.rpartition(_STAND_IN[-1])[2]
