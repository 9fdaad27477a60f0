"""Prompts and answers as a server's own tokens: by its tokenizer and its chat template, asked over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2 import TemplateError

from katsuo.engines.chats import pieces, stand_ins
from katsuo.engines.openai_server.greet import Served
from katsuo.engines.openai_server.line import Outcome, Reply
from katsuo.engines.openai_server.patience import Patience
from katsuo.errors import EngineError
from katsuo.records import Message, Prompt

_LETTER = "a"
_MANY = 4096
_MAY_BE_CONTROL = re.compile(r"[<\[｜]")
"""What every control token in use has in it."""


class Tokens(Protocol):
    """How one kind of server is asked for tokens; what has to have them raises `EngineError` where it gives none."""

    async def of_prompt(self, prompt: Prompt) -> list[int]:
        """Give the tokens of a prompt as the server begins a text, or as the chat template says."""
        ...

    async def of_answer(self, text: str) -> list[int]:
        """Give the tokens of a text that continues another."""
        ...

    async def of_end(self, *, is_chat: bool) -> list[int]:
        """Give what ends an answer; nothing where the server does not tell."""
        ...

    async def end_text(self) -> str:
        """Give what ends an answer to a raw prompt, as it would be typed; empty where the server does not tell."""
        ...

    async def kept_at_once(self) -> int:
        """Give of how many prompts the server keeps what it has read."""
        ...


class LlamaTokens:
    """The tokens of llama.cpp's server, which renders and encodes in two steps, so that text stays text."""

    def __init__(self, patience: Patience, served: Served) -> None:
        self._ask = _Asker(patience)
        self._opening: list[int] | None = None
        del served  # one server, one model

    async def of_prompt(self, prompt: Prompt) -> list[int]:
        """Give the tokens of a prompt; a passage can never stand for a control token."""
        if not prompt.messages:
            return await self._encode(prompt.text, add_special=True)
        contents = [message.content for message in prompt.messages]
        tokens = list(await self._before_a_text())
        if not any(map(_MAY_BE_CONTROL.search, contents)):
            return tokens + await self._encode(await self._render(prompt.messages, contents), parse_special=True)
        rendered = await self._render(prompt.messages, stand_ins(len(contents)))
        try:
            parts = list(pieces(rendered, contents))
        except TemplateError as error:
            raise _silent("/apply-template", f"of the template {error}") from error
        for text, is_own in parts:
            tokens += await self._encode(text, parse_special=is_own)
        return tokens

    async def of_answer(self, text: str) -> list[int]:
        """Give the tokens of a text that continues another."""
        return await self._encode(text)

    async def of_end(self, *, is_chat: bool) -> list[int]:
        """Give what ends an answer: in a chat the first token of what the template writes after one."""
        if not is_chat:
            return await self._encode(await self.end_text(), parse_special=True)
        # An answer at the very end would be taken for one that is to go on.
        turns = [Message("user", "?"), Message("assistant", "?"), Message("user", "?")]
        (mark,) = stand_ins(1)
        rendered = await self._render(turns, ["?", mark, "?"])
        return (await self._encode(rendered.partition(mark)[2], parse_special=True))[:1]

    async def end_text(self) -> str:
        """Give the model's end token as text, which not every gateway lets through."""
        return str((await self._ask.get("/props")).get("eos_token") or "")

    async def kept_at_once(self) -> int:
        """Give the number of the server's slots; where it does not tell, the fewest there can be."""
        slots = (await self._ask.get("/props")).get("total_slots")
        return slots if isinstance(slots, int) and slots > 0 else 1

    async def _before_a_text(self) -> list[int]:
        """Give what the server puts before every text: the very tokens that it takes off a chat that it renders."""
        if self._opening is None:
            plain = await self._encode(_LETTER)
            whole = await self._encode(_LETTER, add_special=True)
            self._opening = whole[: whole.index(plain[0])] if plain and plain[0] in whole else []
        return self._opening

    async def _render(self, messages: Sequence[Message], contents: Sequence[str]) -> str:
        turns = [{"role": one.role, "content": text} for one, text in zip(messages, contents, strict=True)]
        return str((await self._ask.post("/apply-template", {"messages": turns})).get("prompt", ""))

    async def _encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        told = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return await self._ask.tokens(told) if text else []


class VllmTokens:
    """The tokens of vLLM's server, which renders and encodes a chat in one step."""

    def __init__(self, patience: Patience, served: Served) -> None:
        self._ask = _Asker(patience)
        self._model = served.name

    async def of_prompt(self, prompt: Prompt) -> list[int]:
        """Give the tokens of a prompt."""
        if prompt.messages:
            return await self._chat(prompt.messages, add_generation_prompt=True)
        return await self._encode(prompt.text, add_special_tokens=True)

    async def of_answer(self, text: str) -> list[int]:
        """Give the tokens of a text that continues another."""
        return await self._encode(text, add_special_tokens=False)

    async def of_end(self, *, is_chat: bool) -> list[int]:
        """Give what ends an answer: in a chat the first token of what the template writes after one."""
        if not is_chat:
            text = await self.end_text()
            return await self._encode(text, add_special_tokens=False) if text else []
        turns = (Message("user", "?"), Message("assistant", "?"))
        whole = await self._chat(turns, add_generation_prompt=False)
        begun = await self._chat(turns, add_generation_prompt=False, continue_final_message=True)
        return whole[len(begun) :][:1]

    async def end_text(self) -> str:
        """Give the model's end token, which this server tells only when it was started to."""
        return str((await self._ask.get("/tokenizer_info")).get("eos_token") or "")

    async def kept_at_once(self) -> int:
        """Give more than will be asked: this server keeps prompts block by block, whoever asked them."""
        return _MANY

    async def _chat(self, messages: Sequence[Message], **how: bool) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return await self._ask.tokens({"model": self._model, "messages": turns, **how})

    async def _encode(self, text: str, **how: bool) -> list[int]:
        return await self._ask.tokens({"model": self._model, "prompt": text, **how})


TOKENS: dict[str, type[LlamaTokens] | type[VllmTokens]] = {"llamacpp": LlamaTokens, "vllm": VllmTokens}
"""By dialect; what a server of another kind reads cannot be told from outside."""


class _Asker:
    """Questions about tokens, put beside those that the model answers."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    async def tokens(self, told: Mapping[str, Any]) -> list[int]:
        """Give the tokens of what is told."""
        listed = (await self.post("/tokenize", told)).get("tokens")
        if not isinstance(listed, list):
            raise _silent("/tokenize", "it gives no tokens")
        return [int(token) for token in listed]

    async def post(self, path: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give what the server makes of `told`."""
        outcome = await self._ask(path, told)
        if isinstance(outcome, Reply):
            return outcome.body
        raise _silent(path, outcome.words)

    async def get(self, path: str) -> Mapping[str, Any]:
        """Give what lies there; nothing where the server has or gives nothing, which scoring can do without."""
        outcome = await self._ask(path, None, is_probe=True)
        return outcome.body if isinstance(outcome, Reply) else {}

    async def _ask(self, path: str, told: Mapping[str, Any] | None, *, is_probe: bool = False) -> Outcome:
        async with self._patience.gate.passed() as place:
            return await self._patience.ask(place, f"{self._patience.line.root}{path}", told, is_probe=is_probe)


def _silent(path: str, words: str) -> EngineError:
    return EngineError(
        f'the server does not tell the tokens of a text at "{path}": {words}',
        hint="start it again; the same command then goes on. Or use --engine hf",
    )
