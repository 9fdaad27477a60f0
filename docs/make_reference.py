"""Write docs/cli.md, docs/recipe.md and docs/tasks.md from the code that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from katsuo.cli.main import COMMANDS, build
from katsuo.config import Recipe
from katsuo.records import Reason
from katsuo.settings import Settings
from katsuo.tasks import CATALOG

DOCS = Path(__file__).parent
SUBCOMMANDS = {"ctga": ("build", "check", "stats", "show"), "cache": ("stats", "clear")}


def help_text(*words: str) -> str:
    """Give what `katsuo … --help` prints at 80 columns."""
    result = CliRunner().invoke(
        build([*words, "--help"]),
        [*words, "--help"],
        prog_name="katsuo",
        terminal_width=80,
        env={"COLUMNS": "80", "TERM": "dumb"},
    )
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def cli() -> str:
    """Give the page of all commands."""
    parts = [
        "# Commands\n",
        "Written by `make docs` from the command line itself. Flags may be spelt with underscores.\n",
        "| exit status | meaning |\n|---|---|\n| 0 | done |\n| 1 | failed; the message says why and what helps |\n"
        "| 2 | wrong use |\n| 3 | finished with fewer examples than prompts, or stopped by a budget |\n| 130 | interrupted |\n",
        f"```text\n{help_text()}\n```\n",
    ]
    for name in COMMANDS:
        for words in ((name,), *((name, sub) for sub in SUBCOMMANDS.get(name, ()))):
            parts.append(f"## katsuo {' '.join(words)}\n\n```text\n{help_text(*words)}\n```\n")
    return "\n".join(parts)


def recipe() -> str:
    """Give the page of all settings."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|", *_rows(Recipe, "")]
    return (
        "# The recipe\n\nEvery setting of `katsuo generate`, written by `make docs` from the code. A recipe is a YAML file; "
        "flags override it, `--set key=value` reaches every setting, and unknown keys are refused.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _rows(group: type[Settings], prefix: str) -> list[str]:
    rows = []
    for name, info in group.model_fields.items():
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            rows += _rows(kind, f"{prefix}{name}.")
            continue
        shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        default = "" if info.default in (None, (), "") else f"`{info.default}`"
        rows.append(
            f"| `{prefix}{name}` | {shown.replace('|', 'or')} | {default} | {' '.join((info.description or '').split())} |"
        )
    return rows


def tasks() -> str:
    """Give the page of all task types and reasons."""
    parts = [
        "# Task types\n",
        "Written by `make docs` from the catalogue. Full and short names both work wherever a task type is asked for.\n",
        "| short | task type | answer | checks |\n|---|---|---|---|",
    ]
    for task in CATALOG:
        checks = ", ".join(check.__name__.replace("_", " ") for check in task.checks)
        parts.append(f"| `{task.short}` | {task.name} | {type(task.answer).__name__.lower()} | {checks} |")
    parts.append(
        "\nThe checks are mechanical: they see form and shared words, not truth. An answer can pass them all and be wrong.\n"
        "\n## A task type of your own\n\nA YAML file and no code: `katsuo generate DOCS --task my_task.yaml`.\n"
    )
    parts.append("```yaml\n" + (DOCS.parent / "examples" / "clause_type.yaml").read_text(encoding="utf-8") + "```\n")
    parts.append(
        "`answer` is `span` (a verbatim piece of the passage), `options` (one of the options that the instruction lists), "
        "`labels` (one of `labels`), `text`, or `whole` (the response is the passage itself). The worked examples must pass the checks of their own type.\n"
    )
    parts.append("## Worked examples\n")
    for task in CATALOG:
        example = task.examples[0]
        parts.append(
            f"### {task.name}\n\n{task.description}\n\n```text\npassage: {example.passage}\n\n{example.instruction}\n"
            f"=> {example.response}\n```\n"
        )
    parts.append("## Why something was left out\n\nEvery loss is one of these words.\n")
    parts += [f"- {reason}" for reason in Reason]
    return "\n".join(parts) + "\n"


PAGES = {"cli.md": cli, "recipe.md": recipe, "tasks.md": tasks}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
