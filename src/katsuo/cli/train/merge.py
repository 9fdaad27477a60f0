"""`katsuo merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli.train import flags as shared


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("merge", help=summary)(merge)


def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA adapter, or its hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Its base, where the adapter names none.")] = None,
    gguf: Annotated[str | None, typer.Option(help="Write GGUF too: f32, bf16, f16 or q8_0.")] = None,
) -> None:
    with shared.extra_needed():
        from katsuo.train.weights.merge import merge as merge_adapter
    typer.echo(merge_adapter(adapter, output, model=model, gguf=gguf))
