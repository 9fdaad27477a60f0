"""What the training commands share: flags, progress and the closing lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from katsuo.errors import MissingPackageError, UsageError
from katsuo.settings import read_pairs

if TYPE_CHECKING:
    from katsuo.train.recipes import TrainRecipe, What
    from katsuo.train.trained import Trained
    from katsuo.train.watch import Progress

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; the same command takes it up again.")]
Model = Annotated[str, typer.Option("--model", "-m", help="The model to train: known name, hub name or folder.")]
Recipe = Annotated[str, typer.Option("--recipe", "-r", help="laptop, paper, or a YAML file.")]
From = Annotated[str | None, typer.Option("--from", help="Go on training this adapter.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the draw, of the order and of the first weights.")]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting of the training's recipe, such as learning_rate=2e-4. Repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Replay = Annotated[str | None, typer.Option(help="General instructions to mix in: Parquet or JSON lines.")]
ReplayShare = Annotated[float | None, typer.Option(help="Share of the examples that come from --replay.")]


def make_recipe(name: str, what: What, change: list[str] | None, **flags: Any) -> TrainRecipe:
    """Lay the flags that were given over the named recipe; `__` in a name reaches into a group."""
    from katsuo.train.recipes import named_recipe

    changes = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    changes |= read_pairs(change or [], such_as="max_steps=2")
    recipe = named_recipe(name, what).override(changes)
    if "data.replay_share" in changes and not recipe.data.replay:
        raise UsageError("there is nothing to take the replay share from", hint="give --replay FILE with instructions")
    return recipe


@contextmanager
def extra_needed() -> Iterator[None]:
    """Say what to install when a package of the extra `train` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("katsuo"):
            raise
        raise MissingPackageError(
            f'training needs the package "{error.name}", which is not installed', hint="pip install 'katsuo[train]'"
        ) from error


class TrainingLines:
    """A line on standard error for every line of metrics, reading of the held-out loss and warning."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __enter__(self) -> TrainingLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def __call__(self, progress: Progress) -> None:
        """Show how far the training has come."""
        if progress.warning:
            sys.stderr.write(f"warning: {progress.warning}\n")
        elif not self._quiet:
            told = [f"step {progress.step} of {progress.steps}"]
            if progress.loss is not None:
                told.append(f"loss {progress.loss:.3f}")
            if progress.held_out_loss is not None:
                told.append(f"held-out loss {progress.held_out_loss:.3f}")
            if progress.tokens_per_s is not None:
                told.append(f"{progress.tokens_per_s:.0f} tok/s")
            sys.stderr.write(", ".join(told) + "\n")
        sys.stderr.flush()


def print_trained(trained: Trained, *, as_json: bool) -> None:
    """Print what came out of a training; of several processes the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        typer.echo(json.dumps({**asdict(trained), "path": str(trained.path)}, ensure_ascii=False))
        return
    fitted = trained.fitted
    for reason, count in sorted(trained.rejected.items()):
        typer.echo(f"left out: {count} ({reason})")
    if fitted.held_out_loss is not None and fitted.first_held_out_loss is not None:
        typer.echo(f"held-out loss {fitted.first_held_out_loss:.3f} → {fitted.held_out_loss:.3f}")
    typer.echo(
        f"{trained.path}: {trained.bytes / 1e6:.1f} MB after {fitted.steps} updates in {fitted.seconds / 60:.1f} min"
        f" (weights of update {fitted.best_step}{', stopped early' if fitted.stopped_early else ''})"
    )
