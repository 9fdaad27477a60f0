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
    base_url: flag.BaseUrl = None,
    text_column: flag.TextColumn = None,
    include: flag.Include = None,
    exclude: flag.Exclude = None,
    limit: flag.Limit = None,
    n: flag.Samples = None,
    seed: flag.Seed = None,
    held_out: flag.HeldOutFile = None,
    answer: flag.Answer = None,
    grammar: flag.Grammar = None,
    runner: flag.Runner = None,
    workers: flag.Workers = None,
    max_minutes: flag.MaxMinutes = None,
    max_tokens: flag.MaxTokens = None,
    max_examples: flag.MaxExamples = None,
    cache: flag.Cache = None,
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
        engine_options__base_url=base_url,
        text_column=text_column,
        include=include,
        exclude=exclude,
        limit=limit,
        sampling__n=n,
        seed=seed,
        held_out=held_out,
        sampling__answer=answer,
        sampling__grammar=grammar,
        runner=runner,
        runner_options__workers=workers,
        budget__max_minutes=max_minutes,
        budget__max_tokens=max_tokens,
        budget__max_examples=max_examples,
        cache=cache,
    )
    from katsuo import api

    with ProgressLines(quiet=quiet) as progress:
        run = api.generate(output=output, recipe=recipe, resume=resume, on_progress=progress)
    summary, ended = run.summary(), {key: run.manifest[key] for key in ("stopped", "from_cache")}
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), **dataclasses.asdict(summary), **ended}, ensure_ascii=False))
    else:
        print_summary(run.path, summary)
    if ended["stopped"]:
        typer.echo(f"stopped: {ended['stopped']}", err=True)
    # Part of the prompts rejected may be allowed; part of them never asked is for a loop in a shell to see.
    if ended["stopped"] or (summary.is_short and not allow_partial):
        raise typer.Exit(FINISHED_SHORT)
