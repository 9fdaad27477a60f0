"""How the pairs, findings and counts of `katsuo ctga` look on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from katsuo.ctga.check import Finding
from katsuo.ctga.remix import Pair

_SECONDS_BETWEEN_LINES = 10.0


class ShardProgress:
    """A bar on a terminal, a plain line every ten seconds elsewhere; both on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._is_quiet, self._pairs, self._began, self._last = quiet, 0, time.monotonic(), time.monotonic()
        self._bar = Progress(
            TextColumn("shards"), BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeRemainingColumn(), console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> ShardProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, of: int, marker: Mapping[str, Any]) -> None:
        """Show that one more shard is done."""
        now = time.monotonic()
        self._pairs += sum(count for _, _, count in marker["pairs"])
        rate = f"{self._pairs / max(now - self._began, 1e-6):,.0f} pairs/s"
        self._bar.update(self._task, completed=done, total=of, description=rate)
        if self._bar.disable and not self._is_quiet and now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            sys.stderr.write(f"{done} of {of} shards, {rate}\n")


def print_pair(pair: Pair) -> None:
    """Print one pair: text dim, response green, placeholder marked."""
    place = f"{pair.dataset}/{pair.config}".rstrip("/")
    text = Text.assemble((f"{pair.task_type}", "bold cyan"), (f"  {place} · {pair.template} · row {pair.row}\n", "dim"))
    parts = ((pair.context, "dim"), (pair.task_input, ""), (pair.task_output, "green"))
    for (part, style), name in zip(parts, ("text", "instruction", "response"), strict=True):
        text.append(f"{name}: ", "bold").append(f"{part}\n", style)
    text.highlight_words(["{{context}}"], "magenta")
    Console().print(text, soft_wrap=True)


def print_ledger(by_type: Mapping[str, int], lost: Mapping[str, int], drawn: int) -> None:
    """Print pairs by task type and rejects by reason; the two add up to what was drawn."""
    pairs = sum(by_type.values())
    print_table(("task type", "pairs", "share"), [(name, n, f"{n / pairs:.1%}") for name, n in by_type.items()])
    print_table(("rejected", "drawings"), list(lost.items()))
    Console().print(f"{drawn:,} drawn = {pairs:,} pairs + {sum(lost.values()):,} rejected", highlight=False)


def print_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print a table, if it has rows."""
    table = Table(show_edge=False, pad_edge=False)
    for place, name in enumerate(head):
        is_count = bool(rows) and isinstance(rows[0][place], int | float)
        table.add_column(name, justify="right" if is_count else "left")
    for row in rows:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in row))
    if rows:
        Console().print(table)


def print_finding(finding: Finding) -> None:
    """Print what is wrong, where, and what to do."""
    mark = ("error ", "bold red") if finding.is_error else ("note ", "yellow")
    Console().print(Text.assemble(mark, f"{finding.where}: {finding.problem}\n  → {finding.cure}"), soft_wrap=True)
