"""Jinja as promptsource's templates know it, without what a stranger's template must not do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from katsuo.records import Reason
from katsuo.templates.marks import CUT

_CUT_AT, _LEEWAY, _END = 2048, 5, "..."  # promptsource's length, Jinja's default leeway
_LONGEST_NUMBER = 4096  # bits
LONGEST = 1_000_000
"""Characters of one rendering, unless a setting says otherwise."""


class RenderError(Exception):
    """Why a template gave nothing for a row; becomes a counted reject, so it never leaves this family of modules."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def cut(value: object) -> str:
    """Cut a text of more than 2,048 characters at the end of a word."""
    text = value if isinstance(value, str) else str(value)
    if len(text) <= _CUT_AT + _LEEWAY:
        return text
    return text[: _CUT_AT - len(_END)].rsplit(" ", 1)[0] + _END


def most_frequent(items: Sequence[Any] | None) -> list[Any] | None:
    """Give every item that occurs as often as the most frequent one, in order of first occurrence."""
    if not items:
        return None
    counts = Counter(items)
    most = max(counts.values())
    return [item for item, count in counts.items() if count == most]


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with promptsource's filters, and without the arithmetic that fills the memory in one step."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, longest: int, choose: Callable[[Sequence[Any]], Any]) -> None:
        super().__init__(cache_size=0)
        self._longest = longest
        self.globals = {name: self.globals[name] for name in ("range", "dict", "cycler", "joiner", "namespace")}
        self.globals["zip"] = zip
        self.filters.update({CUT: cut, "choice": choose, "random": choose, "most_frequent": most_frequent})
        for name in ("center", "indent", "format", "replace"):
            self.filters[name] = _within(self.filters[name], longest)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse at once what Jinja would print as nothing."""
        raise SecurityError(f'"{attribute}" of a {type(obj).__name__} is not for templates')

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse an operation whose result would be out of proportion."""
        size = _result_size(operator, left, right)
        if size > self._longest:
            raise RenderError(Reason.OUTPUT_LIMIT, f'"{operator}" would give {size:,} items or bits')
        return super().call_binop(context, operator, left, right)


def _result_size(operator: str, left: Any, right: Any) -> int:
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return 0 if left.bit_length() * abs(right) <= _LONGEST_NUMBER else left.bit_length() * abs(right) << 20
    if operator == "*":
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() + right.bit_length()
            return 0 if bits <= _LONGEST_NUMBER else bits << 20
        for many, times in ((left, right), (right, left)):
            if hasattr(many, "__len__") and isinstance(times, int):
                return len(many) * times
    if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        return len(left) + len(right)
    if operator == "%" and isinstance(left, str):
        return _widest(left)
    return 0


def _widest(text: str) -> int:
    """Give the largest number in a format: the width that it may ask for; a width from outside counts as too wide."""
    widths = (int(number[:12]) for number in re.findall(r"\d+", text))
    return 1 << 60 if re.search(r"%[^a-zA-Z%]*\*", text) else max(widths, default=0)


def _within(filter_function: Callable[..., Any], limit: int) -> Callable[..., Any]:
    """Refuse a text filter that is asked for a width, or would make a text, beyond the limit."""

    def guarded(*arguments: Any, **named: Any) -> Any:
        given = [*arguments, *named.values()]
        texts = [value for value in given if isinstance(value, str)]
        numbers = [value for value in given if isinstance(value, int)]
        if max(numbers, default=0) > limit or (texts and _widest(texts[0]) > limit and "%" in texts[0]):
            raise RenderError(Reason.OUTPUT_LIMIT, "a filter was asked for a huge width")
        if len(texts) >= 3 and len(texts[0]) * max(len(texts[2]), 1) > limit * 10:
            raise RenderError(Reason.OUTPUT_LIMIT, "a replacement would be huge")
        return filter_function(*arguments, **named)

    for mark in ("jinja_pass_arg",):  # how Jinja knows that a filter wants the environment or its settings
        if hasattr(filter_function, mark):
            setattr(guarded, mark, getattr(filter_function, mark))
    return guarded
