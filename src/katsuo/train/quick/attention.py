"""Causal attention within each example of a packed row, and its gradient, as plain matrix products."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

_LONGEST_HELD = 512
"""Tokens of an example whose weights are held: they take 2 bytes for each pair of tokens and head."""


def attend_written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: Sequence[int], scale: float
) -> torch.Tensor:
    """Attend within each example; shapes (1, heads, tokens, width) → (1, tokens, heads, width)."""
    out: torch.Tensor = _Attention.apply(query, key, value, tuple(starts), scale)  # type: ignore[no-untyped-call]
    return out


def attend_plain(part: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
    """Attend within one example by torch's own kernel; shapes as those of the query."""
    query, key, value = part
    return functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )


class _Attention(torch.autograd.Function):
    """
    Attention whose backward pass is plain matrix products, and its forward pass where that is quicker.

    On processors torch's own backward pass does not use the matrix units for 16-bit numbers and takes several times as
    long. Here it goes example by example. The weights of short examples are held between the passes, those of long ones
    computed again, so that no more than one square of them is ever held.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: tuple[int, ...], scale: float
    ) -> torch.Tensor:
        ctx.starts, ctx.scale = starts, scale
        _, heads, tokens, width = query.shape
        out = query.new_empty(1, tokens, heads, width)
        is_own = _is_written_out(query.dtype)
        held: list[torch.Tensor | None] = []
        for start, stop in pairwise(starts):
            part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
            one, weights = _forward_one(part, scale) if is_own else (attend_plain(part, scale), None)
            out[:, start:stop] = one.transpose(1, 2)
            held.append(weights if stop - start <= _LONGEST_HELD else None)
        ctx.save_for_backward(query, key, value, out, *held)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, *held = ctx.saved_tensors
        (gradient,) = gradients
        results = [torch.empty_like(tensor) for tensor in (query, key, value)]
        # What the softmax takes off every row of the weights' gradients; shape (heads, tokens, 1).
        taken = (gradient.float() * out.float()).sum(dim=-1, keepdim=True)[0].transpose(0, 1).to(query.dtype)
        for (start, stop), weights in zip(pairwise(ctx.starts), held, strict=True):
            part = [tensor[0, :, start:stop] for tensor in (query, key, value)]
            own = gradient[0, start:stop].transpose(0, 1), taken[:, start:stop]
            for result, grad in zip(results, _backward_one(part, weights, *own, ctx.scale), strict=True):
                result[0, :, start:stop] = grad
        return (*results, None, None)


def _is_written_out(dtype: torch.dtype) -> bool:
    """Say whether the forward pass is, too: torch's kernel is quick for 16-bit numbers in matrix units (AMX) alone."""
    return dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()


def _forward_one(part: Sequence[torch.Tensor], scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend within one example; give what `attend_plain` gives, and the weights."""
    query, key, value = (tensor[0] for tensor in part)
    weights = _weights(_stacked(query, key), key, scale)
    return torch.bmm(weights, value).view_as(query)[None], weights


def _backward_one(
    part: Sequence[torch.Tensor],
    weights: torch.Tensor | None,
    gradient: torch.Tensor,
    taken: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give the gradients of one example's query, key and value; query heads that share a key head go together."""
    query, key, value = part
    stacked, gradient, taken = (_stacked(tensor, key) for tensor in (query, gradient, taken))
    weights = _weights(stacked, key, scale) if weights is None else weights
    grad_value = torch.bmm(weights.transpose(1, 2), gradient)
    room = _ROOM.square(tuple(weights.shape), weights.dtype)
    grad_scores = torch.bmm(gradient, value.transpose(1, 2), out=room).sub_(taken).mul_(weights)
    grad_query = torch.bmm(grad_scores, key).mul_(scale).view_as(query)
    grad_key = torch.bmm(grad_scores.transpose(1, 2), stacked).mul_(scale)
    return grad_query, grad_key, grad_value


def _stacked(heads: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Lay the heads that share a key head end to end: (heads, tokens, any) → (key heads, sharing * tokens, any)."""
    return heads.reshape(len(key), -1, heads.shape[-1])


def _weights(stacked: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """Give each query's weights over the keys; shape (key heads, sharing * tokens, tokens)."""
    length = key.shape[1]
    scores = _ROOM.square((len(stacked), stacked.shape[1], length), key.dtype)
    scores.view(len(stacked), -1, length, length).copy_(_ROOM.future(length, key.dtype))
    return torch.softmax(scores.baddbmm_(stacked, key.transpose(1, 2), alpha=scale), dim=-1)


class _Room(threading.local):
    """
    Memory that one example after the other is computed in.

    A square of scores has megabytes. Asked for anew each time, its pages are often given back and fetched again, which
    can take longer than what is computed in them.
    """

    def __init__(self) -> None:
        self._square = torch.empty(0)
        self._future = torch.empty(0, 0)

    def square(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Give room for a tensor of a shape; what stood in it is lost."""
        size = math.prod(shape)
        if self._square.dtype != dtype or len(self._square) < size:
            self._square = torch.empty(size, dtype=dtype)
        return self._square[:size].view(shape)

    def future(self, length: int, dtype: torch.dtype) -> torch.Tensor:
        """Give a square that is minus infinity above its diagonal and zero elsewhere."""
        if self._future.dtype != dtype or len(self._future) < length:
            self._future = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
        return self._future[:length, :length]


_ROOM = _Room()
