"""Every column of the run, in Parquet."""

from __future__ import annotations

import pyarrow as pa

from katsuo.errors import UsageError
from katsuo.export.messages import TURNS, turns
from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example

COLUMNS: dict[str, pa.DataType] = {
    "task_type": TEXT,
    "instruction": TEXT,
    "response": TEXT,
    "messages": TURNS,
    "passage_id": TEXT,
    "source": TEXT,
    "char_start": pa.int64(),
    "char_end": pa.int64(),
    "context": TEXT,
    "model": TEXT,
    "engine": TEXT,
    "sampling": TEXT,
    "prompt_hash": TEXT,
    "seed": pa.int64(),
    "checks": pa.list_(TEXT),
}


def write_parquet(order: Order) -> None:
    """Write all that the run knows of each example, in shards of 100,000."""
    if order.options.file_type == "jsonl":
        raise UsageError(
            "all columns are written as Parquet only", hint="leave out --file-type, or use --format messages"
        )
    order.write_rows(row, COLUMNS, file_type="parquet")


def row(example: Example) -> Row:
    """Give every column but the id."""
    rest = {name: getattr(example, name) for name in COLUMNS if name != "messages"}
    return {**rest, "messages": turns(example), "checks": list(example.checks)}
