"""Bonito: `input` and `output`."""

from __future__ import annotations

from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example


def write_bonito(order: Order) -> None:
    """Write rows with the column names of the paper's library (Nayak et al. 2024, arXiv 2402.18334)."""
    order.write_rows(_row, {"input": TEXT, "output": TEXT})


def _row(example: Example) -> Row:
    return {"input": example.instruction, "output": example.response}
