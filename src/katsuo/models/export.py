"""Turn a GGUF file of a Llama-type model into a folder that transformers loads: safetensors, tokenizer, template."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from katsuo.errors import ModelError
from katsuo.models.gguf_files.layout import module_name, rotary_heads, uninterleave

CONTROL_TOKEN = 3
"""The token type of GGUF that marks `<|im_end|>` and its like."""

Metadata = Mapping[str, Any]


def export_gguf(gguf_file: Path, folder: Path) -> None:
    """
    Write the model in `gguf_file` to `folder` as bf16 safetensors, with tokenizer, chat template and settings.

    Weights are unpacked here rather than through transformers' own GGUF loading, which takes ten times as long, gives a
    model that refuses `save_pretrained`, and rebuilds a tokenizer without the pre-tokenizer that the model was trained
    with. The folder appears whole or not at all. Raises `ModelError` for another architecture and for a full disk.
    """
    if folder.exists():
        raise ModelError(f'the folder "{folder}" exists already', hint="remove it to export the model again")
    reader = _open(gguf_file)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    _refuse_unknown(gguf_file, metadata)
    unfinished = _make_unfinished(folder)
    try:
        weights = dict(_weights(reader, metadata))
        save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
        _config(metadata, is_tied="lm_head.weight" not in weights).save_pretrained(unfinished)
        _generation_config(metadata).save_pretrained(unfinished)
        tokenizer_of(metadata).save_pretrained(unfinished)
        for path in (unfinished, *unfinished.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f'cannot write the model to "{folder}": {error}', hint="free some space there") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def tokenizer_of(metadata: Metadata) -> PreTrainedTokenizerFast:
    """Rebuild the tokenizer: digits one by one, then byte-level pieces (llama.cpp's pre-tokenizer "smollm")."""
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    named = {
        f"{ours}_token": tokens[metadata[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{theirs}_token_id" in metadata
    }
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **named,
    )


def _make_unfinished(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        hint = "set KATSUO_CACHE to a folder that can be written"
        raise ModelError(f'cannot write to "{folder.parent}": {error.strerror}', hint=hint) from error


def _open(gguf_file: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(gguf_file)
    except (OSError, ValueError) as error:
        raise ModelError(f'"{gguf_file}" is not a readable GGUF file: {error}', hint="fetch the file again") from error


def _refuse_unknown(gguf_file: Path, metadata: Metadata) -> None:
    known = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"}
    for key, value in known.items():
        if metadata.get(key) != value:
            raise ModelError(
                f'"{gguf_file}" cannot be exported: {key} is {metadata.get(key)!r}, and only {value!r} is known',
                hint="give --model the folder of the model's safetensors instead",
            )


def _weights(reader: gguf.GGUFReader, metadata: Metadata) -> Iterator[tuple[str, torch.Tensor]]:
    """Unpack every tensor to bfloat16, under its name in transformers."""
    heads, key_heads = metadata["llama.attention.head_count"], metadata["llama.attention.head_count_kv"]
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = uninterleave(values, rotary_heads(tensor.name, heads, key_heads))
        # A copy, because the file stays mapped read-only under the original.
        numbers = torch.from_numpy(numpy.array(values, dtype=numpy.float32)).to(torch.bfloat16)
        yield f"{module_name(tensor.name)}.weight", numbers


def _config(metadata: Metadata, *, is_tied: bool) -> LlamaConfig:
    heads = metadata["llama.attention.head_count"]
    hidden = metadata["llama.embedding_length"]
    settings: dict[str, Any] = {
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata.get("llama.rope.dimension_count", hidden // heads),
        "max_position_embeddings": metadata["llama.context_length"],
        # A float32 in the file: 9.9999997e-06 stands for 1e-05.
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        "tie_word_embeddings": is_tied,
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        **_token_ids(metadata),
    }
    return LlamaConfig(**settings)


def _generation_config(metadata: Metadata) -> GenerationConfig:
    return GenerationConfig(**_token_ids(metadata))  # type: ignore[no-untyped-call]


def _token_ids(metadata: Metadata) -> dict[str, int]:
    """Give begin, end and padding ids; padding may equal end, so mask by attention, never by id."""
    return {
        f"{ours}_token_id": metadata[f"tokenizer.ggml.{theirs}_token_id"]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if f"tokenizer.ggml.{theirs}_token_id" in metadata
    }
