"""`katsuo estimate`."""

from __future__ import annotations

import dataclasses
import json

import typer

from katsuo.cli import options as flag


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("estimate", help=summary)(estimate)


def estimate(
    documents: flag.Documents = None,
    task: flag.Tasks = None,
    config: flag.RecipeFile = None,
    engine: flag.Engine = None,
    model: flag.Model = None,
    adapter: flag.Adapter = None,
    base_url: flag.BaseUrl = None,
    text_column: flag.TextColumn = None,
    include: flag.Include = None,
    exclude: flag.Exclude = None,
    limit: flag.Limit = None,
    n: flag.Samples = None,
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
        limit=limit,
        sampling__n=n,
    )
    from katsuo import api

    found = api.estimate(recipe)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
        return
    typer.echo(f"documents      {found.documents:>10,}")
    typer.echo(f"passages       {found.passages:>10,}")
    typer.echo(f"prompts        {found.prompts:>10,}")
    typer.echo(f"prompt tokens  {found.prompt_tokens:>10,}")
    typer.echo(f"new tokens     {found.new_tokens:>10,}  (about)")
    typer.echo(f"minutes        {found.minutes:>10,.1f}  (about, from {found.measured_prompts} prompts)")
