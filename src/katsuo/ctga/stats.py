"""What a build made: pairs by task type, source and template, rejects by reason, lengths, and a few pairs to see."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.config import Recipe as GenerateRecipe
from katsuo.ctga.remix import Pair
from katsuo.errors import MissingPackageError, ModelError, StoreError
from katsuo.models.locate import locate
from katsuo.records import Reason
from katsuo.registry import unknown_name
from katsuo.tasks import known_tasks

EMBEDDED: str = GenerateRecipe.model_fields["model"].default
_EXPECTED = {Reason.EMPTY_PART.value, Reason.OVER_CAP.value}
CountTokens = Callable[[Sequence[str]], list[int]]
_CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True)
class BuildSummary:
    """The ledger of a build: drawn = `pairs` + the sum of `lost`."""

    folder: str
    sources: tuple[Mapping[str, Any], ...]
    by_type: Mapping[str, int]
    by_source: Mapping[str, int]
    by_template: Mapping[tuple[str, str], int]
    lost: Mapping[str, int]
    lost_by_template: Mapping[tuple[str, str, str], int]
    """(reason, source, template) → count"""
    absent: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def pairs(self) -> int:
        """Count the pairs kept."""
        return sum(self.by_type.values())

    @property
    def is_short(self) -> bool:
        """True when a template failed on a row: more than the empty responses and the cuts that were asked for."""
        return any(reason not in _EXPECTED for reason in self.lost)

    @property
    def drawn(self) -> int:
        """Count the drawings: every one is a pair or a reject."""
        return self.pairs + sum(self.lost.values())

    @classmethod
    def of(cls, manifest: Mapping[str, Any], folder: str = "") -> BuildSummary:
        """Add a manifest up."""
        counts: dict[str, Counter[Any]] = {name: Counter() for name in ("type", "source", "template", "lost", "where")}
        for source, task_type, template, count in manifest["pairs"]:
            counts["type"][task_type] += count
            counts["source"][source] += count
            counts["template"][source, template] += count
        for source, reason, template, count in manifest["lost"]:
            counts["lost"][reason] += count
            counts["where"][reason, source, template] += count
        ordered = {name: dict(counter.most_common()) for name, counter in counts.items()}
        return cls(
            folder, tuple(manifest["sources"]), ordered["type"], ordered["source"], ordered["template"],
            ordered["lost"], ordered["where"], tuple(manifest["absent"]), manifest["settings"],
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Give plain values, for `--json`."""
        return {
            "drawn": self.drawn,
            "pairs": self.pairs,
            "by_type": dict(self.by_type),
            "by_source": dict(self.by_source),
            "by_template": [[*key, count] for key, count in self.by_template.items()],
            "rejected": dict(self.lost),
            "rejected_by_template": [[*key, count] for key, count in self.lost_by_template.items()],
            "absent_sources": list(self.absent),
            "sources": [dict(source) for source in self.sources],
        }


def summarize(folder: Path) -> BuildSummary:
    """Read the ledger of a finished build; raise `StoreError` when there is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        begun = (folder / "recipe.json").exists()
        hint = "finish it: run the same `katsuo ctga build` again" if begun else "give the folder of a build"
        raise StoreError(f'"{folder}" holds no finished build', hint=hint) from error
    except (OSError, ValueError) as error:
        raise StoreError(f'cannot read "{folder}/manifest.json": {error}', hint="build again") from error
    return BuildSummary.of(manifest, str(folder))


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of one column over `pairs` pairs, spread evenly over the build."""

    column: str
    pairs: int
    mean: float
    median: int
    p95: int
    longest: int

    def as_row(self) -> tuple[object, ...]:
        """Give the fields in order, for a table."""
        return (self.column, self.pairs, self.mean, self.median, self.p95, self.longest)


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """Estimate by four characters a token, for when no tokenizer is at hand."""
    return [math.ceil(len(text) / _CHARACTERS_PER_TOKEN) for text in texts]


def choose_counter(model: str | None = None) -> tuple[CountTokens, str]:
    """Give a way to count tokens and its name: the model's tokenizer, else the embedded one's, else an estimate."""
    if model is not None:
        return open_tokenizer(locate(model)), f"the tokenizer of {model}"
    try:
        return open_tokenizer(locate(EMBEDDED)), f"the tokenizer of {EMBEDDED}"
    except (ModelError, MissingPackageError):
        return (
            estimate_tokens,
            f"an estimate: {_CHARACTERS_PER_TOKEN:g} characters a token (`katsuo pull` brings a tokenizer)",
        )


def open_tokenizer(folder: Path) -> CountTokens:
    """Count with the `tokenizer.json` of a model folder; raise `ModelError` when there is none."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'counting tokens needs the package "tokenizers", which is not installed', hint="pip install 'katsuo[hf]'"
        ) from error
    path = folder / "tokenizer.json" if folder.is_dir() else folder
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise ModelError(f'cannot read the tokenizer "{path}": {error}', hint="give a model folder") from error
    return lambda texts: [
        len(found.ids) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ]


def measure_lengths(folder: Path, count_tokens: CountTokens, *, sample: int = 20_000) -> list[Lengths]:
    """Measure `input` and `output` of at most `sample` pairs, every n-th of the build."""
    files = sorted((folder / "data").glob("*.parquet"))
    try:
        total = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
        step = max(1, math.ceil(total / sample))
        texts: dict[str, list[str]] = {"input": [], "output": []}
        place = 0
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(columns=list(texts)):
                taken = range(-place % step, batch.num_rows, step)
                for column, found in texts.items():
                    found += batch.column(column).take(pa.array(taken, pa.int64())).to_pylist()
                place += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f'cannot read the pairs in "{folder}": {error}', hint="build again") from error
    return [_lengths(column, count_tokens(found)) for column, found in texts.items() if found]


def _lengths(column: str, counts: list[int]) -> Lengths:
    ordered = sorted(counts)
    return Lengths(
        column, len(ordered), round(statistics.fmean(ordered), 1), ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], ordered[-1],
    )  # fmt: skip


def pick_pairs(folder: Path, *, task_type: str | None = None, source: str | None = None, count: int = 3) -> list[Pair]:
    """Give the first pairs of a task type (full or short name) and a source; raise for a name the build lacks."""
    summary = summarize(folder)
    known = known_tasks()
    wanted = known[task_type].name if task_type in known else task_type
    if wanted and wanted not in summary.by_type:
        raise unknown_name("task type of this build", wanted, summary.by_type)
    if source and source not in summary.by_source:
        raise unknown_name("source of this build", source, summary.by_source)
    found: list[Pair] = []
    for pair in _pairs(folder, source):
        if wanted in (None, pair.task_type):
            found.append(pair)
        if len(found) == count:
            break
    return found


def _pairs(folder: Path, source: str | None) -> Iterator[Pair]:
    stem = source.replace("/", "__") if source else ""
    for path in sorted((folder / "data").glob(f"{stem}*.parquet")):
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    pair = Pair(**row)
                    if source in (None, f"{pair.dataset}/{pair.config}" if pair.config else pair.dataset):
                        yield pair
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f'cannot read "{path}": {error}', hint="build again into another folder") from error
