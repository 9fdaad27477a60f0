"""Short trials of a model before its training: what it can be passed in a row, and whose attention it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from katsuo.train.encode import Encoded
from katsuo.train.loss import row_logits
from katsuo.train.pack import ATTENTION, Batch, collate, split

AS_WRITTEN = "eager"
"""The attention that transformers writes out for each architecture, with all that is its own."""
_LARGEST_DIFFERENCE = 0.05
"""Of the logits' own size; sixteen-bit arithmetic in another order stays well below."""


def can_pack(model: Any, vocabulary: int) -> bool:
    """Say whether an example in a row after another has the logits that it has alone, which not every model gives."""
    ids = _ids(vocabulary)
    # The second example is learned from its second token on, the one that would see most of the row before.
    batch = _on(model, collate([Encoded(ids[:14], 13), Encoded(ids[14:], 1)]))
    return _are_alike(
        model,
        lambda: row_logits(model, batch),
        lambda: torch.cat([row_logits(model, part) for part in split(batch)]),
    )


def take_attention(model: Any, vocabulary: int) -> bool:
    """
    Let a model attend by `attend`, unless its own attention gives something else; say whether it does.

    Some models add to their scores what `attend` does not know of, such as sinks or positions. They go on with what
    transformers writes out for them.
    """
    batch = _on(model, collate([Encoded(_ids(vocabulary), 1)]))

    def logits_by(attention: str) -> torch.Tensor:
        model.set_attn_implementation(attention)
        return row_logits(model, batch)

    is_alike = _are_alike(model, lambda: logits_by(AS_WRITTEN), lambda: logits_by(ATTENTION))
    model.set_attn_implementation(ATTENTION if is_alike else AS_WRITTEN)
    return is_alike


@torch.no_grad()
def _are_alike(model: Any, one: Callable[[], torch.Tensor], other: Callable[[], torch.Tensor]) -> bool:
    was_training = model.training
    model.eval()
    try:
        logits, others = one().float(), other().float()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        # Whatever this model needs instead, it cannot be passed so.
        return False
    finally:
        model.train(was_training)
    return bool((logits - others).norm() <= _LARGEST_DIFFERENCE * others.norm())


def _ids(vocabulary: int) -> Any:
    return (torch.arange(5, 35) * 7 % vocabulary).numpy().astype("int32")


def _on(model: Any, batch: Batch) -> Batch:
    return {name: tensor.to(model.device) for name, tensor in batch.items()}
