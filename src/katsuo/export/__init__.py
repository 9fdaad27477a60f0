"""Examples of a run → a folder that a trainer loads: data files, a data set card and what the trainer needs beside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from katsuo.errors import ExportError, UsageError
from katsuo.export.card import write_card
from katsuo.export.files import new_folder
from katsuo.export.order import Exporter, ExportOptions, Order
from katsuo.places import place_here
from katsuo.registry import Door, Registry
from katsuo.store import Run

EXPORTERS: Registry[Exporter] = Registry(
    "exporters",
    {
        "trl": Door("katsuo.export.trl:write_trl", summary="prompt and completion, for TRL"),
        "messages": Door("katsuo.export.messages:write_messages", summary="chat turns in one column"),
        "alpaca": Door(
            "katsuo.export.alpaca:write_alpaca", summary="instruction, input, output; also for LLaMA-Factory"
        ),
        "sharegpt": Door("katsuo.export.sharegpt:write_sharegpt", summary="conversations; also for LLaMA-Factory"),
        "bonito": Door("katsuo.export.bonito:write_bonito", summary="input and output, as in the Bonito library"),
        "parquet": Door("katsuo.export.parquet:write_parquet", summary="every column of the run"),
        "hub": Door("katsuo.export.hub:write_hub", extra="hub", summary="every column, pushed to the Hugging Face hub"),
    },
)
"""Data set formats by name."""


@dataclass(frozen=True)
class Exported:
    """What an export left: `files` are relative to `path`, `examples` counts each split, `url` is set by a push."""

    path: Path
    format: str
    examples: Mapping[str, int]
    files: tuple[str, ...]
    url: str = ""


def export_run(
    run: Run | Path | str,
    format: str,
    output: Path | str | None = None,
    *,
    file_type: str | None = None,
    with_provenance: bool = False,
    plain: bool = False,
    splits: Mapping[str, float] | None = None,
    license: str = "other",
    languages: Sequence[str] = (),
    repo_id: str | None = None,
    public: bool = False,
    allow_partial: bool = False,
) -> Exported:
    """
    Write the examples of a run as a data set in `output`, by default `RUN/export/FORMAT`.

    The folder appears whole or not at all, and one that holds anything is never overwritten. `splits` sets documents
    apart (`{"test": 0.1}`); `ExportOptions` tells what the other settings mean. Raise `ExportError` for a run that is
    empty or, without `allow_partial`, unfinished.

    >>> export_run("runs/contracts", "trl", "data/contracts", splits={"test": 0.1})  # doctest: +SKIP
    """
    write = EXPORTERS.get(format)
    options = ExportOptions(
        file_type=file_type,
        with_provenance=with_provenance,
        plain=plain,
        splits=dict(splits or {}),
        license=license,
        languages=tuple(languages),
        repo_id=repo_id,
        public=public,
    )
    _check_meaning(format, options)
    opened = run if isinstance(run, Run) else Run(run)
    _check_finished(opened, allow_partial=allow_partial)
    target = place_here(output if output is not None else opened.path / "export" / format, "a data set")
    with new_folder(target) as folder:
        order = Order(opened, folder, _name(opened.path), options)
        deliver = write(order)
        order.check_counts()
        write_card(order, format)
        files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    url = deliver(target) if deliver else ""
    return Exported(target, format, dict(order.examples_by_split), files, url)


def _check_meaning(format: str, options: ExportOptions) -> None:
    if options.plain and format != "trl":
        raise UsageError(f'"{format}" has no plain form', hint="--plain goes with --format trl")
    if (options.repo_id or options.public) and format != "hub":
        raise UsageError(
            f'"{format}" writes to the disk and pushes nothing', hint="--repo-id and --public go with --format hub"
        )


def _check_finished(run: Run, *, allow_partial: bool) -> None:
    summary = run.summary()
    if not (run.is_read() and summary.is_complete) and not allow_partial:
        ended = summary.kept + sum(summary.rejected.values())
        raise ExportError(
            f'the run in "{run.path}" is not finished: {ended} of {summary.prompts or "?"} prompts have ended',
            hint="give the same `katsuo generate` command again to finish it, or add --allow-partial",
        )
    if not summary.kept:
        raise ExportError(
            f'the run in "{run.path}" holds no examples', hint=f"`katsuo show {run.path} --rejects` tells why"
        )


def _name(path: Path) -> str:
    """Give the folder's own name, fit for a key and a title."""
    return re.sub(r"[^\w.-]+", "_", path.resolve().name).strip("._-") or "run"


__all__ = ["EXPORTERS", "ExportOptions", "Exported", "Exporter", "Order", "export_run"]
