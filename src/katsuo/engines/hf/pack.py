"""Keep weight matrices in the layout that the processor's matrix units read, instead of rearranging them every step."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

USUAL_ROWS = 32
"""Rows of a typical step; the layout is chosen for it and fits any other number."""


class PackedLinear(nn.Module):
    """A linear layer of oneDNN with its weight packed once; the same numbers as the plain layer, bit by bit."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = packed(linear.weight, rows=USUAL_ROWS)
        self.bias = linear.bias
        # Shape and type without numbers, for model code that asks a layer about its weight.
        self.weight = linear.weight.detach().to("meta")

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Multiply by the packed weight."""
        return multiply(hidden, self.packed, self.bias)


def pack_linears(model: PreTrainedModel) -> int:
    """
    Pack every plain linear layer in place where that helps; give how many were.

    It helps for bfloat16 on a processor whose matrix units oneDNN knows; everywhere else nothing is changed.
    """
    if not can_pack(model):
        return 0
    linears = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in linears:
        setattr(parent, name, PackedLinear(child))
    return len(linears)


def can_pack(held: PreTrainedModel | torch.Tensor) -> bool:
    """Say whether a model or a weight can be packed: bfloat16 on a processor that has instructions for it."""
    return held.device.type == "cpu" and held.dtype == torch.bfloat16 and is_packing_available()


def packed(weight: torch.Tensor, *, rows: int) -> torch.Tensor:
    """Give a copy of a weight (out, in) in the layout that suits products of about that many rows."""
    copy: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return copy


def multiply(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiply (any, in) by a packed weight."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
    return product


def is_packing_available() -> bool:
    """Say whether torch has oneDNN with native bfloat16 and the two operations that packing needs."""
    operations = getattr(torch.ops, "mkldnn", None)
    needed = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not torch._C._has_mkldnn or not all(hasattr(operations, name) for name in needed):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
