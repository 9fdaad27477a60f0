"""Tables to text, one document per row, streamed: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from katsuo.errors import SourceError
from katsuo.places import is_url, reaching
from katsuo.records import Document, Reason, Reject
from katsuo.sources.base import EMPTY, Refusal
from katsuo.sources.text import byte_order_mark

_BATCH_ROWS = 256
_FIRST_ROWS = 100
"""Of JSON lines, so many are looked at for the names of the columns."""
_MAX_FIELD_CHARS = 1 << 28
"""A longer CSV field is taken for an unclosed quote."""
_DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|"}
_BROKEN_FILE = (OSError, ValueError, NotImplementedError)
"""What a file that is not what its name says raises; ArrowInvalid is a ValueError."""


class Row(NamedTuple):
    """One row: its 0-based number, and its text or why it has none."""

    number: int
    value: object


def check_column(path: Path, *, format: str, column: str) -> None:
    """Raise `SourceError` that lists the columns when the table at `path` has no `column`; a broken one passes."""
    try:
        with reaching(path):
            columns = _COLUMNS[format](path, column)
    except _BROKEN_FILE:
        return  # reading gives the reject that says what is wrong
    if columns is not None and column not in columns:
        raise SourceError(
            f'"{path}" has no column "{column}"',
            hint=f"--text-column takes one of: {', '.join(map(str, columns))}; or leave the file out with --exclude",
        )


def read_table(path: Path, *, source: str, format: str, column: str) -> Iterator[Document | Reject]:
    """
    Give a document or a reject for each row, in order, named `source#row=N`.

    N counts from 0: records after the header in CSV and TSV, lines (blank ones too) in JSON lines, rows in Parquet.
    Only a batch of rows is in memory at a time. A table that breaks off ends with one reject for the whole file.
    """
    try:
        with reaching(path):
            yield from documents(_ROWS[format](path, column), source=source)
    except _BROKEN_FILE as error:
        yield Refusal(Reason.UNREADABLE, f"{type(error).__name__}: {error}").reject(source)


def documents(rows: Iterable[Row], *, source: str) -> Iterator[Document | Reject]:
    """Turn rows into documents named `source#row=N`; a row without usable text becomes a reject."""
    for number, value in rows:
        name = f"{source}#row={number}"
        if isinstance(value, str):
            if not value.strip():
                yield EMPTY.reject(name)
            elif (at := _lone_surrogate(value)) is not None:
                yield Refusal(Reason.NOT_TEXT, f"no Unicode text at character {at} of the row").reject(name)
            else:
                yield Document(source=name, text=value)
        elif isinstance(value, Refusal):
            yield value.reject(name)
        elif value is None:
            yield EMPTY.reject(name)
        else:
            yield Refusal(Reason.NOT_TEXT, f"the text column holds {type(value).__name__} {value!r:.80}").reject(name)


def _lone_surrogate(text: str) -> int | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _json_columns(path: Path, column: str) -> list[str] | None:
    del column
    with path.open("rb") as lines:
        rows = [row for line in islice(lines, _FIRST_ROWS) if isinstance(row := _parse_line(line), dict)]
    return list(dict.fromkeys(name for row in rows for name in row)) if rows else None


def _json_rows(path: Path, column: str) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            row = _parse_line(line)
            if isinstance(row, dict):
                missing = Refusal(Reason.UNREADABLE, f'line {number + 1} has no "{column}"')
                yield Row(number, row.get(column, missing))
            else:
                yield Row(number, Refusal(Reason.UNREADABLE, f"line {number + 1} is not a JSON object: {line[:60]!r}"))


def _parse_line(line: bytes) -> object:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None


def _csv_columns(path: Path, column: str, *, format: str) -> list[str] | None:
    delimiter = _delimiter(path, column, format=format)
    with _open_table(path) as lines:
        return _header(csv.reader(lines, delimiter=delimiter)) or None


def _csv_rows(path: Path, column: str, *, format: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARS))
    delimiter = _delimiter(path, column, format=format)
    with _open_table(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = _header(reader)
        if not header:
            yield Row(0, None)  # an empty file
            return
        place = header.index(column)
        yield from (Row(number, value) for number, value in enumerate(_csv_values(reader, header, place)))


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise ValueError(f"the header is broken: {error}") from error
    if any("\0" in name or _lone_surrogate(name) is not None for name in header):
        raise ValueError("the header is not text")
    return header


def _csv_values(reader: Any, header: list[str], place: int) -> Iterator[object]:
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal(Reason.UNREADABLE, f"lines {first_line} to {reader.line_num}: {error}")
            continue
        if len(row) == len(header):
            yield row[place]
        elif row:
            detail = f"line {first_line} has {len(row)} fields where the header has {len(header)}"
            yield Refusal(Reason.UNREADABLE, detail)


def _delimiter(path: Path, column: str, *, format: str) -> str:
    """Give the first usual delimiter that makes `column` one of the header's, since spreadsheets differ by country."""
    with _open_table(path) as lines:
        header = lines.readline()
    for delimiter in _DELIMITERS[format]:
        if column in _header(csv.reader([header], delimiter=delimiter)):
            return delimiter
    return max(_DELIMITERS[format], key=header.count)


def _open_table(path: Path) -> io.TextIOWrapper:
    """Open as text such that a byte that does not decode spoils its own row only: it comes as a lone surrogate."""
    with path.open("rb") as file:
        encoding, _ = byte_order_mark(file.read(4))
    # These two codecs drop the mark; the ones that name their byte order would keep it.
    codec = {None: "utf-8", "utf-8": "utf-8-sig"}.get(encoding) or str(encoding).rsplit("-", 1)[0]
    return path.open(encoding=codec, errors="surrogateescape" if codec.startswith("utf-8") else "strict", newline="")


def _parquet_columns(path: Path, column: str) -> list[str] | None:
    del column
    with _open_parquet(path) as file:
        return list(file.schema_arrow.names)


def _parquet_rows(path: Path, column: str) -> Iterator[Row]:
    number = 0
    with _open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[column], use_threads=False):
            for value in _plain_values(batch.column(0)):
                yield Row(number, value)
                number += 1


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        place = stack.enter_context(path.open("rb")) if is_url(path) else path
        yield stack.enter_context(pq.ParquetFile(place, pre_buffer=False))


def _plain_values(values: Any) -> list[object]:
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        # Parquet does not enforce UTF-8: take the bytes, so that one bad value spoils its own row only.
        import pyarrow

        raw = values.cast(pyarrow.large_binary()).to_pylist()
        return [value if value is None else value.decode(errors="surrogateescape") for value in raw]


_COLUMNS = {
    "jsonl": _json_columns,
    "csv": lambda path, column: _csv_columns(path, column, format="csv"),
    "tsv": lambda path, column: _csv_columns(path, column, format="tsv"),
    "parquet": _parquet_columns,
}
_ROWS = {
    "jsonl": _json_rows,
    "csv": lambda path, column: _csv_rows(path, column, format="csv"),
    "tsv": lambda path, column: _csv_rows(path, column, format="tsv"),
    "parquet": _parquet_rows,
}
TABLES = frozenset(_ROWS)
