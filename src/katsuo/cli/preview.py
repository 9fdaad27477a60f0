"""`katsuo preview`."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from katsuo.cli import options as flag
from katsuo.cli.terminal import print_example


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("preview", help=summary)(preview)


def preview(
    documents: flag.Documents = None,
    task: flag.Tasks = None,
    config: flag.RecipeFile = None,
    count: Annotated[int, typer.Option(help="Passages to ask about.")] = 2,
    engine: flag.Engine = None,
    model: flag.Model = None,
    adapter: flag.Adapter = None,
    base_url: flag.BaseUrl = None,
    text_column: flag.TextColumn = None,
    include: flag.Include = None,
    exclude: flag.Exclude = None,
    seed: flag.Seed = None,
    change: flag.Change = None,
    as_json: flag.AsJson = False,
) -> None:
    recipe = flag.make_recipe(
        config,
        change,
        documents=documents,
        tasks=task,
        engine=engine,
        model=model,
        adapter=adapter,
        engine_options__base_url=base_url,
        text_column=text_column,
        include=include,
        exclude=exclude,
        seed=seed,
    )
    from katsuo import api

    ended = api.preview(recipe, count)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in ended], ensure_ascii=False))
        return
    for one in ended:
        print_example(one)
