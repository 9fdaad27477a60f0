"""A report as Markdown: the same words and tables; of figures the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from katsuo.report.parts import Section, Table
from katsuo.report.read import Story


def as_markdown(story: Story, sections: Sequence[Section]) -> str:
    """Give the whole page."""
    parts = [f"# {_plain(story.title)}"]
    if verdict := story.results.get("verdict"):
        parts.append(f"**{_plain(verdict)}**")
    for section in sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_plain(word) for word in section.words]
        parts += [_table(table) for table in section.tables]
        parts += [_table(figure.data, figure.caption) for figure in section.figures]
        parts += [_example(one) for one in section.examples]
        if section.code:
            parts.append(_fenced(section.code, "yaml"))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, caption: str = "") -> str:
    lines = [f"| {' | '.join(_cell(one) for one in line)} |" for line in (table.columns, *table.rows)]
    lines.insert(1, f"|{' --- |' * len(table.columns)}")
    return f"*{_plain(caption or table.caption)}*\n\n" + "\n".join(lines)


def _example(one: Mapping[str, str]) -> str:
    return _fenced("\n".join(f"{key}: {value}" for key, value in one.items() if value), "text")


def _fenced(text: str, language: str) -> str:
    """Put text between fences that are longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Keep text of a run from being read as markup."""
    return " ".join(text.split()).replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
