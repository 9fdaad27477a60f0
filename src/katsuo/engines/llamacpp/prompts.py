"""From prompts to tokens, as the engine `hf` makes them: no text in a passage stands for a control token."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from katsuo.engines.chats import after_answer, pieces, stand_ins
from katsuo.engines.llamacpp.model import LlamaModel
from katsuo.errors import ModelError
from katsuo.records import Message, Prompt

_KEPT_TEXTS = 256


class Encoder:
    """Encode prompts for one model. Raises `TemplateError` of Jinja for a chat that the model's template refuses."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        # By the model alone: an encoder that held itself would hold the model after it was let go.
        self._has_control = lru_cache(_KEPT_TEXTS)(partial(_holds_control, model))

    @property
    def has_template(self) -> bool:
        """True for a model that brings a chat template."""
        return bool(self._model.properties.get("chat_template"))

    def encode(self, prompt: Prompt) -> list[int]:
        """Give a prompt's tokens: raw text as the model begins a text, a chat as its template says."""
        if prompt.messages:
            return self._encode_chat(prompt.messages)
        tokens = self._model.tokens(prompt.text, is_text_alone=True)
        # Some models close every text; a prompt is to be continued.
        return tokens[:-1] if tokens and tokens[-1] == self._end_token else tokens

    @property
    def end_text(self) -> str:
        """Give the model's end token as text; empty where it names none."""
        return str(self._model.properties.get("eos_token", ""))

    def closing(self, *, is_chat: bool) -> list[int]:
        """Give what ends an answer: the end token, in a chat what the template writes, up to a control token."""
        if is_chat and self._end_of_turn:
            return self._end_of_turn
        if self._end_token is None:
            raise ModelError("the GGUF file names no end token", hint="score without the end of the answers")
        return [self._end_token]

    def closing_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer as text."""
        return self._model.text(self._end_of_turn) if is_chat and self._end_of_turn else self.end_text

    @cached_property
    def _end_of_turn(self) -> list[int]:
        """The tokens after an answer up to the first control token, which need not be the end token; or none."""
        after = self._model.tokens(self._after_answer, has_control=True)
        for place, token in enumerate(after, 1):
            if self._has_control(self._model.text([token])):
                return after[:place]
        return []

    @property
    def _after_answer(self) -> str:
        return after_answer(self._render(("user", "assistant"), ("?", stand_ins(1)[0]), is_open=False))

    def encode_plain(self, text: str) -> list[int]:
        """Give the tokens of a text that continues another."""
        return self._model.tokens(text)

    @cached_property
    def _end_token(self) -> int | None:
        tokens = self._model.tokens(self.end_text, has_control=True)
        return tokens[0] if len(tokens) == 1 else None

    @cached_property
    def _template(self) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda wanted: datetime.datetime.now().strftime(wanted)
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        return environment.from_string(str(self._model.properties["chat_template"]))

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        if not self.has_template:
            raise jinja2.TemplateError("the model has no chat template")
        roles, contents = [message.role for message in messages], [message.content for message in messages]
        if not any(self._has_control(content) for content in contents):
            return self._model.tokens(self._render(roles, contents), has_control=True)
        tokens: list[int] = []
        for text, is_own in pieces(self._render(roles, stand_ins(len(roles))), contents):
            tokens += self._model.tokens(text, has_control=is_own)
        return tokens

    def _render(self, roles: Sequence[str], contents: Sequence[str], *, is_open: bool = True) -> str:
        chat = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        told: dict[str, Any] = {name: self._model.properties.get(name, "") for name in ("bos_token", "eos_token")}
        return self._template.render(messages=chat, add_generation_prompt=is_open, **told)


class _Generation(jinja2.ext.Extension):
    """Take `{% generation %}` for what it is to a prompt: a mark that a training reads, around what is written."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it without

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Give what stands between the tags."""
        line = next(parser.stream).lineno
        return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _holds_control(model: LlamaModel, text: str) -> bool:
    return model.tokens(text) != model.tokens(text, has_control=True)


def _refuse(words: str) -> None:
    raise jinja2.TemplateError(words)
