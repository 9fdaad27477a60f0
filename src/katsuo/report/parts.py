"""What a report is made of: sections of words, tables, figures and examples, whatever they are shown as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """
    A table: a caption, names of the columns, and rows of words.

    In one of numbers every cell but the first of a row is a number; what stands in brackets after it, or after the
    row's name, is said more softly where that can be.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_numbers: bool = False
    is_folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure to be drawn: which kind, from which values, with the same numbers as a table."""

    kind: str
    caption: str
    values: Any
    data: Table


@dataclass(frozen=True)
class Section:
    """One part of a report; of a lead, tables and figures stand side by side where there is room."""

    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    examples: Sequence[Mapping[str, str]] = ()
    code: str = ""
    is_folded: bool = False
    is_lead: bool = False


def signed(value: float, digits: int = 1) -> str:
    """Write a difference with its sign."""
    shown = f"{abs(value):.{digits}f}"
    return shown if not float(shown) else ("+" if value > 0 else "−") + shown


def number(value: float | None, digits: int = 1) -> str:
    """Write a number, or what stands for none."""
    return NOTHING if value is None else f"{value:.{digits}f}"
