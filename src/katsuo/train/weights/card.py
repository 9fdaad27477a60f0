"""The model card of what was trained: from which model, on which sources under which licences, with which losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from katsuo.train.trained import Job, Trained
from katsuo.train.weights.start import Source, add_up, sources_of

_TITLES = {
    "train-generator": "A task generator",
    "adapt": "A model adapted to a run's examples",
    "pretrain": "A model trained further on raw passages",
}

_NON_COMMERCIAL = (
    "**Some of its training sources are for non-commercial use only**, so these weights are for research. "
    "`--exclude-license nc` makes a set without them."
)


def write_card(job: Job, trained: Trained) -> None:
    """Write `README.md` beside the weights."""
    library = "peft" if job.recipe.method == "lora" else "transformers"
    sources = _all_sources(job)
    head, opening = _head(job.base.public_name, library, sources), _opening(job, trained, sources)
    parts = [head, f"# {_TITLES[job.command]}", opening, _losses(trained)]
    if sources:
        parts.append(_sources(sources))
    if types := job.data.get("types"):
        parts.append("## Examples by task type\n\n" + _table(("task type", "examples"), types.items()))
    if trained.rejected:
        parts.append("## Left out\n\n" + _table(("reason", "examples"), trained.rejected.items()))
    parts.append("## Recipe\n\n```yaml\n" + job.recipe.to_yaml() + "```")
    (job.output / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_merged_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `README.md` beside merged weights: what they were merged of, and what they were trained on."""
    sources = manifest["from"]["sources"]
    opening = (
        f"The adapter `{manifest['from']['name']}` (revision `{manifest['adapter_revision']}`) merged into "
        f"`{manifest['base_model']}` (revision `{manifest['base_revision']}`) with `katsuo merge`."
    )
    parts = [_head(manifest["base_model"], "transformers", sources), "# A merged model", opening]
    parts += [_NON_COMMERCIAL] if _is_non_commercial(sources) else []
    parts += [_sources(sources)] if sources else []
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _head(base: str, library: str, sources: Sequence[Source]) -> str:
    head: dict[str, object] = {"base_model": base, "library_name": library, "tags": ["katsuo"]}
    if sources:
        head |= {"license": "other", "license_name": "see-each-source"}
        if _is_non_commercial(sources):
            head["license_name"] = "see-each-source-some-non-commercial"
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _opening(job: Job, trained: Trained, sources: Sequence[Source]) -> str:
    what = "A LoRA adapter for" if job.recipe.method == "lora" else "All weights of"
    lines = [
        f"{what} `{job.base.public_name}` (revision `{job.base.revision}`), trained with `katsuo {job.command}` on "
        f"{trained.examples:,} examples in {trained.fitted.steps:,} updates."
    ]
    if job.start:
        named = sources_of(job.start)
        told = "whose own sources are listed here too" if named else "which names no sources of its own"
        lines.append(f"The training went on from the adapter `{job.start.resolve().name}`, {told}.")
    if job.codec:
        lines.append(
            f"It writes tasks in the `{job.codec}` format: a task type and a passage in, an instruction and a response "
            "out. Load it with `katsuo generate DOCS --model THIS_FOLDER`."
        )
    if _is_non_commercial(sources):
        lines.append(_NON_COMMERCIAL)
    return "\n\n".join(lines)


def _losses(trained: Trained) -> str:
    fitted = trained.fitted
    rows: list[Sequence[object]] = [
        ("held-out loss before", _number(fitted.first_held_out_loss)),
        ("held-out loss after", _number(fitted.held_out_loss)),
        ("training loss, last", _number(fitted.loss)),
        ("updates, and the one that is kept", f"{fitted.steps}, {fitted.best_step}"),
        ("tokens", f"{fitted.tokens:,}"),
        ("minutes", f"{fitted.seconds / 60:.1f}"),
        ("size of the weights", f"{trained.bytes / 1e6:.1f} MB"),
    ]
    text = "## How it went\n\nLosses are means per token of the completion.\n\n" + _table(("what", "value"), rows)
    return "\n\n".join([text, *(f"Warning: {warning}." for warning in fitted.warnings)])


def _all_sources(job: Job) -> list[dict[str, Any]]:
    """List the sources of this training and of those that it went on from."""
    before = [*sources_of(job.base.folder), *(sources_of(job.start) if job.start else [])]
    return add_up([*before, *(job.data.get("sources") or [])])


def _is_non_commercial(sources: Sequence[Source]) -> bool:
    return any(source.get("terms") == "non-commercial" for source in sources)


def _sources(sources: Sequence[Source]) -> str:
    rows = [(source["source"], source["licence"], source["terms"], source.get("examples", "")) for source in sources]
    return "## Training sources and their licences\n\n" + _table(("source", "licence", "terms", "examples"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(str(value).replace('|', '/') for value in row)} |" for row in rows]
    return "\n".join(lines)
