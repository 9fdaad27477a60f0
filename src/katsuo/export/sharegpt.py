"""ShareGPT: `conversations` of `from` and `value`."""

from __future__ import annotations

import pyarrow as pa

from katsuo.export.llama_factory import write_dataset_info
from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example

_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""All seven: LLaMA-Factory takes a tag that is not named for absent, not for its default."""


def write_sharegpt(order: Order) -> None:
    """Write ShareGPT rows and the `dataset_info.json` that LLaMA-Factory reads."""
    order.write_rows(_row, {"conversations": pa.list_(pa.struct([("from", TEXT), ("value", TEXT)]))})
    write_dataset_info(order, {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": _TAGS})


def _row(example: Example) -> Row:
    return {
        "conversations": [
            {"from": "human", "value": example.instruction},
            {"from": "gpt", "value": example.response},
        ]
    }
