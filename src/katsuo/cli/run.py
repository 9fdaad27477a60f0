"""`katsuo run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from katsuo.cli.options import AsJson

if TYPE_CHECKING:
    from katsuo.experiment.conduct import Step


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("run", help=summary)(run)


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of documents, labelled rows and settings.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; taken up again. Else runs/NAME.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="List the stages and which are done; do nothing.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    from katsuo import api
    from katsuo.experiment.conduct import states
    from katsuo.experiment.folder import look_at
    from katsuo.experiment.settings import read_experiment

    place = output or Path("runs") / recipe.stem
    if plan:
        found = states(look_at(place, read_experiment(recipe)))
        typer.echo(json.dumps(dict(found)) if as_json else "\n".join(f"{state:9} {name}" for name, state in found))
        return
    results = api.run(recipe, place, on_step=_Lines(quiet=quiet))
    if as_json:
        typer.echo(json.dumps({"path": str(place), **results}, ensure_ascii=False))
        return
    typer.echo(results["verdict"])
    for name, told in results["sets"].items():
        typer.echo(f"{name}: {_overlap(told)}")
    typer.echo(f"report: {place / 'report.html'}")


def _overlap(told: dict[str, Any]) -> str:
    shared = told["overlap"]
    if shared is None:
        return f"{told['items']} test rows"
    where = f"{shared['passages']} by their passage, {shared['questions']} by their question"
    return f"{told['items']} test rows, of which stand in the run: {where}"


class _Lines:
    """A line on standard error for every stage, and for what it says of itself."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, step: Step) -> None:
        """Show where the experiment is."""
        if self._quiet:
            return
        if step.state == "says":
            sys.stderr.write(f"    {step.line}\n")
        else:
            note = f" ({step.line})" if step.line else ""
            sys.stderr.write(f"[{step.number}/{step.total}] {step.stage}: {step.state}{note}\n")
        sys.stderr.flush()
