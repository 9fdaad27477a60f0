"""Write a Llama-type model as GGUF, the way back of `katsuo.models.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from katsuo.errors import ModelError, StoreError
from katsuo.models.export import PER_LAYER, WHOLE

KINDS = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_BLOCK = 32
"""q8_0 packs this many numbers of a row together."""


def write_gguf(model: Any, tokenizer: Any, path: Path, *, kind: str) -> None:
    """Write weights and tokenizer to `path`; raise `ModelError` for an architecture or a tokenizer of another type."""
    if kind not in KINDS:
        raise ModelError(f'GGUF cannot be written as "{kind}"', hint=f"choose among: {', '.join(KINDS)}")
    config = model.config
    if config.model_type != "llama":
        raise ModelError(
            f'GGUF can be written for models of type llama, not "{config.model_type}"',
            hint="merge without --gguf, and convert the folder with llama.cpp's convert_hf_to_gguf.py",
        )
    writer = gguf.GGUFWriter(path, "llama")
    try:
        _write_settings(writer, config, kind)
        _write_tokenizer(writer, tokenizer, config)
        for name, weight in model.state_dict().items():
            if name != "lm_head.weight" or not config.tie_word_embeddings:
                _write_tensor(writer, name, weight, config, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        raise StoreError(f'cannot write "{path}": {error.strerror or error}', hint="free some space") from error
    finally:
        writer.close()


def _write_settings(writer: gguf.GGUFWriter, config: Any, kind: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(_FILE_TYPES[kind])


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, config: Any) -> None:
    """Write a byte-level tokenizer whose digits stand alone, which llama.cpp calls "smollm"."""
    import json

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE" or not _splits_digits(state["pre_tokenizer"]):
        raise ModelError(
            "GGUF can be written for byte-level tokenizers of the SmolLM type only",
            hint="merge without --gguf, and convert the folder with llama.cpp's convert_hf_to_gguf.py",
        )
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids) | {added["id"] for added in state["added_tokens"] if added["special"]}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([by_id.get(index, f"[PAD{index}]") for index in range(config.vocab_size)])
    writer.add_token_types(
        [
            kinds.CONTROL if index in special else kinds.NORMAL if index in by_id else kinds.UNUSED
            for index in range(config.vocab_size)
        ]
    )
    merges = state["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if (token := getattr(tokenizer, f"{name}_token_id")) is not None:
            add(token)
    writer.add_add_bos_token(bool(tokenizer("").input_ids))
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _splits_digits(pre_tokenizer: dict[str, Any] | None) -> bool:
    steps = (pre_tokenizer or {}).get("pretokenizers", [])
    return [step.get("type") for step in steps] == ["Digits", "ByteLevel"]


def _write_tensor(writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, config: Any, kind: str) -> None:
    values = weight.float().numpy()
    stem, layered = name.removesuffix(".weight"), name.split(".")
    ours = {theirs: short for short, theirs in WHOLE.items()}
    if stem in ours:
        target = ours[stem]
    else:
        inner = ".".join(layered[3:]).removesuffix(".weight")
        short = {theirs: mine for mine, theirs in PER_LAYER.items()}[inner]
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
        values = _permute(values, heads) if heads else values
        target = f"blk.{layered[2]}.{short}"
    wanted = KINDS[kind]
    if values.ndim == 1:
        wanted = gguf.GGMLQuantizationType.F32
    elif wanted is gguf.GGMLQuantizationType.Q8_0 and values.shape[-1] % _BLOCK:
        wanted = gguf.GGMLQuantizationType.F16
    writer.add_tensor(f"{target}.weight", gguf.quantize(values, wanted), raw_dtype=wanted)


def _permute(values: numpy.ndarray[Any, Any], heads: int) -> numpy.ndarray[Any, Any]:
    """Interleave the rotary halves of query and key rows, as llama.cpp stores them."""
    rows = values.shape[0]
    halves: numpy.ndarray[Any, Any] = values.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2)
    return halves.reshape(rows, -1)
