"""`katsuo report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli.options import AsJson


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("report", help=summary)(report)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of katsuo run, or of katsuo generate.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the pages; else RUN.")] = None,
    examples: Annotated[int, typer.Option(help="Examples of each task type, and rejects of each reason.")] = 3,
    as_json: AsJson = False,
) -> None:
    from katsuo import api

    written = api.report(run, output, examples=examples)
    typer.echo(json.dumps({"files": [str(path) for path in written]}) if as_json else "\n".join(map(str, written)))
