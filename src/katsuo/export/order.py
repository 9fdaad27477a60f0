"""What an exporter gets to work with: the run, an empty folder, the options, and rows written for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from katsuo.errors import ExportError, UsageError
from katsuo.export.files import RowFile, open_rows
from katsuo.export.split import check_splits, choose_split
from katsuo.records import Example
from katsuo.store import Run

TEXT = pa.string()
Columns = Mapping[str, pa.DataType]
Row = dict[str, Any]

_PROVENANCE: Columns = {
    "source": TEXT,
    "char_start": pa.int64(),
    "char_end": pa.int64(),
    "passage_id": TEXT,
    "task_type": TEXT,
    "model": TEXT,
    "seed": pa.int64(),
}
_ROW_DETAIL = re.compile(r"#[^/#]*$")


@dataclass(frozen=True)
class ExportOptions:
    """Every setting of an export; raise `UsageError` for one that cannot be."""

    file_type: str | None = None
    """"jsonl" or "parquet"; by default the format's own choice."""
    with_provenance: bool = False
    """Add source, character span, passage, task type, model and seed to every row."""
    plain: bool = False
    """`trl` only: strings instead of chat turns."""
    splits: Mapping[str, float] = field(default_factory=dict)
    """Share of the documents in each split; what is left is "train"."""
    license: str = "other"
    """Licence of the data set, as the hub spells it."""
    languages: tuple[str, ...] = ()
    """Languages of the texts, as ISO 639 codes; none are named by default."""
    repo_id: str | None = None
    """`hub` only: owner/name of the data set."""
    public: bool = False
    """`hub` only: let everybody see it."""

    def __post_init__(self) -> None:
        if self.file_type not in (None, "jsonl", "parquet"):
            raise UsageError(f'unknown file type "{self.file_type}"', hint="--file-type takes jsonl or parquet")
        check_splits(self.splits)


class Order:
    """
    One export at work: an exporter reads `examples()` or, simpler, hands a row function to `write_rows`.

    `data_files` maps each split to the path or glob of its files, relative to `folder`; it goes into the card.
    """

    def __init__(self, run: Run, folder: Path, name: str, options: ExportOptions) -> None:
        self.run = run
        self.folder = folder
        self.name = name
        self.options = options
        self.data_files: dict[str, str] = {}
        self.examples_by_split: Counter[str] = Counter({name: 0 for name in ("train", *options.splits)})
        self.sources = SourceTally()

    def examples(self) -> Iterator[tuple[str, Example]]:
        """Read every example with the split that its document belongs to, in the order of the run."""
        for example in self.run.examples():
            split = choose_split(example.source, self.options.splits)
            self.examples_by_split[split] += 1
            self.sources.add(_ROW_DETAIL.sub("", example.source))
            yield split, example

    def write_rows(self, row: Callable[[Example], Row], columns: Columns, *, file_type: str = "jsonl") -> None:
        """
        Write one row per example into one file (or folder of shards) per split, a batch at a time.

        An `id` is put before the row's own columns; where provenance is asked for, its columns come after them.
        """
        file_type = self.options.file_type or file_type
        provenance = _PROVENANCE if self.options.with_provenance else {}
        added = {name: kind for name, kind in provenance.items() if name not in columns}
        schema = pa.schema({"id": TEXT, **columns, **added})
        with ExitStack() as open_files:
            files: dict[str, RowFile] = {}
            for split, example in self.examples():
                if split not in files:
                    files[split] = open_files.enter_context(open_rows(self.folder, split, file_type, schema))
                    self.data_files[split] = files[split].pattern
                origin = {name: getattr(example, name) for name in added}
                files[split].write({"id": example.id, **row(example), **origin})

    def check_counts(self) -> None:
        """Raise `ExportError` when the run's files hold less than its markers say, or when a split came out empty."""
        written, kept = self.examples_by_split.total(), self.run.summary().kept
        if written < kept:
            raise ExportError(
                f'"{self.run.path}" holds {written} examples where its markers count {kept}',
                hint="the run is damaged: make it again",
            )
        for split, count in self.examples_by_split.items():
            if not count:
                raise ExportError(
                    f'no document fell into the split "{split}"',
                    hint="give the smaller split a bigger share with --split, or leave --split out",
                )


class SourceTally:
    """
    Count the examples of the first files by name and all others together.

    Examples come in document order, so that a new name is a new file and nothing else has to be remembered.
    """

    def __init__(self, shown: int = 50) -> None:
        self._shown = shown
        self._last = ""
        self.first: Counter[str] = Counter()
        self.more_files = 0
        self.more_examples = 0

    def add(self, name: str) -> None:
        """Count one example of the file `name`."""
        if name in self.first or len(self.first) < self._shown:
            self.first[name] += 1
            return
        self.more_examples += 1
        self.more_files += name != self._last
        self._last = name


class Exporter(Protocol):
    """
    Write the data files of an order.

    What is to be done once the folder stands in its place (a push) is given back as a function from that place to an
    address. Whatever can be refused is refused before anything is written.
    """

    def __call__(self, order: Order) -> Callable[[Path], str] | None:
        """Write into `order.folder`."""
        ...
