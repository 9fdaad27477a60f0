"""Several examples in one row: positions that begin anew, attention that never crosses from one into another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from katsuo.train.encode import Encoded

ATTENTION = "katsuo_packed"
"""The name under which transformers finds `attend`."""

Batch = dict[str, torch.Tensor]


def collate(examples: Sequence[Encoded]) -> Batch:
    """
    Lay examples end to end in one row of `total` tokens, without padding.

    `logits_to_keep` lists the positions whose next token is of a completion, `labels` those tokens (no -100 among
    them), `cu_seq_lens_q` where each example begins and the last one ends, as flash attention counts.
    """
    tokens = [token for example in examples for token in example.tokens.tolist()]
    positions = [position for example in examples for position in range(len(example.tokens))]
    starts: list[int] = [0]
    keep: list[int] = []
    labels: list[int] = []
    for example in examples:
        first = starts[-1] + example.prompt_length
        starts.append(starts[-1] + len(example.tokens))
        keep += range(first - 1, starts[-1] - 1)
        labels += tokens[first : starts[-1]]
    bounds = torch.tensor(starts, dtype=torch.int32)
    targets = torch.tensor(labels)
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "logits_to_keep": torch.tensor(keep),
        "labels": targets,
        # The trainer counts these as they are; it would leave out the first of `labels`.
        "shift_labels": targets,
    }


def cut(batch: Batch, most_tokens: int) -> list[Batch]:
    """Give a packed row as rows of at most `most_tokens` tokens; an example stays whole, also one that is longer."""
    bounds, keep, labels = batch["cu_seq_lens_q"], batch["logits_to_keep"], batch["labels"]
    parts = []
    for start, stop in pairwise(_borders(bounds.tolist(), most_tokens)):
        own = (keep >= start) & (keep < stop)
        inner = bounds[(bounds >= start) & (bounds <= stop)] - start
        parts.append(
            {
                "input_ids": batch["input_ids"][:, start:stop],
                "position_ids": batch["position_ids"][:, start:stop],
                "cu_seq_lens_q": inner,
                "cu_seq_lens_k": inner,
                "logits_to_keep": keep[own] - start,
                "labels": labels[own],
                "shift_labels": labels[own],
            }
        )
    return parts


def _borders(ends: Sequence[int], most_tokens: int) -> list[int]:
    """Give where to cut: into as few rows as can be, about equally long, since a short one takes its time, too."""
    borders = _filled(ends, most_tokens)
    low, high = ends[-1] // len(borders), most_tokens
    while low < high:
        middle = (low + high) // 2
        tried = _filled(ends, middle)
        low, high = (low, middle) if len(tried) <= len(borders) else (middle + 1, high)
    return [*_filled(ends, high), ends[-1]]


def _filled(ends: Sequence[int], most_tokens: int) -> list[int]:
    borders = [0]
    for start, stop in pairwise(ends):
        if stop - borders[-1] > most_tokens and start > borders[-1]:
            borders.append(start)
    return borders


def split(batch: Batch) -> list[Batch]:
    """Give each example of a packed row as a row of its own, for models that cannot be packed."""
    known = ("input_ids", "position_ids", "logits_to_keep", "labels")
    return [{name: part[name] for name in known} for part in cut(batch, 0)]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **told: Any,
) -> tuple[torch.Tensor, None]:
    """
    Attend causally within each example of a row; shapes (1, heads, tokens, width) → (1, tokens, heads, width).

    transformers calls it with `cu_seq_lens_q` from the batch; without it the row is one example. The mask is not
    looked at: what may be seen follows from the bounds and the layer's sliding window.
    """
    del module, attention_mask
    # Under autocast the value comes in sixteen bits from its layer, the turned query and key in float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    bounds = told.get("cu_seq_lens_q")
    starts = [0, query.shape[2]] if bounds is None else bounds.tolist()
    scale = told.get("scaling") or query.shape[-1] ** -0.5
    window, softcap = told.get("sliding_window"), told.get("softcap")
    longest = max(stop - start for start, stop in pairwise(starts))
    is_plain = softcap is None and (window is None or longest <= window) and not told.get("dropout")
    if is_plain and query.device.type == "cpu" and torch.is_grad_enabled():
        return _Attention.apply(query, key, value, tuple(starts), scale), None  # type: ignore[no-untyped-call]
    rows = []
    for start, stop in pairwise(starts):
        part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
        rows.append(_attend_plain(part, scale) if is_plain else _attend_masked(part, scale, window, softcap, told))
    return torch.cat(rows, dim=2).transpose(1, 2), None


def _attend_plain(part: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
    query, key, value = part
    return functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )


def _attend_masked(
    part: Sequence[torch.Tensor], scale: float, window: int | None, softcap: float | None, told: dict[str, Any]
) -> torch.Tensor:
    """Attend with a sliding window or capped scores, written out."""
    query, key, value = part
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, dim=1).transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(query.shape[2], device=query.device)
    distance = distance[:, None] - distance[None, :]
    hidden = (distance < 0) | ((distance >= window) if window else False)
    weights = torch.softmax(scores.float().masked_fill(hidden, float("-inf")), dim=-1).to(query.dtype)
    weights = functional.dropout(weights, p=float(told.get("dropout") or 0.0))
    return weights @ value.repeat_interleave(groups, dim=1)


class _Attention(torch.autograd.Function):
    """
    Attention whose backward pass is plain matrix products.

    On processors torch's own backward pass does not use the matrix units for 16-bit numbers and takes several times as
    long; here it recomputes the weights example by example, so that no more than one square of them is ever held.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: tuple[int, ...], scale: float
    ) -> torch.Tensor:
        ctx.starts, ctx.scale = starts, scale
        _, heads, tokens, width = query.shape
        out = query.new_empty(1, tokens, heads, width)
        for start, stop in pairwise(starts):
            part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
            out[:, start:stop] = _attend_plain(part, scale).transpose(1, 2)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out = ctx.saved_tensors
        (gradient,) = gradients
        results = [torch.empty_like(tensor) for tensor in (query, key, value)]
        # What the softmax takes off every row of the weights' gradients; shape (heads, tokens, 1).
        taken = (gradient.float() * out.float()).sum(dim=-1, keepdim=True)[0].transpose(0, 1).to(query.dtype)
        longest = max(stop - start for start, stop in pairwise(ctx.starts))
        future = query.new_full((longest, longest), float("-inf")).triu_(1)
        for start, stop in pairwise(ctx.starts):
            part = [tensor[0, :, start:stop] for tensor in (query, key, value)]
            own = (gradient[0, start:stop].transpose(0, 1), taken[:, start:stop])
            grads = _backward_one(part, *own, future[: stop - start, : stop - start], ctx.scale)
            for result, grad in zip(results, grads, strict=True):
                result[0, :, start:stop] = grad
        return (*results, None, None)


def _backward_one(
    part: Sequence[torch.Tensor], gradient: torch.Tensor, taken: torch.Tensor, future: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give the gradients of one example's query, key and value; query heads that share a key head go together."""
    query, key, value = part
    shared, length, width = key.shape
    stacked = (query * scale).reshape(shared, -1, width)
    gradient, taken = gradient.reshape(shared, -1, width), taken.reshape(shared, -1, 1)
    scores = torch.bmm(stacked, key.transpose(1, 2))
    scores.view(shared, -1, length, length).add_(future)
    weights = torch.softmax(scores, dim=-1)
    grad_value = torch.bmm(weights.transpose(1, 2), gradient)
    grad_scores = torch.bmm(gradient, value.transpose(1, 2)).sub_(taken).mul_(weights)
    grad_query = torch.bmm(grad_scores, key).mul_(scale).view_as(query)
    grad_key = torch.bmm(grad_scores.transpose(1, 2), stacked)
    return grad_query, grad_key, grad_value


AttentionInterface.register(ATTENTION, attend)
