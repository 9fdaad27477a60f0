"""The data set card of a build: what is in it, from where, under which licence, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from katsuo.ctga.shards import write_atomically
from katsuo.ctga.stats import BuildSummary, Lengths

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(out: Path, summary: BuildSummary, lengths: Sequence[Lengths] = (), *, counted_by: str = "") -> Path:
    """Write `README.md` into the folder of a build; the hub and `datasets` read its head."""
    parts = [_head(summary), _opening(summary), _by_type(summary), _by_source(summary)]
    if lengths:
        rows = (length.as_row() for length in lengths)
        parts.append(f"## Lengths in tokens\n\nCounted with {counted_by}.\n\n"
                     + table(("column", "pairs", "mean", "median", "95 %", "longest"), rows))  # fmt: skip
    parts += [_by_template(summary), _left_out(summary), _how(summary)]
    path = out / "README.md"
    write_atomically(path, "\n\n".join(parts) + "\n")
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def _head(summary: BuildSummary) -> str:
    licences = {str(source["terms"]) for source in summary.sources}
    head = {
        "language": sorted({str(source["language"]) for source in summary.sources}),
        "license": "other",
        "license_name": "see-each-source" + ("-some-non-commercial" if "non-commercial" in licences else ""),
        "task_categories": ["text-generation"],
        "tags": ["conditional-task-generation", "katsuo"],
        "size_categories": [next((name for size, name in _SIZES if summary.pairs < size), "1M<n<10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _opening(summary: BuildSummary) -> str:
    return (
        "# Conditional task generation with attributes\n\n"
        f"{summary.pairs:,} training pairs for a task generator, made with `katsuo ctga build` by remixing prompt "
        "templates over labelled data (method: arXiv 2402.18334). `input` holds a task type and an unannotated text, "
        "`output` an instruction and a response in the `bonito-v1` format; `{{context}}` in the output stands for the "
        "text. `dataset`, `config`, `template` and `row` say where each pair comes from."
    )


def _by_type(summary: BuildSummary) -> str:
    rows = ([name, count, f"{count / summary.pairs:.2%}"] for name, count in summary.by_type.items())
    return "## Pairs by task type\n\n" + table(("task type", "pairs", "share"), rows)


def _by_source(summary: BuildSummary) -> str:
    rows = []
    for source in summary.sources:
        name = str(source["source"])
        terms = str(source["terms"])
        rows.append(
            [name, source["rows"], source["templates"], summary.by_source.get(name, 0), source["licence"], terms]
        )
    head = ("source", "rows", "templates", "pairs", "licence", "terms")
    warning = "A pair is a copy of a row: the licence of its source goes with it."
    return f"## Sources and licences\n\n{warning}\n\n" + table(head, rows)


def _by_template(summary: BuildSummary) -> str:
    rows = ([source, template, count] for (source, template), count in summary.by_template.items())
    return "## Pairs by template\n\n" + table(("source", "template", "pairs"), rows)


def _left_out(summary: BuildSummary) -> str:
    text = f"## Left out\n\n{summary.drawn:,} templates were drawn; {summary.pairs:,} gave a pair."
    if summary.lost:
        text += "\n\n" + table(("reason", "drawings"), summary.lost.items())
        rows = ([*key, count] for key, count in summary.lost_by_template.items())
        text += "\n\n" + table(("reason", "source", "template", "drawings"), rows)
    if summary.absent:
        text += f"\n\nNot in the data folder: {', '.join(summary.absent)}."
    return text


def _how(summary: BuildSummary) -> str:
    told: Mapping[str, object] = summary.settings
    names = ("per_row", "limit", "balance", "caps", "exclude_license", "sources", "seed")
    return "## Settings\n\n" + table(("setting", "value"), ([name, f"`{told[name]}`"] for name in names))
