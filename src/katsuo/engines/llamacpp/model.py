"""One GGUF file loaded by llama.cpp, with a number of slots that write at the same time."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xllamacpp

from katsuo.errors import EngineError, ModelError

_QUIET = -1
_PATIENCE_S = 60.0
_PUSH = 1000.0
"""Added to a logit, more than any other token has."""


@dataclass(frozen=True)
class Shape:
    """How a model is opened: its file, an adapter beside it, and how many slots of how many tokens it has."""

    path: Path
    adapter: Path | None
    slots: int
    slot_tokens: int
    is_on_cpu: bool = True


@dataclass(frozen=True)
class Written:
    """What a slot has written. `finish` is llama.cpp's word, `refusal` what it says of a request it does not take."""

    text: str = ""
    finish: str = ""
    new_tokens: int = 0
    refusal: str = ""


class LlamaModel:
    """
    A model that is held by this process. Slots are asked from different threads, each by one at a time.

    llama.cpp lends its tokenizer over a connection only: that is on loopback, behind a key drawn for this model.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._key = secrets.token_hex(16)
        params = _params(shape, self._key)
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(
                f'llama.cpp cannot load "{shape.path}": {error}',
                hint="check that the file is whole and of a type that this xllamacpp knows; pip install -U xllamacpp",
            ) from error
        self._address = self._server.listening_address.removeprefix("http://")
        self.about: Mapping[str, Any] = self._ask("/v1/models")["data"][0]["meta"]
        self.properties: Mapping[str, Any] = self._ask("/props")

    def tokens(self, text: str, *, is_text_alone: bool = False, has_control: bool = False) -> list[int]:
        """
        Give a text's tokens.

        `is_text_alone` adds what the model wants before a text (and after it), `has_control` reads control tokens
        such as `<|im_end|>` as such and not as letters.
        """
        asked = {"content": text, "add_special": is_text_alone, "parse_special": has_control}
        found: list[int] = self._ask("/tokenize", asked)["tokens"]
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """Give the text of tokens, control tokens as they are typed."""
        found: str = self._ask("/detokenize", {"tokens": list(tokens)})["content"]
        return found

    def write(self, slot: int, body: Mapping[str, Any], is_stopped: Callable[[], bool]) -> Written:
        """Let a slot write; it ends early when `is_stopped`. Raise `EngineError` when llama.cpp breaks."""
        return _read(self._answered(slot, body, is_stopped))

    def likelihood(self, slot: int, prompt: Sequence[int], token: int, is_stopped: Callable[[], bool]) -> float | str:
        """Give the log-probability of a token after a prompt, or what llama.cpp says where it does not take them."""
        for written, listed in ((token, 1), (self._letter, int(self.about["n_vocab"]))):
            body = {
                "prompt": list(prompt),
                "max_tokens": 1,
                "temperature": 0.0,
                "logprobs": listed,
                "logit_bias": [[written, _PUSH]],
            }
            chunks = self._answered(slot, body, is_stopped)
            if refusal := _read(chunks).refusal:
                return refusal
            # Of a token that ends within a letter nothing is told; it then stands in the list beside another.
            if (value := _told_of(token, chunks)) is not None:
                return value
        return f"llama.cpp tells no log-probability of token {token}"

    @cached_property
    def _letter(self) -> int:
        return self.tokens("a")[0]

    def _answered(self, slot: int, body: Mapping[str, Any], is_stopped: Callable[[], bool]) -> list[Mapping[str, Any]]:
        chunks: list[Mapping[str, Any]] = []

        def take(chunk: Mapping[str, Any]) -> bool:
            chunks.append(chunk)
            return is_stopped()

        try:
            self._server.handle_completions({**body, "id_slot": slot, "stream": True}, take)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"llama.cpp broke while it was answering: {error}", hint=_HINT) from error
        return chunks

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=_PATIENCE_S)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            content = None if body is None else json.dumps(body)
            connection.request("POST" if content else "GET", path, content, headers)
            reply = connection.getresponse()
            words = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"llama.cpp does not answer in this process: {error}", hint=_HINT) from error
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise EngineError(f"llama.cpp refuses {path}: {words.decode(errors='replace')}", hint=_HINT)
        return json.loads(words)


_HINT = "lower engine_options.batch_size; if it comes again, report it with this text"


def is_on_cpu(device: str) -> bool:
    """Say whether llama.cpp is to compute on the processor: it is asked to, or this build finds nothing else."""
    kinds = xllamacpp.ggml_backend_dev_type
    graphical = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return device == "cpu" or not any(found["type"] in graphical for found in xllamacpp.get_device_info())


def _params(shape: Shape, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(shape.path)
    if shape.adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(shape.adapter), 1.0)]
    params.n_parallel = shape.slots
    params.n_ctx = shape.slots * shape.slot_tokens
    params.kv_unified = False  # else each row would attend to all rows' places
    params.fit_params = False  # it would make slots smaller than asked for
    if shape.is_on_cpu:
        params.n_gpu_layers = 0
        # With sums and memory in sixteen bits, the default, every other row comes out otherwise in another batch.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.warmup = False
    params.port = 0
    params.n_threads_http = 2
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = _QUIET
    return params


def _read(chunks: list[Mapping[str, Any]]) -> Written:
    """Put the pieces of a stream together; one that was stopped has no end."""
    text, finish, new_tokens = [], "", 0
    for chunk in chunks:
        if error := chunk.get("error"):
            if int(error.get("code", 500)) >= 500:
                raise EngineError(f"llama.cpp broke while it was answering: {error.get('message')}", hint=_HINT)
            return Written(refusal=str(error.get("message")))
        for choice in chunk.get("choices", ()):
            text.append(choice.get("text") or "")
            finish = choice.get("finish_reason") or finish
        new_tokens = (chunk.get("usage") or {}).get("completion_tokens", new_tokens)
    return Written("".join(text), finish, new_tokens)


def _told_of(token: int, chunks: Sequence[Mapping[str, Any]]) -> float | None:
    """Find what is told of a token: the one that was written, or one in the list beside it."""
    for choice in chunks[0].get("choices", ()) if chunks else ():
        for told in (choice.get("logprobs") or {}).get("content", ()):
            for one in (told, *told["top_logprobs"]):
                if one["id"] == token:
                    return float(one["logprob"])
    return None
