"""Build the training set of the task generator: plan the shards, do the missing ones, balance, write the ledger."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katsuo.ctga.balance import Quotas, apply_quotas
from katsuo.ctga.card import write_card
from katsuo.ctga.catalog import Source, load_catalog, select_sources
from katsuo.ctga.pack import read_pack
from katsuo.ctga.remix import Recipe
from katsuo.ctga.rows import Rows, open_rows
from katsuo.ctga.settings import BuildSettings
from katsuo.ctga.shards import Shard, plan_shards, write_atomically, write_shard
from katsuo.ctga.stats import BuildSummary, summarize
from katsuo.ctga.templates import find_templates
from katsuo.errors import SourceError, StoreError
from katsuo.resume import refuse_occupied, refuse_other
from katsuo.templates.library import open_library
from katsuo.templates.sandbox.pool import Pool

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each shard with (shards done, shards in all, what its marker says)."""


@dataclass
class Plan:
    """What a build is going to do; `absent` are sources that the data folder does not hold."""

    recipes: list[Recipe] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    untemplated: list[str] = field(default_factory=list)


def build(settings: BuildSettings, out: Path, *, progress: Progress | None = None) -> BuildSummary:
    """
    Write the pairs, the rejects, the card and the ledger into the folder `out`, and give the ledger.

    Begun again on the same folder, it does only the shards that have no marker yet; with other settings it raises
    `RunChangedError`. The pairs do not depend on the number of workers or on where a build was stopped.
    """
    plan = make_plan(settings)
    if (out / "manifest.json").exists():
        _same_build(settings, plan, out)
        _clear(out)
        return summarize(out)
    _open_folder(settings, plan, out)
    quotas = Quotas.of(settings)
    shards = list(_shards(settings, plan, out, folder="drawn" if quotas else "data"))
    _do(shards, settings.workers, progress)
    markers = [json.loads(shard.marker.read_text(encoding="utf-8")) for shard in shards]
    if quotas:
        markers = apply_quotas(out, [shard.name for shard in shards], markers, quotas, seed=settings.seed)
    return _finish(settings, plan, out, markers)


def make_plan(settings: BuildSettings) -> Plan:
    """Find templates and rows of every source asked for; raise for what was asked for by name and is not there."""
    plan = Plan()
    known: Sequence[Source] = read_pack(Path(settings.pack)) if settings.pack else load_catalog()
    chosen = select_sources(known, settings.sources, exclude_terms=settings.exclude_license)
    needs_library = any(not source.templates for source in chosen)
    library = open_library(Path(settings.templates) if settings.templates else None) if needs_library else None
    for source in chosen:
        rows = open_rows(source, settings.data)
        if rows is None:
            plan.absent.append(source.name)
            continue
        templates = source.templates if library is None else find_templates(source, library)
        if not templates:
            plan.untemplated.append(source.name)
            continue
        plan.recipes.append(Recipe(source, templates, settings.per_row, settings.seed))
        plan.rows.append(rows)
        plan.counts.append(rows.count())
    if plan.absent and settings.sources:
        raise SourceError(f'"{settings.data}" does not hold "{plan.absent[0]}"', hint="check --data and --sources")
    if not plan.recipes:
        raise SourceError(
            f'"{settings.data}" holds none of the sources', hint="the layout is <data set>[__<config>]/train.parquet"
        )
    return plan


def _shards(settings: BuildSettings, plan: Plan, out: Path, *, folder: str) -> Iterator[Shard]:
    for recipe, rows, count in zip(plan.recipes, plan.rows, plan.counts, strict=True):
        yield from plan_shards(
            recipe, rows, count=count, limit=settings.limit, size=settings.rows_per_shard, out=out, folder=folder,
            time_limit_s=settings.time_limit_s, output_limit=settings.output_limit,
        )  # fmt: skip


def _do(shards: Sequence[Shard], workers: int, progress: Progress | None) -> None:
    missing = [shard for shard in shards if not shard.marker.exists()]
    missing.sort(key=lambda shard: -shard.size)  # the longest first, so that no worker waits for a long one at the end
    done = len(shards) - len(missing)
    for _, marker in Pool(write_shard, workers).run(missing):
        done += 1
        if progress:
            progress(done, len(shards), marker)


def _open_folder(settings: BuildSettings, plan: Plan, out: Path) -> None:
    recipe = out / "recipe.json"
    if recipe.exists():
        _same_build(settings, plan, out)
        return
    refuse_occupied(out, "build")
    identity = settings.identity(plan.recipes, plan.counts)
    write_atomically(recipe, json.dumps(identity, indent=1, ensure_ascii=False, sort_keys=True))


def _same_build(settings: BuildSettings, plan: Plan, out: Path) -> None:
    try:
        before = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f'"{out}/recipe.json" cannot be read: {error}', hint="build into another folder") from error
    refuse_other(out, "build", before, json.loads(json.dumps(settings.identity(plan.recipes, plan.counts))))


def _finish(settings: BuildSettings, plan: Plan, out: Path, markers: Sequence[Mapping[str, Any]]) -> BuildSummary:
    """Add the markers up, write the card, and then the manifest: it is there only when all the rest is."""
    totals: dict[str, Counter[tuple[str, str, str]]] = {"pairs": Counter(), "lost": Counter()}
    for marker in markers:
        for kind, total in totals.items():
            for word, template, count in marker[kind]:
                total[marker["source"], word, template] += count
    manifest = {
        "format": "katsuo-ctga-1",
        "settings": settings.model_dump(mode="json"),
        "sources": [_told(recipe, count) for recipe, count in zip(plan.recipes, plan.counts, strict=True)],
        "absent": plan.absent,
        "untemplated": plan.untemplated,
        "rendering_seconds": round(sum(marker["seconds"] for marker in markers), 2),
        **{kind: [[*key, count] for key, count in sorted(total.items())] for kind, total in totals.items()},
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1)
    summary = BuildSummary.of(manifest, str(out))
    write_card(out, summary)
    write_atomically(out / "manifest.json", text)
    _clear(out)
    return summary


def _clear(out: Path) -> None:
    """Remove the pairs as drawn: those that stay are in `data`, and the manifest says that they are all."""
    if (out / "drawn").exists():
        shutil.rmtree(out / "drawn")


def _told(recipe: Recipe, count: int) -> dict[str, Any]:
    source = recipe.source
    return {
        "source": source.name, "rows": count, "templates": len(recipe.templates), "licence": source.licence,
        "terms": source.terms, "language": source.language,
    }  # fmt: skip
