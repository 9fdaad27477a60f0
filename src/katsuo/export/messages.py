"""Chat turns in one column, `messages`."""

from __future__ import annotations

import pyarrow as pa

from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example

TURNS = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))


def write_messages(order: Order) -> None:
    """Write one user turn and one assistant turn per row, in the shape that most chat trainers read."""
    order.write_rows(lambda example: {"messages": turns(example)}, {"messages": TURNS})


def turns(example: Example) -> list[Row]:
    """Give the two turns of an example."""
    return [{"role": "user", "content": example.instruction}, {"role": "assistant", "content": example.response}]
