"""`katsuo tasks`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from katsuo.cli import options as flag
from katsuo.tasks import CATALOG, TaskType, load_task


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("tasks", help=summary)(tasks)


def tasks(
    name: Annotated[str | None, typer.Argument(help="Name, short name or YAML file of one task type.")] = None,
    as_json: flag.AsJson = False,
) -> None:
    chosen = [load_task(name)] if name else list(CATALOG)
    if as_json:
        typer.echo(json.dumps([_plain(task) for task in chosen], ensure_ascii=False))
        return
    if name:
        _show_one(chosen[0])
        return
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("short", "task type", "answer"):
        table.add_column(heading, no_wrap=True)
    for task in chosen:
        table.add_row(task.short, task.name, type(task.answer).__name__.lower())
    Console().print(table)


def _plain(task: TaskType) -> dict[str, object]:
    return {
        "name": task.name,
        "short": task.short,
        "description": task.description,
        "answer": type(task.answer).__name__.lower(),
        "checks": [check.__name__ for check in task.checks],
    }


def _show_one(task: TaskType) -> None:
    typer.echo(f"{task.name} ({task.short})\n{task.description}\n")
    typer.echo(f"answer: {type(task.answer).__name__.lower()}")
    typer.echo(f"checks: {', '.join(check.__name__ for check in task.checks)}")
    for example in task.examples:
        typer.echo(f"\npassage:     {example.passage}")
        typer.echo("instruction: " + example.instruction.replace("\n", "\n             "))
        typer.echo(f"response:    {example.response}")
