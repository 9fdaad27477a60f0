"""Several examples in one row: positions that begin anew, attention that never crosses from one into another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from katsuo.train.encode import Encoded
from katsuo.train.quick.attention import attend_plain, attend_written_out

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
    is_even = query.shape[-1] == value.shape[-1]
    if is_plain and is_even and query.device.type == "cpu" and torch.is_grad_enabled():
        return attend_written_out(query, key, value, starts, scale), None
    rows = []
    for start, stop in pairwise(starts):
        part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
        rows.append(attend_plain(part, scale) if is_plain else _attend_masked(part, scale, window, softcap, told))
    return torch.cat(rows, dim=2).transpose(1, 2), None


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


AttentionInterface.register(ATTENTION, attend)
