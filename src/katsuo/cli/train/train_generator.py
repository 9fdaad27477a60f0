"""`katsuo train-generator`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli.options import AsJson
from katsuo.cli.train import flags as shared


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("train-generator", help=summary)(train_generator)


def train_generator(
    pairs: Annotated[Path, typer.Argument(metavar="CTGA_DIR", help="Folder of training pairs (katsuo ctga build).")],
    output: shared.Output,
    model: shared.Model = "smollm2-135m-instruct",
    recipe: shared.Recipe = "laptop",
    change: shared.Change = None,
    start: shared.From = None,
    exclude_license: Annotated[str, typer.Option(help="Leave sources out by terms: nc, unstated.")] = "",
    seed: shared.Seed = None,
    as_json: AsJson = False,
    quiet: shared.Quiet = False,
) -> None:
    words = tuple(word.strip() for word in exclude_license.split(",") if word.strip())
    settings = shared.make_recipe(recipe, "generator", change, seed=seed, data__exclude_license=words or None)
    with shared.extra_needed():
        from katsuo.train.generator import train_generator as train

    with shared.TrainingLines(quiet=quiet) as progress:
        trained = train(pairs, model, output, settings, start=start, on_progress=progress)
    shared.print_trained(trained, as_json=as_json)
