"""Every setting of a build, and what makes two builds the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from katsuo.ctga.remix import Recipe
from katsuo.errors import UsageError
from katsuo.settings import Settings, build
from katsuo.tasks import known_tasks


class BuildSettings(Settings):
    """What `katsuo ctga build` makes; the defaults are the paper's."""

    data: str | None = None
    """Folder of labelled data sets; None reads from the hub."""
    templates: str | None = None
    """Folder of templates in promptsource's layout; None takes the pinned release."""
    pack: str | None = None
    """A pack of your own (`ctga.yaml`) instead of the catalogue."""
    sources: tuple[str, ...] = ()
    """Only these sources; a data set's name stands for all of its configurations."""
    exclude_license: tuple[str, ...] = ()
    """Leave out sources by their terms: `nc` (non-commercial), `unstated`."""
    per_row: int = Field(default=1, ge=0)
    """Templates drawn per row; 0 takes all."""
    limit: int = Field(default=100_000, ge=1)
    """At most this many rows of a source, drawn by hash."""
    balance: Literal["types", "sources", "none"] = "none"
    """Cut each task type (or source) to the mean of all."""
    caps: dict[str, int] = Field(default_factory=dict)
    """At most this many pairs of a task type; the key `*` stands for every type without a cap of its own."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of all draws."""
    rows_per_shard: int = Field(default=10_000, ge=1)
    """Rows per shard: what a killed build does again at most."""
    time_limit_s: float = Field(default=2.0, gt=0)
    """Longest time for one rendering."""
    output_limit: int = Field(default=1_000_000, ge=1)
    """Longest rendering, in characters."""
    workers: int = Field(default=1, ge=1)
    """Worker processes; does not change the pairs."""

    def identity(self, recipes: Sequence[Recipe], counts: Sequence[int]) -> dict[str, Any]:
        """Give all that decides which pairs come out: these settings, and each source's rows and templates."""
        values = self.model_dump(mode="json", exclude={"workers", "data", "templates", "pack"})
        values["source"] = {
            recipe.source.name: f"{count} rows, {len(recipe.templates)} templates, {_fingerprint(recipe)}"
            for recipe, count in zip(recipes, counts, strict=True)
        }
        return values


def _fingerprint(recipe: Recipe) -> str:
    source = recipe.source
    told: list[Any] = [source.context, source.match, source.split, dict(source.types)]
    told += [[template.name, template.jinja, template.answer_choices] for template in recipe.templates]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def make_settings(values: Mapping[str, Any]) -> BuildSettings:
    """Make settings from what people write: `per_row` may be "all", `caps` lines such as "500" or "sentiment=500"."""
    made = dict(values)
    if "per_row" in made:
        made["per_row"] = _per_row(str(made["per_row"]))
    if "caps" in made:
        made["caps"] = dict(_cap(text) for text in made["caps"])
    return build(BuildSettings, made, listed="`katsuo ctga build --help`")


def _per_row(text: str) -> int:
    if text == "all":
        return 0
    if not text.isdigit() or not int(text):
        raise UsageError(f'"{text}" templates per row cannot be', hint="give a number from 1, or all")
    return int(text)


def _cap(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not number.strip().isdigit():
        raise UsageError(f'"{text}" is no cap', hint='write 5000 for every type, or "summarization=5000" for one')
    known = known_tasks()
    name = name.strip()
    return (known[name].name if name in known else name or "*"), int(number)
