"""Alpaca: `instruction`, `input`, `output`."""

from __future__ import annotations

from katsuo.export.llama_factory import write_dataset_info
from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example


def write_alpaca(order: Order) -> None:
    """
    Write Alpaca rows and the `dataset_info.json` that LLaMA-Factory reads.

    `input` is empty: the generator chose where the passage stands in the instruction, and trainers would put `input`
    after it.
    """
    order.write_rows(_row, {"instruction": TEXT, "input": TEXT, "output": TEXT})
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    write_dataset_info(order, {"formatting": "alpaca", "columns": columns})


def _row(example: Example) -> Row:
    return {"instruction": example.instruction, "input": "", "output": example.response}
