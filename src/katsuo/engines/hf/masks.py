"""Which keys a query may look at, when every row stands at a position of its own."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_kinds(model: PreTrainedModel) -> set[str]:
    """Name the kinds of attention that a model's layers have."""
    config = model.config.get_text_config()
    if kinds := getattr(config, "layer_types", None):
        return set(kinds)
    return {SLIDING if _window(model) else FULL}


def additive_masks(
    model: PreTrainedModel, positions: torch.Tensor, visible: int
) -> torch.Tensor | dict[str, torch.Tensor]:
    """
    Give what to add to the attention scores: 0 where a query may look, the lowest number where not.

    `positions` (rows, queries) are those of the queries; keys stand at 0 … `visible`-1 of their row. The shape is
    (rows, 1, queries, visible); a model with two kinds of layers gets one mask for each.
    """
    kinds = layer_kinds(model)
    masks = {kind: _mask(model, positions, visible, _window(model) if kind == SLIDING else None) for kind in kinds}
    return masks if len(masks) > 1 else masks[next(iter(kinds))]


def masks_of(
    model: PreTrainedModel, sees: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    """
    Give what to add to the attention scores where `sees` (rows, queries, keys) says who may look at whom.

    `positions` (rows, tokens) are those of queries and keys alike; a sliding window goes by them.
    """
    kinds = layer_kinds(model)
    masks = {}
    for kind in kinds:
        hidden, window = ~sees, _window(model) if kind == SLIDING else None
        if window:
            hidden = hidden | (positions[:, None, :] <= positions[:, :, None] - window)
        masks[kind] = _additive(model, hidden)
    return masks if len(masks) > 1 else masks[next(iter(kinds))]


def _mask(model: PreTrainedModel, positions: torch.Tensor, visible: int, window: int | None) -> torch.Tensor:
    keys = torch.arange(visible, device=positions.device)
    hidden = keys > positions[:, :, None]
    if window:
        hidden |= keys <= positions[:, :, None] - window
    return _additive(model, hidden)


def _additive(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(hidden.shape, dtype=model.dtype, device=hidden.device).masked_fill_(hidden, lowest)[:, None]


def _window(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window
