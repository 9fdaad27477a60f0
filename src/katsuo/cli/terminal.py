"""How runs, examples and progress look on a terminal of 80 columns."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from katsuo.generation import Progress as Step
from katsuo.records import Example, Reject, Summary

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLines:
    """A progress bar on a terminal, a plain line every ten seconds elsewhere; both on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._stage = ""
        self._task = self._bar.add_task("read", total=None, rates="")
        self._started = self._last_line = time.monotonic()
        self._first_done = 0

    def __enter__(self) -> ProgressLines:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        """Show how far the run has come."""
        now = time.monotonic()
        if step.stage != self._stage:
            self._stage, self._started, self._first_done, self._last_line = step.stage, now, step.done, 0.0
        seconds = max(now - self._started, 1e-6)
        per_second = f"{(step.done - self._first_done) / seconds:.1f}/s {step.new_tokens / seconds:.0f} tok/s"
        rates = f"{per_second} {step.rejected} rejected"
        self._bar.update(self._task, description=step.stage, completed=step.done, total=step.total or None, rates=rates)
        is_last = step.total and step.done == step.total
        if self._bar.disable and not self._quiet and (is_last or now - self._last_line >= _SECONDS_BETWEEN_LINES):
            self._last_line = now
            of = f" of {step.total}" if step.total else ""
            sys.stderr.write(f"{step.stage}: {step.done}{of}, {rates}, {seconds:.0f} s\n")


def print_summary(path: Path, summary: Summary) -> None:
    """Print the ledger: what went in, what was kept, and what was left out for which reason."""
    table = Table(title=escape(str(path)), title_justify="left", show_edge=False, pad_edge=False)
    for name in ("", "in", "kept", "left out"):
        table.add_column(name, justify="left" if not name else "right")
    left_out = sum(summary.documents_rejected.values())
    table.add_row("documents", str(summary.documents), str(summary.documents - left_out), str(left_out))
    _add_reasons(table, summary.documents_rejected)
    left_out = sum(summary.passages_rejected.values())
    table.add_row("passages", str(summary.passages + left_out), str(summary.passages), str(left_out))
    _add_reasons(table, summary.passages_rejected)
    table.add_row("prompts", str(summary.prompts), str(summary.kept), str(sum(summary.rejected.values())))
    _add_reasons(table, summary.rejected)
    for task_type, kept in sorted(summary.kept_by_task.items()):
        table.add_row(f"  kept: {task_type}", "", str(kept), "")
    Console().print(table)
    Console().print(
        f"{summary.kept} examples in {summary.seconds:.0f} s; next: katsuo export {escape(str(path))} --format trl",
        highlight=False,
    )


def _add_reasons(table: Table, reasons: dict[str, int] | object) -> None:
    assert isinstance(reasons, dict)
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        table.add_row(f"  {reason}", "", "", str(count), style="dim")


def print_example(example: Example | Reject) -> None:
    """Print one example, or one reject with its reason, in a frame."""
    place = f"{example.source} {example.char_start}-{example.char_end}"
    if isinstance(example, Reject):
        body = f"[red]rejected: {example.reason}[/red]\n{escape(example.text)}"
    else:
        body = f"{escape(_shortened(example))}\n[bold green]{escape(example.response)}[/bold green]"
    Console().print(
        Panel(body, title=escape(example.task_type), subtitle=escape(place), title_align="left", subtitle_align="right")
    )


def _shortened(example: Example, shown_chars: int = 240) -> str:
    """Give the instruction with the middle of a long passage left out."""
    context = example.context
    if len(context) <= shown_chars:
        return example.instruction
    half = shown_chars // 2
    return example.instruction.replace(context, f"{context[:half]} […] {context[-half:]}")
