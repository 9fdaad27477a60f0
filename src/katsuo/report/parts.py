"""What a report is made of: sections of words, tables, figures and examples, whatever they are shown as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table: a caption, names of the columns, and rows of words."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A figure to be drawn: which kind, from which values, with the same numbers as a table."""

    kind: str
    caption: str
    values: Any
    data: Table


@dataclass(frozen=True)
class Section:
    """One part of a report."""

    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    examples: Sequence[Mapping[str, str]] = ()
    code: str = ""
    is_folded: bool = False


def signed(value: float) -> str:
    """Write a difference with its sign."""
    shown = f"{abs(value):.1f}"
    return shown if shown == "0.0" else ("+" if value > 0 else "−") + shown


def number(value: float | None, digits: int = 1) -> str:
    """Write a number, or what stands for none."""
    return NOTHING if value is None else f"{value:.{digits}f}"
