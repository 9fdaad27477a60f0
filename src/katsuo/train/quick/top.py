"""The top layer where something is learned and nowhere else: what it gives at other positions is never looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_PARTS = ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp")
"""What a layer of transformers computes for each position by itself; keys and values are looked at by later ones."""
_LARGEST_DIFFERENCE = 0.05


@contextmanager
def quicker_top(model: Any) -> Iterator[bool]:
    """
    Let the last layer compute at the positions of `logits_to_keep` alone; say whether it does.

    Queries, the attention's last product and the feed-forward part are left out elsewhere, forwards and backwards. The
    layer is put back at the end, and left alone unless a trial shows that the logits stay what they are.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = [(part, part.__dict__.get("forward")) for part in _parts_of(whole)]
    here = _Here()
    hook = whole.register_forward_pre_hook(here.note, with_kwargs=True)
    before = _trial(whole)
    for part, _ in kept:
        part.forward = here.only(part.forward)
    try:
        here.is_on = bool(kept) and _are_alike(_trial(whole), before)
        yield here.is_on
    finally:
        hook.remove()
        for part, forward in kept:
            del part.forward
            if forward is not None:
                part.forward = forward


class _Here:
    """The positions whose logits the current pass is asked for."""

    def __init__(self) -> None:
        self.is_on = True
        self._positions: torch.Tensor | None = None

    def note(self, _: nn.Module, __: tuple[Any, ...], told: dict[str, Any]) -> None:
        """Remember them until the next pass, so that a layer that is computed again for its gradients has them too."""
        positions = told.get("logits_to_keep")
        self._positions = positions if self.is_on and isinstance(positions, torch.Tensor) else None

    def only(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Give `forward`, (1, tokens, width) → (1, tokens, width), computed at these positions and zero elsewhere."""

        def at_these(hidden: torch.Tensor, *others: Any, **named: Any) -> Any:
            if self._positions is None:
                return forward(hidden, *others, **named)
            out = forward(hidden[:, self._positions], *others, **named)
            return out.new_zeros((*hidden.shape[:-1], out.shape[-1])).index_copy(1, self._positions, out)

        return at_these


def _parts_of(whole: Any) -> list[nn.Module]:
    """Find what the last layer computes position by position; none where the layers are built in another way."""
    count = getattr(whole.config.get_text_config(), "num_hidden_layers", 0)
    stacks = [module for module in whole.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if len(stacks) != 1:
        return []
    there = dict(stacks[0][-1].named_modules())
    return [there[name] for name in _PARTS] if all(name in there for name in _PARTS) else []


@torch.no_grad()
def _trial(whole: Any) -> torch.Tensor | None:
    """Give the logits of some positions of a short row; None where the model cannot be asked so."""
    weight = whole.get_input_embeddings().weight
    row = (torch.arange(5, 35, device=weight.device) * 7 % len(weight))[None]
    positions = torch.arange(18, 27, device=weight.device)
    was_training = whole.training
    whole.eval()
    try:
        logits: torch.Tensor = whole(input_ids=row, logits_to_keep=positions, use_cache=False).logits[0].float()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None
    finally:
        whole.train(was_training)
    return logits


def _are_alike(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and bool((one - other).norm() <= _LARGEST_DIFFERENCE * other.norm())
