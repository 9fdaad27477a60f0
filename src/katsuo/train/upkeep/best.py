"""The best weights so far, beside the checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from katsuo.train import processes
from katsuo.train.upkeep.checkpoints import CHECKPOINTS
from katsuo.train.weights import lora


class Best(Protocol):
    """Where the best weights are kept while training goes on."""

    def keep(self, step: int, loss: float) -> None:
        """Keep the model's weights as they are now."""
        ...

    def restore(self) -> int | None:
        """Put the kept weights back and give their step; None when none are kept."""
        ...

    def read(self) -> tuple[int, float] | None:
        """Give the step and the loss of the weights that are kept."""
        ...


class Kept:
    """The best weights of a model, in the folder of its training."""

    def __init__(self, model: Any, output: Path, *, is_adapter: bool) -> None:
        place = output / CHECKPOINTS
        self._model, self._is_adapter = model, is_adapter
        self._weights, self._told = place / "best.safetensors", place / "best.json"

    def keep(self, step: int, loss: float) -> None:
        """Write the weights, then what they are."""
        state = lora.adapter_weights(self._model) if self._is_adapter else state_of(self._model)
        if not processes.is_first():
            return
        self._weights.parent.mkdir(parents=True, exist_ok=True)
        partial = self._weights.with_suffix(".partial")
        save_file(state, partial)
        partial.replace(self._weights)
        partial.write_text(json.dumps({"step": step, "loss": loss}), encoding="utf-8")
        partial.replace(self._told)

    def read(self) -> tuple[int, float] | None:
        """Give the step and the loss of what is kept."""
        if not self._told.is_file():
            return None
        told = json.loads(self._told.read_text(encoding="utf-8"))
        return int(told["step"]), float(told["loss"])

    def restore(self) -> int | None:
        """Put the kept weights back."""
        processes.wait()
        kept = self.read()
        if kept is None:
            return None
        weights = load_file(self._weights)
        if self._is_adapter:
            lora.set_adapter_weights(self._model, weights)
        else:
            processes.load_whole(self._model, weights)
        return kept[0]


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """Copy all weights, each tied one once."""
    # By identity, not by address: where a weight is spread, a device may hold none of it, and all must gather alike.
    seen: set[int] = set()
    state = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            state[name] = processes.whole(weight)
    return state
