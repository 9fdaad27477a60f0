"""A LoRA adapter in safetensors, as numbers to add to a GGUF model or as a GGUF file beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katsuo.errors import ModelError
from katsuo.models.gguf_files.file import gguf_file
from katsuo.models.gguf_files.layout import Numbers, gguf_name, interleave, rotary_heads
from katsuo.models.gguf_files.weights import read_weights
from katsuo.models.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_UNWANTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias")


@dataclass(frozen=True)
class LowRank:
    """One weight's part of an adapter: `up @ down` times `alpha / rank`; shapes (out, rank) and (rank, in)."""

    up: Numbers
    down: Numbers
    alpha: float

    def delta(self) -> Numbers:
        """Give what is to be added to the weight."""
        product: Numbers = (self.up @ self.down) * (self.alpha / self.down.shape[0])
        return product


def read_adapter(folder: Path, *, heads: int, key_heads: int) -> dict[str, LowRank]:
    """
    Read an adapter's parts by GGUF's name of the weight that each belongs to, laid out as GGUF lays that out.

    Raise `ModelError` for one that is more than low-rank matrices beside linear layers.
    """
    config = _read_config(folder)
    halves: dict[str, dict[str, Numbers]] = {}
    for name, values in read_weights(folder / ADAPTER_WEIGHTS):
        module, _, half = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        if half not in ("lora_A", "lora_B"):
            raise ModelError(f'the adapter in "{folder}" holds "{name}", which is no LoRA weight', hint=_HINT)
        halves.setdefault(module, {})[half] = values
    parts = {}
    for module, found in halves.items():
        if len(found) != 2:
            raise ModelError(f'the adapter in "{folder}" holds half of "{module}"', hint="train it again")
        target = gguf_name(module)
        up = interleave(found["lora_B"], rotary_heads(target, heads, key_heads))
        rank = found["lora_A"].shape[0]
        alpha = float(config["lora_alpha"]) * (rank**0.5 if config.get("use_rslora") else 1.0)
        parts[target] = LowRank(up, found["lora_A"], alpha)
    return parts


_HINT = "merge it with `katsuo merge --gguf q8_0`, and give the file as --model"


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f'cannot read "{folder / ADAPTER_CONFIG}": {error}', hint="train the adapter again") from error
    odd = [name for name in _UNWANTED if config.get(name)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("peft_type") != "LORA" or odd:
        told = ", ".join(odd) or str(config.get("peft_type"))
        raise ModelError(f'the adapter in "{folder}" is not plain LoRA: {told}', hint=_HINT)
    return config


def write_adapter(parts: dict[str, LowRank], path: Path) -> None:
    """Write an adapter as a GGUF file that llama.cpp puts beside its base."""
    with gguf_file(path) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        alphas = {part.alpha for part in parts.values()}
        assert len(alphas) == 1, "one setting gave all of them"
        writer.add_float32("adapter.lora.alpha", alphas.pop())
        for name, part in sorted(parts.items()):
            writer.add_tensor(f"{name}.lora_a", part.down)
            writer.add_tensor(f"{name}.lora_b", part.up)
