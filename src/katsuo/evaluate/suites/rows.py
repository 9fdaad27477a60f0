"""Read labelled rows whole, from Parquet, JSON lines or CSV."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.errors import SourceError, UsageError

Row = dict[str, Any]
_MAX_FIELD_CHARS = 1 << 28


def read_rows(path: Path) -> list[Row]:
    """Give the rows of a file; raise `SourceError` for one that cannot be read."""
    try:
        if path.suffix == ".parquet":
            rows: list[Row] = pq.read_table(path).to_pylist()
            return rows
        if path.suffix in (".jsonl", ".ndjson"):
            return [_object(path, number, line) for number, line in _lines(path)]
        if path.suffix in (".csv", ".tsv"):
            return _csv(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f'cannot read "{path}": {error}', hint="check the path and the file") from error
    raise SourceError(f'"{path}" is no table of rows', hint="give .parquet, .jsonl, .csv or .tsv")


def find_data(suite_data: str | None, data: Path | None, *, suite_file: Path) -> Path:
    """Give the file of a suite's rows: `data` if it is a file, else the suite's own place, in `data` or beside it."""
    if data is not None and data.is_file():
        return data
    if data is not None and not data.exists():
        raise SourceError(f'there is no "{data}"', hint="give --data a file of rows, or the folder that holds them")
    if suite_data is None:
        raise UsageError("the suite does not say where its rows are", hint="give --data a file of rows")
    place = (data or suite_file.parent) / suite_data
    if not place.is_file():
        raise SourceError(f'there is no "{place}"', hint=f"give --data the folder that holds {suite_data}")
    return place


def rename(rows: list[Row], columns: Mapping[str, Iterable[str]], *, where: Path) -> list[Row]:
    """Give rows under the names that templates use: of the columns that may bear a name, the first one there."""
    if not rows:
        raise SourceError(f'"{where}" holds no row', hint="give a file with labelled rows")
    there = list(dict.fromkeys(key for row in rows[:1000] for key in row))
    taken = {}
    for name, allowed in columns.items():
        found = next((column for column in allowed if column in there), None)
        if found is None:
            wanted = " or ".join(f'"{column}"' for column in allowed)
            near = difflib.get_close_matches(next(iter(allowed)), there, n=1)
            hint = f"say which one it is: --column {name}={near[0] if near else 'NAME'}"
            raise UsageError(f'"{where}" has no column {wanted}; its columns: {", ".join(there)}', hint=hint)
        taken[name] = found
    return [{**row, **{name: row.get(column) for name, column in taken.items()}} for row in rows]


def nearest_column(name: str, columns: Sequence[str]) -> str:
    """Say which column may have been meant, or which there are."""
    near = difflib.get_close_matches(name, columns, n=1)
    return f'did you mean "{near[0]}"?' if near else f"columns: {', '.join(columns)}"


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    with path.open(encoding="utf-8-sig") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _object(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SourceError(f'line {number} of "{path}" is not JSON: {error}', hint="write one object per line") from None
    if not isinstance(row, dict):
        raise SourceError(f'line {number} of "{path}" is no object', hint="write one object per line")
    if "\\u" in line and not _is_text(row):
        raise SourceError(
            f'line {number} of "{path}" holds half a character (a lone surrogate), which is no text',
            hint="mend the line, or leave it out",
        )
    return row


def _is_text(row: Row) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(path: Path) -> list[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARS))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, dialect="excel-tab" if path.suffix == ".tsv" else "excel", strict=True)
        rows = list(reader)
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise SourceError(
                f'line {number} of "{path}" has another number of fields than its header', hint="mend the line"
            )
    return rows
