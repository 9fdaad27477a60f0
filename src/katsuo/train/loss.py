"""The loss of a packed batch: summed over the tokens that are learned, with logits there and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from katsuo.train.encode import Encoded
from katsuo.train.pack import Batch, collate, cut, split

_ELEMENTS_AT_ONCE = {"cpu": 1 << 20}
"""Logits that are looked at together: what the caches of a processor hold, and more on any other device."""
_ELEMENTS_ELSEWHERE = 1 << 26


def summed_loss(model: Any, batch: Batch, *, is_packed: bool) -> torch.Tensor:
    """Sum the loss over the learned tokens of a batch."""
    if is_packed:
        return _row_loss(model, batch)
    return torch.stack([_row_loss(model, part) for part in split(batch)]).sum()


def _row_loss(model: Any, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = _CrossEntropy.apply(row_logits(model, batch), batch["labels"])  # type: ignore[no-untyped-call]
    return loss


def row_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Give the logits at the positions that are learned from; shape (positions, vocabulary)."""
    told = {name: tensor for name, tensor in batch.items() if name not in ("labels", "shift_labels")}
    logits: torch.Tensor = model(**told, use_cache=False).logits[0]
    if len(logits) != len(batch["logits_to_keep"]):
        # A model that does not know `logits_to_keep` gives them all.
        logits = logits[batch["logits_to_keep"]]
    return logits


class _CrossEntropy(torch.autograd.Function):
    """
    Cross entropy in float32, summed; its gradient is found in the same pass, a few rows at a time.

    torch's own keeps the float32 logits, their logarithmic softmax and its gradient, each `positions * vocabulary`
    large; here the largest is the gradient in the logits' own number format.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        # The smallest shares are zero in float16 before the loss is scaled up.
        wide = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=wide) if ctx.needs_input_grad[0] else None
        rows = max(1, _ELEMENTS_AT_ONCE.get(logits.device.type, _ELEMENTS_ELSEWHERE) // logits.shape[-1])
        for start in range(0, len(logits), rows):
            own = labels[start : start + rows, None]
            logs = torch.log_softmax(logits[start : start + rows], dim=-1, dtype=torch.float32)
            total -= logs.gather(1, own).sum()
            if gradient is not None:
                shares = logs.exp_()
                gradient[start : start + rows] = shares.scatter_add_(1, own, shares.new_full(own.shape, -1.0))
        ctx.dtype = logits.dtype
        ctx.save_for_backward(*([] if gradient is None else [gradient]))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * gradients[0].to(gradient.dtype)).to(ctx.dtype), None


@torch.no_grad()
def held_out_loss(
    model: Any, examples: Sequence[Encoded], *, is_packed: bool, per_pass: int, most_tokens: int | None = None
) -> float:
    """Give the mean loss over all learned tokens of `examples`, passed `per_pass` or `most_tokens` at a time."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(examples), per_pass):
        batch = collate(examples[start : start + per_pass])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        parts = cut(batch, most_tokens) if most_tokens else [batch]
        total += sum(float(summed_loss(model, part, is_packed=is_packed)) for part in parts)
        count += batch["labels"].numel()
    model.train(was_training)
    return total / max(1, count)
