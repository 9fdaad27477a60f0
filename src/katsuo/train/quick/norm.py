"""Root-mean-square norms whose own weights stay as they are, in a few passes over memory instead of twenty."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

_SUFFIX = "RMSNorm"
_LARGEST_DIFFERENCE = 0.01
_ROWS_AT_ONCE = 256


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
    """
    `hidden / sqrt(mean(hidden ** 2) + epsilon) * weight`, with a gradient for hidden alone.

    It is computed in float32, on a processor a few rows at a time, which its caches hold.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        out, wide = torch.empty_like(rows), weight.float()
        scale = rows.new_empty((len(rows), 1), dtype=torch.float32)
        for part in _parts(rows):
            values, own = rows[part].float(), scale[part]
            torch.mean(values * values, dim=-1, keepdim=True, out=own).add_(epsilon).rsqrt_()
            out[part] = (values * own).mul_(wide)
        ctx.save_for_backward(rows, wide, scale)
        return out.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, wide, scale = ctx.saved_tensors
        gradient = gradients[0].reshape(rows.shape)
        result = torch.empty_like(rows)
        for part in _parts(rows):
            values, own = rows[part].float(), scale[part]
            change = gradient[part].float() * wide
            along = (change * values).mean(dim=-1, keepdim=True).mul_(own.pow(3))
            result[part] = change.mul_(own).sub_(values * along)
        return result.view_as(gradients[0]), None, None


def _parts(rows: torch.Tensor) -> list[slice]:
    size = _ROWS_AT_ONCE if rows.device.type == "cpu" else max(1, len(rows))
    return [slice(start, start + size) for start in range(0, len(rows), size)]
