"""`katsuo show`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli import options as flag
from katsuo.cli.terminal import print_example, print_summary
from katsuo.records import Example, Reject
from katsuo.store import Run


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("show", help=summary)(show)


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    count: Annotated[int, typer.Option(help="Examples of each task type.")] = 1,
    rejects: Annotated[bool, typer.Option(help="Show rejects, so many of each reason, instead.")] = False,
    as_json: flag.AsJson = False,
) -> None:
    opened = Run(run)
    shown = list(_few(opened.rejects() if rejects else opened.examples(), count))
    if as_json:
        ledger = dataclasses.asdict(opened.summary())
        typer.echo(json.dumps({**ledger, "shown": [dataclasses.asdict(one) for one in shown]}, ensure_ascii=False))
        return
    print_summary(run, opened.summary())
    for one in shown:
        print_example(one)


def _few(ended: Iterable[Example | Reject], count: int) -> Iterator[Example | Reject]:
    """Give the first `count` of each task type or reason."""
    seen: dict[str, int] = {}
    for one in ended:
        kind = str(one.reason) if isinstance(one, Reject) else one.task_type
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= count:
            yield one
