"""From prompts to tokens: raw text or a chat, in which a passage can never stand for a control token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy
from jinja2 import TemplateError

from katsuo.engines.chats import after_answer, pieces, stand_ins
from katsuo.engines.hf.memory import Question, Tokens, shared_length
from katsuo.errors import ModelError
from katsuo.records import Message, Prompt


def encode(tokenizer: Any, prompt: Prompt, *, end_tokens: Collection[int]) -> Question:
    """
    Give a prompt's tokens: raw text as the tokenizer begins a text, a chat as the model's template says.

    The opening of a chat is everything before its last message. Raises `TemplateError` of Jinja for a chat that the
    template refuses, such as one with a system turn where there may be none.
    """
    if prompt.messages:
        tokens = numpy.array(_encode_chat(tokenizer, prompt.messages), dtype=numpy.int64)
        return Question(tokens, opening=_opening_length(tokenizer, prompt.messages, tokens))
    listed = tokenizer(prompt.text, split_special_tokens=True).input_ids
    # Some tokenizers close every text; a prompt is to be continued.
    listed = listed[:-1] if listed and listed[-1] in end_tokens else listed
    return Question(numpy.array(listed, dtype=numpy.int64))


def _opening_length(tokenizer: Any, messages: tuple[Message, ...], tokens: Tokens) -> int:
    """Count the tokens before the last message; 0 for a template that wants to see it."""
    if len(messages) == 1:
        return 0
    try:
        before = _encode_chat(tokenizer, messages[:-1], is_open=False)
    except TemplateError:
        return 0
    return shared_length(tokens, numpy.array(before, dtype=numpy.int64))


def _encode_chat(tokenizer: Any, messages: tuple[Message, ...], *, is_open: bool = True) -> list[int]:
    if not tokenizer.chat_template:
        raise ModelError("the model has no chat template", hint="ask an instruction-tuned model, or set another codec")
    plain = [{"role": message.role, "content": message.content} for message in messages]
    if not any(token in message.content for message in messages for token in _control_texts(tokenizer)):
        rendered = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=is_open)
        return list(tokenizer(rendered, add_special_tokens=False).input_ids)
    return _encode_around(tokenizer, messages, is_open=is_open)


@lru_cache(maxsize=8)
def _control_texts(tokenizer: Any) -> frozenset[str]:
    """Give every text that becomes a control token; those that have no role of their own, such as turn marks, too."""
    added = tokenizer.added_tokens_decoder.values()
    return frozenset([*tokenizer.all_special_tokens, *(token.content for token in added if token.special)])


def _encode_around(tokenizer: Any, messages: tuple[Message, ...], *, is_open: bool) -> list[int]:
    """Encode the template with its control tokens and, between, the messages as plain text."""
    marks = stand_ins(len(messages))
    chat = [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=is_open)
    tokens: list[int] = []
    for text, is_own in pieces(rendered, [message.content for message in messages]):
        tokens += tokenizer(text, add_special_tokens=False, split_special_tokens=not is_own).input_ids
    return tokens


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Give the tokens of texts that continue others: nothing before or after, and no control token."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


def opening_tokens(tokenizer: Any, *, end_tokens: Collection[int]) -> list[int]:
    """Give what the tokenizer puts before a text, such as a beginning-of-sequence token."""
    ids = list(tokenizer("").input_ids)
    return ids[:-1] if ids and ids[-1] in end_tokens else ids


def end_token(tokenizer: Any, *, end_tokens: Collection[int]) -> int:
    """Give the token that ends an answer to a raw prompt; raise `ModelError` where nothing names one."""
    own = tokenizer.eos_token_id
    if own is None and not end_tokens:
        raise ModelError("the tokenizer names no end token", hint="set eos_token in its tokenizer_config.json")
    return int(own if own is not None else min(end_tokens))


def closing_tokens(tokenizer: Any, *, end_tokens: Collection[int], is_chat: bool) -> list[int]:
    """Give the tokens that end an answer: in a chat what the template writes after one, up to the end token."""
    if not is_chat:
        return [end_token(tokenizer, end_tokens=end_tokens)]
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": stand_ins(1)[0]}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    after = list(tokenizer(after_answer(rendered), add_special_tokens=False).input_ids)
    end = next((place for place, token in enumerate(after) if token in end_tokens), None)
    return [end_token(tokenizer, end_tokens=end_tokens)] if end is None else after[: end + 1]
