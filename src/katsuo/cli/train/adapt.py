"""`katsuo adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from katsuo.cli.options import AsJson
from katsuo.cli.train import flags as shared


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("adapt", help=summary)(adapt)


def adapt(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of katsuo generate.")],
    output: shared.Output,
    model: shared.Model = "smollm2-135m-instruct",
    recipe: shared.Recipe = "laptop",
    change: shared.Change = None,
    start: shared.From = None,
    replay: shared.Replay = None,
    replay_share: shared.ReplayShare = None,
    seed: shared.Seed = None,
    as_json: AsJson = False,
    quiet: shared.Quiet = False,
) -> None:
    flags = {"seed": seed, "data__replay": replay, "data__replay_share": replay_share}
    settings = shared.make_recipe(recipe, "target", change, **flags)
    with shared.extra_needed():
        from katsuo.store import Run
        from katsuo.train.target import adapt as train

    with shared.TrainingLines(quiet=quiet) as progress:
        trained = train(Run(run), model, output, settings, start=start, on_progress=progress)
    shared.print_trained(trained, as_json=as_json)
