"""One of the two ways to ask: raw text at `/completions`, a chat at `/chat/completions`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from katsuo.engines.openai_server.dialects import PROBE_GRAMMAR, Fields, obeys_probe
from katsuo.engines.openai_server.gate import Place
from katsuo.engines.openai_server.greet import Served
from katsuo.engines.openai_server.line import Refusal, Reply, Trouble
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.parts import Request
from katsuo.errors import EngineError
from katsuo.records import Completion, Message, Passage, Prompt

_PROBE = "Name a tree."
_PROBE_TOKENS = 16
_SEED_BITS = 31
"""What every server takes: some hold seeds in 32 bits, and one of those gives -1 a meaning of its own."""
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|too long|too many tokens|maximum.{0,20}tokens")
_CHARS_PER_TOKEN = 4


@dataclass
class Endpoint:
    """One way to ask one model, opened by asking something harmless, so that what it does not take is known."""

    served: Served
    patience: Patience
    is_chat: bool
    limit_field: str = "max_tokens"
    grammar_fields: Callable[[str], Fields] | None = None
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"{self.patience.line.address}/{'chat/' if self.is_chat else ''}completions"

    @property
    def can_continue(self) -> bool:
        """True where the model can be made to go on in an answer that was begun."""
        return not self.is_chat or self.served.dialect.continues is not None

    async def open(self) -> None:
        """Find out what the endpoint takes; raise `EngineError` when it does not take a plain question."""
        probe = Prompt("probe", Passage("", "", "", 0, 0), task_type="", draw=0, seed=0, text=_PROBE)
        if self.is_chat:
            probe = dataclasses.replace(probe, text="", messages=(Message("user", _PROBE),))
        async with self.patience.gate.passed() as place:
            await self._greet(place, probe)
            if self.can_continue:
                await self._try_grammars(place, probe)

    async def _greet(self, place: Place, probe: Prompt) -> None:
        request = Request(_PROBE_TOKENS, temperature=0.0, top_p=1.0)
        outcome = await self.patience.ask(place, self.url, self._body(probe, request))
        if isinstance(outcome, Refusal) and "max_completion_tokens" in outcome.words:
            self.limit_field = "max_completion_tokens"
            outcome = await self.patience.ask(place, self.url, self._body(probe, request))
        if not isinstance(outcome, Reply):
            raise EngineError(
                f'the server does not answer a plain question at "{self.url}": {outcome.words}',
                hint="set the codec that fits the model: bonito-v1 asks /completions, instruct /chat/completions",
            )
        self.patience.remember(self.url, self._body(probe, request))

    async def _try_grammars(self, place: Place, probe: Prompt) -> None:
        for fields in self.served.dialect.grammars:
            self.grammar_fields = fields
            request = Request(_PROBE_TOKENS, temperature=0.0, top_p=1.0, grammar=PROBE_GRAMMAR)
            outcome = await self.patience.ask(place, self.url, self._body(probe, request))
            # A server that does not know a field may leave it aside without a word, so what it wrote decides.
            if isinstance(outcome, Reply) and obeys_probe(_read(outcome.body, self.is_chat, request).text):
                return
        self.grammar_fields = None

    async def write(self, place: Place, prompt: Prompt, request: Request) -> Completion:
        """Give what the model writes, without what it had written before."""
        outcome = await self.patience.ask(place, self.url, self._body(prompt, request))
        if isinstance(outcome, Refusal):
            return Completion(finish="too_long" if is_too_long(outcome) else "error", error=outcome.words)
        if isinstance(outcome, Trouble):
            return Completion(finish="error", error=outcome.words)
        return _read(outcome.body, self.is_chat, request)

    def _body(self, prompt: Prompt, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.served.name,
            **self._question(prompt, request.written),
            self.limit_field: request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": prompt.seed & ((1 << _SEED_BITS) - 1),
            **self.served.dialect.sampling,
        }
        if request.grammar and self.grammar_fields:
            body |= self.grammar_fields(request.grammar)
        return body

    def _question(self, prompt: Prompt, written: str) -> dict[str, Any]:
        if not self.is_chat:
            return {"prompt": prompt.text + written}
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        if not written:
            return {"messages": messages}
        assert self.served.dialect.continues is not None
        return {"messages": [*messages, {"role": "assistant", "content": written}], **self.served.dialect.continues}


def is_too_long(refusal: Refusal) -> bool:
    """Say whether a server refuses a request because it does not fit its model."""
    return refusal.status == 413 or bool(_TOO_LONG.search(f"{refusal.code} {refusal.words}".casefold()))


def _read(body: Mapping[str, Any], is_chat: bool, request: Request) -> Completion:
    """Read the first choice of a reply; whatever has another shape becomes an error that quotes it."""
    try:
        choice = body["choices"][0]
        text = (choice["message"]["content"] if is_chat else choice["text"]) or ""
        finish = str(choice["finish_reason"])
        new_tokens = int((body.get("usage") or {}).get("completion_tokens") or -(-len(text) // _CHARS_PER_TOKEN))
        text = text.removeprefix(request.written)  # some servers repeat it
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return Completion(finish="error", error=f"the reply has another shape: {str(body)[:200]}")
    if finish not in ("stop", "length"):
        return Completion(text, "error", new_tokens, error=f"the server ended the answer with {finish!r}")
    if finish == "length" and new_tokens < request.max_new_tokens:
        return Completion(text, "too_long", new_tokens, error="the answer filled the model's context")
    return Completion(text, finish, new_tokens)
