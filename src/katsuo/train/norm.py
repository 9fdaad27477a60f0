"""Root-mean-square norms whose own weights stay as they are, in a few passes over memory instead of twenty."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

_SUFFIX = "RMSNorm"
_LARGEST_DIFFERENCE = 0.01


def quicken_norms(model: nn.Module) -> int:
    """
    Let frozen root-mean-square norms take fewer passes; give how many do.

    A norm is left alone unless a trial shows that it is `hidden / rms(hidden) * weight`; some models add one.
    """
    count = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not type(module).__name__.endswith(_SUFFIX) or weight is None or weight.requires_grad:
            continue
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if isinstance(epsilon, float) and _agrees(module, weight, epsilon):
            module._katsuo_epsilon = epsilon  # type: ignore[assignment]
            module.forward = types.MethodType(_forward, module)
            count += 1
    return count


@torch.no_grad()
def _agrees(module: nn.Module, weight: torch.Tensor, epsilon: float) -> bool:
    trial = torch.linspace(-2.0, 3.0, 2 * len(weight), device=weight.device).to(weight.dtype).view(1, 2, -1)
    theirs = module(trial).float()
    return bool((_Norm.apply(trial, weight, epsilon).float() - theirs).norm() <= _LARGEST_DIFFERENCE * theirs.norm())  # type: ignore[no-untyped-call]


def _forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Norm.apply(hidden, self.weight, self._katsuo_epsilon)  # type: ignore[no-untyped-call]
    return out


class _Norm(torch.autograd.Function):
    """`hidden / sqrt(mean(hidden ** 2) + epsilon) * weight`, with a gradient for hidden alone."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        square = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32).square_()
        scale = square.div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, scale)
        return torch.mul(hidden * scale, weight, out=torch.empty_like(hidden))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, scale = ctx.saved_tensors
        gradient = gradients[0] * weight
        along = (gradient * hidden).sum(dim=-1, keepdim=True, dtype=torch.float32)
        along = along.mul_(scale.pow(3)).div_(hidden.shape[-1])
        result = torch.sub(gradient * scale, hidden * along, out=torch.empty_like(hidden))
        return result, None, None
