"""`katsuo export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli import options as flag


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("export", help=summary)(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    format: Annotated[
        str, typer.Option("--format", "-f", help="trl, messages, alpaca, sharegpt, bonito, parquet or hub.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New or empty folder.", show_default="RUN/export/FORMAT")
    ] = None,
    file_type: Annotated[
        str | None, typer.Option(help="jsonl or parquet.", show_default="jsonl; parquet for parquet and hub")
    ] = None,
    with_provenance: Annotated[
        bool, typer.Option("--with-provenance", help="Add source, span, task type, model and seed to every row.")
    ] = False,
    split: Annotated[
        list[str] | None, typer.Option(help="Set this share of the documents apart, such as test=0.1. Repeatable.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="trl: strings instead of chat turns, for a model without a chat template.")
    ] = False,
    license: Annotated[str, typer.Option(help="Licence of the data set, for its card.")] = "other",
    language: Annotated[list[str] | None, typer.Option(help="Language of the texts (ISO code). Repeatable.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="hub: owner/name of the data set.")] = None,
    public: Annotated[bool, typer.Option("--public", help="hub: let everybody see it; private otherwise.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Take an unfinished run as it stands.")
    ] = False,
    as_json: flag.AsJson = False,
) -> None:
    from katsuo import export as exporting
    from katsuo.export.split import read_splits

    done = exporting.export_run(
        run,
        format,
        output,
        file_type=file_type,
        with_provenance=with_provenance,
        plain=plain,
        splits=read_splits(split or ()),
        license=license,
        languages=language or (),
        repo_id=repo_id,
        public=public,
        allow_partial=allow_partial,
    )
    if as_json:
        told = {
            "path": str(done.path),
            "format": done.format,
            "examples": sum(done.examples.values()),
            "splits": done.examples,
            "files": done.files,
            **({"url": done.url} if done.url else {}),
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    counts = ", ".join(f"{count} {name}" for name, count in done.examples.items())
    typer.echo(f"{done.path}: {counts} examples as {done.format}; README.md tells what they are")
    if done.url:
        typer.echo(f"pushed to {done.url}")
