"""The flags that several commands share, and how they are laid over a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from katsuo.config import Recipe, read_recipe, recipe_from
from katsuo.settings import read_pairs

Documents = Annotated[
    list[str] | None, typer.Argument(metavar="DOCS", help="Files, folders or hf://owner/name[:config][/split].")
]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", "-t", help="Task type: name, short name or YAML file. Repeatable.")
]
RecipeFile = Annotated[Path | None, typer.Option("--config", "-c", help="Recipe (YAML); flags override it.")]
Engine = Annotated[str | None, typer.Option(help="Who answers: an engine that `katsuo doctor` lists.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Task generator: known name, hub name or folder.")]
Adapter = Annotated[str | None, typer.Option(help="LoRA adapter beside the model: folder or hub name.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of the server for --engine openai.")]
TextColumn = Annotated[str | None, typer.Option(help="Column that holds the text in tables and data sets.")]
Include = Annotated[list[str] | None, typer.Option(help="Take only files that match this glob. Repeatable.")]
Exclude = Annotated[list[str] | None, typer.Option(help="Leave out files that match this glob. Repeatable.")]
Limit = Annotated[int | None, typer.Option(help="At most this many passages.")]
Samples = Annotated[int | None, typer.Option("--n", "-n", help="Samples per passage and task type.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the run.")]
HeldOutFile = Annotated[
    str | None, typer.Option("--held-out", help="Texts that no passage may share, such as a test set.")
]
Answer = Annotated[str | None, typer.Option(help="sampled, or greedy: decode the response greedily.")]
Grammar = Annotated[bool | None, typer.Option("--grammar/--no-grammar", help="Decode under the task type's grammar.")]
Change = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting of the recipe, such as sampling.top_p=0.9. Repeatable.")
]
Runner = Annotated[str | None, typer.Option(help="Where it runs: local (this process), or ray (workers of a cluster).")]
Workers = Annotated[int | None, typer.Option(help="ray: so many workers; else as many as there is room for.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Stop after so many minutes; the same command goes on.")]
MaxTokens = Annotated[int | None, typer.Option(help="Stop after so many new tokens; the same command goes on.")]
MaxExamples = Annotated[int | None, typer.Option(help="Stop when the run holds so many examples.")]
Cache = Annotated[bool | None, typer.Option("--cache/--no-cache", help="Ask nothing again that was answered before.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]


def make_recipe(config: Path | None, change: list[str] | None, **flags: Any) -> Recipe:
    """Lay the flags that were given over the recipe file, if any; `__` in a name reaches into a group."""
    given = {key.replace("__", "."): value for key, value in flags.items() if value not in (None, [], ())}
    recipe = read_recipe(config) if config else recipe_from({})
    return recipe.override({**given, **read_pairs(change or [], such_as="sampling.n=2")})
