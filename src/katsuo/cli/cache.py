"""`katsuo cache stats | clear`."""

from __future__ import annotations

import dataclasses
import json

import typer

from katsuo.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
_MB = 1e6


def add_to(parent: typer.Typer, summary: str) -> None:
    parent.add_typer(app, name="cache", help=summary)


@app.command("stats", help="Tell where the answers lie, how many there are, and how much room they take.")
def stats(as_json: AsJson = False) -> None:
    from katsuo.cache import AnswerCache

    found = AnswerCache().stats()
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
        return
    typer.echo(f"folder         {found.folder}")
    typer.echo(f"answers        {found.answers:>12,}")
    typer.echo(f"size, MB       {found.size / _MB:>12,.1f}  of at most {found.limit / _MB:,.0f}")
    if found.set_aside:
        typer.echo(f"damaged files  {found.set_aside:>12,}  ({found.set_aside_size / _MB:,.1f} MB, never read again)")


@app.command("clear", help="Forget every answer, and delete damaged files.")
def clear(as_json: AsJson = False) -> None:
    from katsuo.cache import AnswerCache

    count = AnswerCache().clear()
    typer.echo(json.dumps({"forgotten": count}) if as_json else f"{count:,} answers forgotten")
