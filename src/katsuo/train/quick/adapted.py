"""Layers with an adapter beside them, multiplied in few operations by weights that lie as the processor reads them."""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from katsuo.engines.hf.pack import can_pack, multiply, packed

_PACKED_BYTES = 1_000_000_000
"""What the packed copies of a model's weights may take in all; layers beyond it are multiplied as they lie."""
_USUAL_ROWS = 1024


def quicken_adapted(model: nn.Module, *, device: torch.device | None = None, packed_bytes: int = _PACKED_BYTES) -> int:
    """
    Let adapted layers compute in the model's number format with few operations; give how many do.

    peft multiplies in float32 where the adapter is kept in float32. Here the float32 weights are the master copy:
    they are rounded for the product, and their gradients come back in float32. On a processor, frozen weights in
    bfloat16 are packed for the forward pass until the copies take `packed_bytes`: oneDNN would do so for every product.
    `device` is where the model will be trained, if not where it lies.
    """
    count = 0
    if device is not None and device.type != "cpu":
        packed_bytes = 0
    for module in model.modules():
        if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
            continue
        name = module.active_adapters[0]
        if not isinstance(module.lora_dropout[name], nn.Identity) or module.use_dora[name] or module.lora_bias[name]:
            continue
        weight = module.base_layer.weight
        held: Any = None
        if weight.nbytes <= packed_bytes and not weight.requires_grad and can_pack(weight):
            held = packed(weight, rows=_USUAL_ROWS)
            packed_bytes -= weight.nbytes
        module._katsuo_packed = held
        module.forward = types.MethodType(_forward, module)  # type: ignore[method-assign]
        count += 1
    return count


def _forward(self: Any, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    base = self.base_layer
    if self.disable_adapters:
        return functional.linear(hidden, base.weight, base.bias)
    name = self.active_adapters[0]
    down, up = self.lora_A[name].weight, self.lora_B[name].weight
    out: torch.Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        hidden, base.weight, base.bias, down, up, self.scaling[name], self._katsuo_packed
    )
    return out


class _Product(torch.autograd.Function):
    """`hidden @ weight.T + bias + scaling * hidden @ down.T @ up.T`, with gradients for all but weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
        held: torch.Tensor | None,
    ) -> torch.Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        down, up = down.to(hidden.dtype), (up * scaling).to(hidden.dtype)
        narrow = rows @ down.t()
        out = functional.linear(rows, weight, bias) if held is None else multiply(rows, held, bias)
        out.addmm_(narrow, up.t())
        ctx.save_for_backward(rows, narrow, down, up, weight)
        ctx.scaling, ctx.shape = scaling, hidden.shape
        return out.view(*hidden.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, narrow, down, up, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        grad_narrow = gradient @ up
        grad_rows = None
        if ctx.needs_input_grad[0]:
            grad_rows = (gradient @ weight).addmm_(grad_narrow, down).view(ctx.shape)
        grad_down = (grad_narrow.t() @ rows).float()
        grad_up = (narrow.t() @ gradient).t().float() * ctx.scaling
        return grad_rows, None, None, grad_down, grad_up, None, None
