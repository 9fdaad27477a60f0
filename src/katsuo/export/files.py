"""Folders that appear whole or not at all, and rows on disk as JSON Lines or Parquet, batch by batch."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.errors import ExportError, RunExistsError

_BATCH_ROWS = 1_000
_SHARD_ROWS = 100_000
_LINE_BREAKS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """
    Give an empty folder to write into; when all went well it takes the place of `target`, else nothing is left.

    Raise `RunExistsError` when `target` holds anything, `ExportError` when the disk is full or the place is closed.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - a link to a folder stays a link
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RunExistsError(
                f'"{target}" exists and is not empty', hint="choose an empty or a new folder with `-o`"
            )
        partial.mkdir(parents=True)
        try:
            yield partial
            if target.is_dir():
                target.rmdir()  # Windows renames nothing onto a folder
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise _translated(error, target) from error


def _translated(error: OSError, target: Path) -> ExportError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ExportError(
            f'no space left for "{target}"',
            hint="free some space or choose another disk with `-o`; nothing was left behind",
        )
    return ExportError(f'cannot write "{target}": {error.strerror or error}', hint="choose another folder with `-o`")


class RowFile(Protocol):
    """Rows of one split on their way to disk; `pattern` is their path or glob in the folder."""

    pattern: str

    def write(self, row: dict[str, Any]) -> None:
        """Take one row."""
        ...

    def __enter__(self) -> RowFile: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_rows(folder: Path, split: str, file_type: str, schema: pa.Schema) -> RowFile:
    """Open the file or folder of shards that takes the rows of one split."""
    return ParquetShards(folder, split, schema) if file_type == "parquet" else JsonLines(folder, split)


class JsonLines:
    """
    One object per line in `SPLIT.jsonl`, UTF-8, every line break inside a text escaped.

    Readers that guess types (`datasets`, pyarrow) take a column in which every text is a date for a column of dates and
    change the texts. Such a file is refused when it is closed.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.pattern = f"{split}.jsonl"
        self._file: BinaryIO = (folder / self.pattern).open("wb")
        self._only_dates: set[str] | None = None

    def write(self, row: dict[str, Any]) -> None:
        """Write one row."""
        if self._only_dates is None:
            self._only_dates = {name for name, value in row.items() if isinstance(value, str)}
        if self._only_dates:
            self._only_dates = {name for name in self._only_dates if _DATE.fullmatch(row[name])}
        self._file.write(json.dumps(row, ensure_ascii=False).translate(_LINE_BREAKS).encode() + b"\n")

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                _flush_to_disk(self._file)
        if kind is None and self._only_dates:
            raise ExportError(
                f'every "{min(self._only_dates)}" in {self.pattern} is a date, which its readers would rewrite',
                hint="--file-type parquet keeps texts as they are",
            )


class ParquetShards:
    """Shards `SPLIT/00000.parquet`, `SPLIT/00001.parquet`, … with a declared schema."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self.pattern = f"{split}/*.parquet"
        self._folder = folder / split
        self._folder.mkdir()
        self._schema = schema
        self._batch: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._writer: pq.ParquetWriter | None = None
        self._shard = self._rows = 0

    def write(self, row: dict[str, Any]) -> None:
        """Take one row; write when a batch is full."""
        self._batch.append(row)
        if len(self._batch) == _BATCH_ROWS:
            self._write_batch()
            if self._rows >= _SHARD_ROWS:
                self._close_shard()

    def _write_batch(self) -> None:
        if self._writer is None:
            self._file = (self._folder / f"{self._shard:05d}.parquet").open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._batch, schema=self._schema))
        self._rows += len(self._batch)
        self._batch = []

    def _close_shard(self) -> None:
        if self._writer is not None and self._file is not None:
            with self._file:
                self._writer.close()
                _flush_to_disk(self._file)
        self._writer = self._file = None
        self._shard, self._rows = self._shard + 1, 0

    def __enter__(self) -> ParquetShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._batch:
                self._write_batch()
            self._close_shard()
        elif self._file is not None:
            self._file.close()


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
