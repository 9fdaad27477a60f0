"""A Llama-type model as it lies here, a GGUF file or a folder of safetensors, given as GGUF wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import gguf

from katsuo.errors import ModelError
from katsuo.models.gguf_files.find import ELSEWHERE
from katsuo.models.gguf_files.layout import Numbers, gguf_name, interleave, rotary_heads
from katsuo.models.gguf_files.tokenizer import write_tokenizer
from katsuo.models.gguf_files.weights import read_weights

_COPIED = ("llama.", "tokenizer.")
"""Beginnings of what is copied; the rest the writer says itself, or tells of how the file was made."""


class Checkpoint(Protocol):
    """A model's settings, tokenizer and tensors. `tensors` gives GGUF's names, float32 and GGUF's layout."""

    heads: int
    key_heads: int

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write settings and tokenizer."""
        ...

    def tensors(self) -> Iterator[tuple[str, Numbers]]:
        """Give every tensor, one at a time."""
        ...


class GgufCheckpoint:
    """A model in a GGUF file, whatever its numbers are packed as."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError) as error:
            raise ModelError(f'"{path}" is not a readable GGUF file: {error}', hint="fetch the file again") from error
        architecture = self._value("general.architecture")
        if architecture != "llama":
            raise ModelError(f'"{path}" holds a model of type "{architecture}", not llama', hint=ELSEWHERE)
        self.heads = int(self._value("llama.attention.head_count"))
        self.key_heads = int(self._value("llama.attention.head_count_kv"))

    def _value(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        return field.contents() if field else None

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Copy every setting and the tokenizer as they are."""
        for field in self._reader.fields.values():
            if field.name.startswith(_COPIED):
                inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], inner)

    def tensors(self) -> Iterator[tuple[str, Numbers]]:
        """Unpack every tensor to what bfloat16 can say of it, as it is when the file is exported for transformers."""
        rounded = gguf.GGMLQuantizationType.BF16
        for tensor in self._reader.tensors:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            yield tensor.name, gguf.dequantize(gguf.quantize(values, rounded), rounded)


class FolderCheckpoint:
    """A model in a folder of transformers: config.json, tokenizer.json and safetensors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = self._config
        if config.get("model_type") != "llama":
            raise ModelError(
                f'GGUF can be written for models of type llama, not "{config.get("model_type")}"', hint=ELSEWHERE
            )
        self.heads = int(config["num_attention_heads"])
        self.key_heads = int(config.get("num_key_value_heads") or self.heads)

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        path = self._folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f'cannot read "{path}": {error}', hint="give the folder of a model") from error
        return config

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write the settings of config.json and the tokenizer."""
        config = self._config
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.key_heads)
        writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // self.heads)
        writer.add_rope_freq_base(_rope_base(config))
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        write_tokenizer(writer, self._folder, vocabulary=config["vocab_size"])

    def tensors(self) -> Iterator[tuple[str, Numbers]]:
        """Read every tensor; a head that is tied to the embeddings is not written twice."""
        files = sorted(self._folder.glob("model*.safetensors"))
        if not files:
            raise ModelError(f'"{self._folder}" holds no safetensors', hint="pull the model again")
        for path in files:
            for name, values in read_weights(path):
                if name == "lm_head.weight" and self._config.get("tie_word_embeddings"):
                    continue
                target = gguf_name(name.removesuffix(".weight"))
                yield target, interleave(values, rotary_heads(target, self.heads, self.key_heads))


def _rope_base(config: Mapping[str, Any]) -> float:
    """Read the base of the rotary angles where newer and older settings have it; refuse stretched ones."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ModelError(f'GGUF is not written for rotary angles of type "{kind}"', hint=ELSEWHERE)
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
