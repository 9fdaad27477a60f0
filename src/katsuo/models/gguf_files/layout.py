"""How GGUF names and lays out the tensors of a Llama-type model: a table and two turns."""

from __future__ import annotations

from typing import Any

import numpy

from katsuo.errors import ModelError

Numbers = numpy.ndarray[Any, Any]

# Left: what GGUF calls a tensor. Right: what transformers calls it.
WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE_BACK = {theirs: ours for ours, theirs in WHOLE.items()}
_PER_LAYER_BACK = {theirs: ours for ours, theirs in PER_LAYER.items()}


def gguf_name(module: str) -> str:
    """Give GGUF's name of a module's weight: `model.layers.3.mlp.up_proj` is `blk.3.ffn_up.weight`."""
    if module in _WHOLE_BACK:
        return f"{_WHOLE_BACK[module]}.weight"
    _, _, layered = module.partition("model.layers.")
    number, _, inner = layered.partition(".")
    if inner not in _PER_LAYER_BACK:
        raise ModelError(
            f'GGUF has no name for the tensor "{module}"',
            hint="convert the model with llama.cpp's convert_hf_to_gguf.py, and give the file as --model",
        )
    return f"blk.{number}.{_PER_LAYER_BACK[inner]}.weight"


def module_name(tensor: str) -> str:
    """Give the module of a GGUF tensor, the way back of `gguf_name`."""
    name = tensor.removesuffix(".weight")
    if name in WHOLE:
        return WHOLE[name]
    parts = name.split(".")
    if parts[0] != "blk" or parts[-1] not in PER_LAYER:
        raise ModelError(f'the GGUF file holds an unknown tensor "{tensor}"', hint="use its safetensors")
    return f"model.layers.{parts[1]}.{PER_LAYER[parts[-1]]}"


def rotary_heads(tensor: str, heads: int, key_heads: int) -> int | None:
    """Give the number of heads whose rotary halves stand side by side in this tensor, None for all others."""
    return {"attn_q": heads, "attn_k": key_heads}.get(tensor.removesuffix(".weight").rpartition(".")[2])


def interleave(values: Numbers, heads: int | None) -> Numbers:
    """Put the rotary halves of query and key rows side by side, as llama.cpp stores them."""
    if heads is None:
        return values
    rows = values.shape[0]
    halves: Numbers = values.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2)
    return halves.reshape(rows, -1)


def uninterleave(values: Numbers, heads: int | None) -> Numbers:
    """Undo `interleave`."""
    if heads is None:
        return values
    rows = values.shape[0]
    halves: Numbers = values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2)
    return halves.reshape(rows, -1)
