"""The `katsuo` command: only the command that is called is imported, so that help is quick."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from katsuo import __version__
from katsuo.errors import KatsuoError, KatsuoWarning

COMMANDS = {
    "generate": "Turn documents into checked instruction-response pairs.",
    "preview": "Show a few examples of what a run would make; leave no run.",
    "estimate": "Tell what a run would ask and how long it would take.",
    "show": "Show the ledger of a run and a few of its examples.",
    "export": "Write a run's examples as a data set that trainers load.",
    "tasks": "List the task types, or show one.",
    "ctga": "Build the training set of a task generator from labelled data.",
    "train-generator": "Train a task generator on the pairs of `katsuo ctga build`.",
    "adapt": "Fine-tune a model on a run's examples.",
    "pretrain": "Train a model further on a run's raw passages: the baseline.",
    "evaluate": "Score models on labelled data, and compare them.",
    "run": "Go from documents and labelled rows to a verdict, stage by stage.",
    "report": "Write a page, Markdown and JSON about a run or an experiment.",
    "merge": "Add an adapter to the weights of its model.",
    "pull": "Bring a model to this machine.",
    "cache": "Tell what the cache of answers holds, or clear it.",
    "doctor": "Tell what is installed and what is missing.",
}
_TRAINING = ("train-generator", "adapt", "pretrain", "merge")
_ROOMS = {**dict.fromkeys(_TRAINING, "katsuo.cli.train"), "evaluate": "katsuo.cli.evaluation"}
"""Where a command lies that has a room of its own."""
_QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""No library that katsuo calls tells anybody that it was called; what the user has set stays as it is."""


def run() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use, 3 finished short, 130 interrupted."""
    for name, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    others = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *place: (
        f"warning: {message}\n" if category is KatsuoWarning else others(message, category, *place)
    )
    try:
        build(sys.argv[1:])(prog_name="katsuo")
    except KatsuoError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; the same command {_goes_on(sys.argv[1:])}\n")
        sys.exit(130)


def _goes_on(arguments: Sequence[str]) -> str:
    """Say what a command that was interrupted does when it is given again."""
    if arguments and arguments[0] in _TRAINING and arguments[0] != "merge":
        return "goes on from the last checkpoint, or begins anew where there is none yet"
    return "goes on where the last finished shard ended"


def build(arguments: Sequence[str]) -> typer.Typer:
    """Build the command line with the real commands that `arguments` name and the bare names of all others."""
    app = typer.Typer(
        name="katsuo",
        help="Private text in, checked instruction-tuning data out: on your own machine.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _as_kebab},
    )
    app.callback()(_main)
    for name, summary in COMMANDS.items():
        if name in arguments:
            folder = _ROOMS.get(name, "katsuo.cli")
            importlib.import_module(f"{folder}.{name.replace('-', '_')}").add_to(app, summary)
        else:
            app.command(name, help=summary)(_not_called)
    return app


def _as_kebab(token: str) -> str:
    """Take `--text_column` for `--text-column`."""
    return token.replace("_", "-")


def _not_called() -> None:
    raise AssertionError("a command that was called must have been imported")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"katsuo {__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version
