"""TRL: `prompt` and `completion`."""

from __future__ import annotations

import pyarrow as pa

from katsuo.export.messages import TURNS
from katsuo.export.order import TEXT, Order, Row
from katsuo.records import Example

_PLAIN: dict[str, pa.DataType] = {"prompt": TEXT, "completion": TEXT}
_CHAT: dict[str, pa.DataType] = {"prompt": TURNS, "completion": TURNS}


def write_trl(order: Order) -> None:
    """
    Write prompt-completion rows, the one type on which TRL's SFTTrainer takes the loss on the answer only by default.

    Chat turns, so that the trainer puts the model's own chat template around them; plain strings for a base model that
    has none (TRL documentation, "Dataset formats and types").
    """
    if order.options.plain:
        order.write_rows(_plain_row, _PLAIN)
    else:
        order.write_rows(_chat_row, _CHAT)


def _chat_row(example: Example) -> Row:
    return {
        "prompt": [{"role": "user", "content": example.instruction}],
        "completion": [{"role": "assistant", "content": example.response}],
    }


def _plain_row(example: Example) -> Row:
    """
    Part the two by a line break, at the end of the prompt.

    TRL joins the strings as they are. Many tokenizers merge a full stop with the line break after it, so a break at the
    start of the completion would make the prompt's tokens differ from the first tokens of the whole.
    """
    return {"prompt": f"{example.instruction}\n", "completion": example.response}
