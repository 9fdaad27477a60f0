"""`katsuo generate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli import options as flag
from katsuo.cli.terminal import ProgressLines, print_summary

FINISHED_SHORT = 3


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("generate", help=summary)(generate)


def generate(
    documents: flag.Documents = None,
    task: flag.Tasks = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("run"),
    config: flag.RecipeFile = None,
    engine: flag.Engine = None,
    model: flag.Model = None,
    adapter: flag.Adapter = None,
    text_column: flag.TextColumn = None,
    include: flag.Include = None,
    exclude: flag.Exclude = None,
    limit: flag.Limit = None,
    n: flag.Samples = None,
    seed: flag.Seed = None,
    held_out: flag.HeldOutFile = None,
    answer: flag.Answer = None,
    grammar: flag.Grammar = None,
    change: flag.Change = None,
    resume: Annotated[str, typer.Option(help="if-possible, always or never.")] = "if-possible",
    allow_partial: Annotated[bool, typer.Option(help="Exit with 0 even if prompts were rejected.")] = False,
    as_json: flag.AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    recipe = flag.make_recipe(
        config,
        change,
        documents=documents,
        tasks=task,
        engine=engine,
        model=model,
        adapter=adapter,
        text_column=text_column,
        include=include,
        exclude=exclude,
        limit=limit,
        sampling__n=n,
        seed=seed,
        held_out=held_out,
        sampling__answer=answer,
        sampling__grammar=grammar,
    )
    from katsuo import api

    with ProgressLines(quiet=quiet) as progress:
        run = api.generate(output=output, recipe=recipe, resume=resume, on_progress=progress)
    summary = run.summary()
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), **dataclasses.asdict(summary)}, ensure_ascii=False))
    else:
        print_summary(run.path, summary)
    if summary.is_short and not allow_partial:
        raise typer.Exit(FINISHED_SHORT)
