"""Rotary positions of queries and keys in three passes over memory instead of seven, and as many backwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_NAME = "apply_rotary_pos_emb"
_LARGEST_DIFFERENCE = 0.01

Turn = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@contextmanager
def quicker_rotary(model: nn.Module) -> Iterator[int]:
    """
    Let the modules that the model's layers come from turn queries and keys quickly; give how many do.

    transformers has a function for it in the module of each architecture. It is put back at the end, and left alone
    unless a trial shows that it is `x * cos + rotate_half(x) * sin`; some models turn in another order or only a part.
    """
    there = {type(layer).__module__: sys.modules[type(layer).__module__] for layer in model.modules()}
    found = {name: getattr(module, _NAME) for name, module in there.items() if hasattr(module, _NAME)}
    found = {name: turn for name, turn in found.items() if _agrees(turn)}
    for name, turn in found.items():
        setattr(there[name], _NAME, _quick(turn))
    try:
        yield len(found)
    finally:
        for name, turn in found.items():
            setattr(there[name], _NAME, turn)


@torch.no_grad()
def _agrees(turn: Turn) -> bool:
    query = torch.linspace(-2.0, 3.0, 2 * 3 * 8).view(1, 2, 3, 8)
    key = query.flip(-1)[:, :1]
    cos, sin = (torch.linspace(start, 1.0, 3 * 8).view(1, 3, 8) for start in (-1.0, 0.25))
    try:
        theirs = turn(query, key, cos, sin)
    except (TypeError, ValueError, RuntimeError):
        # It wants something else than this.
        return False
    ours = _quick(turn)(query, key, cos, sin)
    return all(
        (one - other).norm() <= _LARGEST_DIFFERENCE * other.norm() for one, other in zip(ours, theirs, strict=True)
    )


def _quick(turn: Turn) -> Turn:
    def quick(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if q.dtype != cos.dtype or q.shape[-1] != cos.shape[-1]:
            # As under autocast, where a product's number format is that of the wider factor; or only a part is turned.
            return turn(q, k, cos, sin, unsqueeze_dim)
        wide = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        apply: Any = _Turn.apply
        return apply(q, *wide), apply(k, *wide)

    return quick


class _Turn(torch.autograd.Function):
    """`x * cos + rotate_half(x) * sin`, with a gradient for x; (1, heads, tokens, width), (1, 1, tokens, width)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        out = x * cos
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (gradient,) = gradients
        half = gradient.shape[-1] // 2
        out = gradient * cos
        out[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        out[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
        return out, None, None
