"""The adapter that a training goes on from: where it lies, what shape it has, and what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from katsuo.errors import ModelError, UsageError
from katsuo.models.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, locate, read_manifest, revision_of
from katsuo.train.recipes import TrainRecipe

Source = Mapping[str, Any]
"""A source of training examples: its name, `licence`, `terms` and how many `examples` came from it."""


def locate_adapter(name: str) -> Path:
    """Give the folder of an adapter; raise `ModelError` when it holds none."""
    folder = locate(name)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f'"{folder}" holds no {ADAPTER_WEIGHTS}', hint="give the folder of a LoRA adapter")
    return folder


def begin_from(name: str | None, recipe: TrainRecipe) -> tuple[Path | None, TrainRecipe]:
    """Give the folder of the adapter to go on from, and the recipe with that adapter's shape in place of its own."""
    if name is None:
        return None, recipe
    if recipe.method == "full":
        raise UsageError(
            f'method full trains all weights and cannot go on from the adapter "{name}"',
            hint=f"run `katsuo merge {name} -o WHOLE`, then give WHOLE as --model without --from",
        )
    folder = locate_adapter(name)
    path = folder / ADAPTER_CONFIG
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        modules = told["target_modules"]
        adapter = {"rank": told["r"], "alpha": told["lora_alpha"], "dropout": told.get("lora_dropout", 0.0)}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f'cannot read "{path}": {error}', hint="train the adapter again") from error
    adapter["target_modules"] = [modules] if isinstance(modules, str) else sorted(modules)
    return folder, recipe.override({"adapter": adapter})


def history_of(folder: Path) -> dict[str, Any]:
    """Give what a manifest says of the adapter that its training went on from, with the sources of all before it."""
    return {"name": folder.resolve().name, "revision": revision_of(folder), "sources": sources_of(folder)}


def sources_of(folder: Path) -> list[dict[str, Any]]:
    """List the sources that the weights in `folder` were trained on, those of the adapters before them included."""
    manifest = read_manifest(folder)
    before = manifest.get("from", {}).get("sources", [])
    return add_up([*before, *manifest.get("data", {}).get("sources", [])])


def add_up(sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Name each source under the same terms once, with all examples that came from it."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for source in sources:
        key = tuple(source.get(part) for part in ("source", "licence", "terms"))
        one = found.setdefault(key, {**source, "examples": 0})
        one["examples"] += source.get("examples", 0)
    return list(found.values())
