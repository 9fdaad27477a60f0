"""Read labelled rows by number, from Parquet, JSONL or the hub, a batch at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.ctga.catalog import Source
from katsuo.errors import MissingPackageError, SourceError

Row = tuple[int, dict[str, Any]]
_BATCH = 512


class Rows(Protocol):
    """The rows of one split; numbers count from 0 over all of its files in order of their names."""

    def columns(self) -> list[str]:
        """Name the columns."""
        ...

    def count(self) -> int:
        """Count the rows."""
        ...

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows from `start` up to `stop`, only the columns asked for; one batch is in memory at a time."""
        ...


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files; row groups before the range are not read."""

    paths: tuple[Path, ...]

    def columns(self) -> list[str]:
        """Name the columns of the first file."""
        return list(_open_parquet(self.paths[0]).schema_arrow.names)

    def count(self) -> int:
        """Count from the footers."""
        return sum(_open_parquet(path).metadata.num_rows for path in self.paths)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Row]:
        """Yield numbered rows."""
        first = 0
        for path in self.paths:
            file = _open_parquet(path)
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if first < stop and first + size > start:
                    yield from _numbered(_batches(file, group, columns, path), first, start, stop)
                first += size


@dataclass(frozen=True)
class JsonLinesRows:
    """Rows of JSONL files; lines before the range are passed over without being parsed. Blank lines do not count."""

    paths: tuple[Path, ...]

    def columns(self) -> list[str]:
        """Name the keys of the first thousand rows."""
        first = itertools.islice(self._lines(), 1000)
        return list(dict.fromkeys(key for number, line in first for key in self._parse(number, line)))

    def count(self) -> int:
        """Count the lines that hold something."""
        return sum(1 for _ in self._lines())

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Row]:
        """Yield numbered rows; a key that a row lacks is None."""
        for number, line in itertools.islice(self._lines(), start, stop):
            row = self._parse(number, line)
            yield number, {name: row.get(name) for name in columns}

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        yield from enumerate(line for path in self.paths for line in _lines_of(path) if line.strip())

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SourceError(
                f'row {number} of "{self.paths[0].parent}" is not JSON: {error}', hint="write one object per line"
            ) from error
        if not isinstance(row, dict):
            raise SourceError(
                f'row {number} of "{self.paths[0].parent}" is no object', hint="write one object per line"
            )
        return row


@dataclass(frozen=True)
class HubRows:
    """Rows of a data set on the hub, read through `datasets` from its memory-mapped cache."""

    name: str
    config: str
    split: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker without the data: it opens the same cache."""
        return HubRows, (self.name, self.config, self.split)

    @cached_property
    def _dataset(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f'reading "{self.name}" from the hub needs the package "datasets", which is not installed',
                hint="pip install 'katsuo[hub]', or give a folder with --data",
            ) from error
        try:
            return datasets.load_dataset(self.name, self.config or None, split=self.split)
        except Exception as error:  # the library raises what its many file systems raise
            raise SourceError(
                f'cannot load "{self.name}" ({self.config or "no config"}, {self.split}) from the hub: {error}',
                hint="check the network and HF_TOKEN, leave it out with --sources, or give a folder with --data",
            ) from error

    def columns(self) -> list[str]:
        """Name the columns."""
        return list(self._dataset.column_names)

    def count(self) -> int:
        """Count the rows."""
        return len(self._dataset)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Row]:
        """Yield numbered rows."""
        chosen = self._dataset.select_columns(list(columns))
        for first in range(start, stop, _BATCH):
            batch = chosen[first : min(first + _BATCH, stop)]
            values = zip(*(batch[name] for name in columns), strict=True)
            yield from ((first + place, dict(zip(columns, row, strict=True))) for place, row in enumerate(values))


def open_rows(source: Source, data: str | None) -> Rows | None:
    """
    Open the rows of `source`: where its pack says, else in the folder `data`, else (`data` is None) on the hub.

    Give None when the folder `data` does not hold this source. Raise `SourceError` for a file that cannot be read.
    """
    place = source.data or data
    if place is None:
        return HubRows(source.dataset, source.config, source.split)
    if place.startswith("hf://"):
        name, _, config = place.removeprefix("hf://").partition(":")
        return HubRows(name, config or source.config, source.split)
    folder = Path(place)
    if source.data is None:
        if not folder.is_dir():
            raise SourceError(
                f'there is no folder "{folder}"', hint="give --data a folder of data sets, or leave it out"
            )
        folder = folder / source.folder
        if not folder.exists():
            return None
    rows = _open_files(folder, source.split)
    if rows is None:
        raise SourceError(
            f'no rows for "{source.name}" in "{folder}"',
            hint=f"expected {source.split}.parquet, {source.split}.jsonl or {source.split}-*.parquet",
        )
    return rows


def _open_files(place: Path, split: str) -> Rows | None:
    kinds: tuple[tuple[str, type[ParquetRows] | type[JsonLinesRows]], ...] = (
        ("parquet", ParquetRows), ("jsonl", JsonLinesRows),
    )  # fmt: skip
    for suffix, kind in kinds:
        if place.is_file() and place.suffix == f".{suffix}":
            return kind((place,))
        for stem in dict.fromkeys((split, split.split("_")[0])):  # a folder may call train_r3 just train
            if found := sorted([*place.glob(f"{stem}.{suffix}"), *place.glob(f"{stem}-*.{suffix}")]):
                return kind(tuple(found))
    return None


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)  # read ahead by pages, not by row groups
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f'cannot read "{path}": {error}', hint="check that it is a Parquet file") from error


def _batches(
    file: pq.ParquetFile, group: int, columns: Sequence[str], path: Path
) -> Iterator[tuple[int, Iterator[dict[str, Any]]]]:
    try:
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
            yield batch.num_rows, _dicts(batch)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f'cannot read "{path}": {error}', hint="the file is damaged: fetch it again") from error


def _dicts(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def _numbered(
    batches: Iterable[tuple[int, Iterator[dict[str, Any]]]], first: int, start: int, stop: int
) -> Iterator[Row]:
    for size, rows in batches:
        if first + size > start and first < stop:
            yield from ((number, row) for number, row in enumerate(rows, first) if start <= number < stop)
        first += size


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise SourceError(f'cannot read "{path}": {error.strerror}', hint="check the path") from error
