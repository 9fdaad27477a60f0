"""A byte-level tokenizer of the SmolLM type, from tokenizer.json to the words of GGUF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from katsuo.errors import ModelError

_HINT = "convert the model with llama.cpp's convert_hf_to_gguf.py, and give the file as --model"


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path, *, vocabulary: int) -> None:
    """
    Write tokens, merges, control tokens and the chat template; `vocabulary` counts the rows of the embeddings.

    Raise `ModelError` for any but a byte-level tokenizer whose digits stand alone, which llama.cpp calls "smollm".
    """
    state, config = _read(folder / "tokenizer.json"), _read(folder / "tokenizer_config.json")
    if state["model"]["type"] != "BPE" or not _splits_digits(state["pre_tokenizer"]):
        raise ModelError("GGUF can be written for byte-level tokenizers of the SmolLM type only", hint=_HINT)
    ids: dict[str, int] = {
        **state["model"]["vocab"],
        **{added["content"]: added["id"] for added in state["added_tokens"]},
    }
    named = {name: _content(config.get(f"{name}_token")) for name in ("bos", "eos", "unk", "pad")}
    special = {added["id"] for added in state["added_tokens"] if added["special"]}
    special |= {ids[token] for token in named.values() if token in ids}
    _write_tokens(writer, ids, special, vocabulary)
    merges = state["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if named[name] in ids:
            add(ids[named[name]])
    writer.add_add_bos_token(_begins_with_a_token(state.get("post_processor")))
    writer.add_add_space_prefix(False)
    if template := chat_template(folder, config):
        writer.add_chat_template(template)


def _write_tokens(writer: gguf.GGUFWriter, ids: Mapping[str, int], special: set[int], vocabulary: int) -> None:
    kinds = gguf.TokenType
    by_id = {index: token for token, index in ids.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([by_id.get(index, f"[PAD{index}]") for index in range(vocabulary)])
    writer.add_token_types(
        [
            kinds.CONTROL if index in special else kinds.NORMAL if index in by_id else kinds.UNUSED
            for index in range(vocabulary)
        ]
    )


def chat_template(folder: Path, config: Mapping[str, Any]) -> str:
    """Give a model's chat template, from its own file or from the tokenizer's settings; empty where there is none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    template = config.get("chat_template") or ""
    if isinstance(template, list):
        template = next((one["template"] for one in template if one.get("name") == "default"), "")
    return str(template)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f'cannot read "{path}": {error}', hint=_HINT) from error
    return found


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token or "")


def _splits_digits(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    steps = (pre_tokenizer or {}).get("pretokenizers", [])
    return [step.get("type") for step in steps] == ["Digits", "ByteLevel"]


def _begins_with_a_token(post_processor: Mapping[str, Any] | None) -> bool:
    """Say whether the tokenizer puts a control token before a text."""
    steps = (post_processor or {}).get("processors", [post_processor or {}])
    return any("SpecialToken" in (step.get("single") or [{}])[0] for step in steps)
