"""One of the two ways to ask: raw text at `/completions`, a chat at `/chat/completions`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from katsuo.engines.openai_server.dialects import PROBE_GRAMMAR, Fields, obeys_probe
from katsuo.engines.openai_server.gate import Place
from katsuo.engines.openai_server.greet import PROBE, Served
from katsuo.engines.openai_server.line import Outcome, Refusal, Reply, Trouble
from katsuo.engines.openai_server.not_taken import NotTaken
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.parts import Request
from katsuo.errors import EngineError
from katsuo.records import Completion, Message, Passage, Prompt

_PROBE_TOKENS = 16
_SEED_BITS = 31
"""What every server takes: some hold seeds in 32 bits, and one of those gives -1 a meaning of its own."""
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|too long|too many tokens|maximum.{0,20}tokens")
_CHARS_PER_TOKEN = 4
_MAY_BE_LEFT_OUT = ("seed", "temperature", "top_p")
_REFUSES_A_FIELD = (400, 422)


@dataclass
class Endpoint:
    """One way to ask one model, opened by asking something harmless, so that what it does not take is known."""

    served: Served
    patience: Patience
    is_chat: bool
    not_taken: NotTaken
    limit_field: str = "max_tokens"
    grammar_fields: Callable[[str], Fields] | None = None
    url: str = field(init=False)
    _refused: dict[str, str] = field(default_factory=dict)
    _why_no_grammar: str = ""

    def __post_init__(self) -> None:
        self.url = f"{self.patience.line.address}/{'chat/' if self.is_chat else ''}completions"

    @property
    def can_continue(self) -> bool:
        """True where the model can be made to go on in an answer that was begun."""
        return not self.is_chat or self.served.dialect.continues is not None

    async def open(self) -> None:
        """Find out what the endpoint takes; raise `EngineError` when it does not take a plain question."""
        probe = Prompt("probe", Passage("", "", "", 0, 0), task_type="", draw=0, seed=0, text=PROBE)
        if self.is_chat:
            probe = dataclasses.replace(probe, text="", messages=(Message("user", PROBE),))
        async with self.patience.gate.passed() as place:
            await self._greet(place, probe)
            if self.can_continue:
                await self._try_grammars(place, probe)

    async def _greet(self, place: Place, probe: Prompt) -> None:
        request = Request(_PROBE_TOKENS, temperature=0.0, top_p=1.0)
        outcome = await self._ask(place, probe, request)
        if isinstance(outcome, Refusal) and "max_completion_tokens" in outcome.words:
            self.limit_field = "max_completion_tokens"
            outcome = await self._ask(place, probe, request)
        if not isinstance(outcome, Reply):
            raise EngineError(
                f'the server does not answer a plain question at "{self.url}": {outcome.words}',
                hint="set the codec that fits the model: bonito-v1 asks /completions, instruct /chat/completions",
            )
        self.patience.remember(self.url, self._taken(probe, request))

    async def _try_grammars(self, place: Place, probe: Prompt) -> None:
        for fields in self.served.dialect.grammars:
            self.grammar_fields = fields
            request = Request(_PROBE_TOKENS, temperature=0.0, top_p=1.0, grammar=PROBE_GRAMMAR)
            outcome = await self.patience.ask(place, self.url, self._taken(probe, request), is_probe=True)
            if not isinstance(outcome, Reply):
                self._why_no_grammar = outcome.words
            # A server that does not know a field may leave it aside without a word, so what it wrote decides.
            elif obeys_probe(_read(outcome, self.is_chat, request).text):
                return
            else:
                self._why_no_grammar = "it leaves grammars aside"
        self.grammar_fields = None

    async def write(self, place: Place, prompt: Prompt, request: Request) -> Completion:
        """Give what the model writes, without what it had written before."""
        outcome = await self._ask(place, prompt, request)
        self._tell_what_was_left_out(prompt, request)
        if isinstance(outcome, Refusal):
            return Completion(finish="too_long" if is_too_long(outcome) else "error", error=outcome.words)
        if isinstance(outcome, Trouble):
            return Completion(finish="error", error=outcome.words)
        return _read(outcome, self.is_chat, request)

    def go_without_grammar(self) -> None:
        """Say, where a grammar was tried, why answers are not held to theirs."""
        why = self._why_no_grammar
        told = f'the server at "{self.url}" takes no grammar ({why}): answers are checked, but not held to their form'
        hint = "docs/engines.md says how servers are started so that they take one; or set --no-grammar"
        self.not_taken.add("grammar", told if why else "", hint=hint)

    async def _ask(self, place: Place, prompt: Prompt, request: Request) -> Outcome:
        """Ask, and ask again without the field that the server says it does not take; raise where it refuses all."""
        while True:
            body = self._taken(prompt, request)
            outcome = await self.patience.ask(place, self.url, body)
            if not isinstance(outcome, Refusal):
                return outcome
            name = self._refused_field(outcome, prompt, body)
            if not name:
                if not is_too_long(outcome):
                    await self.patience.look_into(place, self.url, outcome)
                return outcome
            self._refused[_setting(name, body[name])] = outcome.words

    def _refused_field(self, refusal: Refusal, prompt: Prompt, body: Mapping[str, Any]) -> str:
        """Give the field that a refusal names first, of those that an answer can do without; else nothing."""
        if refusal.status not in _REFUSES_A_FIELD or is_too_long(refusal):
            return ""
        words = f"{refusal.code} {refusal.words}"
        asked = prompt.text + " ".join(message.content for message in prompt.messages)
        found = {name: re.search(rf"(?<!\w){name}(?!\w)", words) for name in self._may_be_left_out if name in body}
        # A refusal may quote the prompt.
        places = {name: match.start() for name, match in found.items() if match and name not in asked}
        return min(places, key=places.__getitem__, default="")

    @property
    def _may_be_left_out(self) -> tuple[str, ...]:
        return (*_MAY_BE_LEFT_OUT, *self.served.dialect.sampling)

    def _taken(self, prompt: Prompt, request: Request) -> dict[str, Any]:
        """Give what is sent: all that is asked for but what the server has refused."""
        body = self._body(prompt, request)
        for name in self._may_be_left_out:
            if _setting(name, body[name]) in self._refused:
                del body[name]
        return body

    def _tell_what_was_left_out(self, prompt: Prompt, request: Request) -> None:
        if not self._refused:
            return
        body = self._body(prompt, request)
        for setting in (_setting(name, body[name]) for name in self._may_be_left_out):
            if setting in self._refused:
                self.not_taken.add(
                    setting,
                    f'the server at "{self.url}" does not take {setting}, and is asked without: '
                    f"{self._refused[setting]}",
                    hint="rows will not come out the same again" if setting == "seed" else "it takes its own default",
                )

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


def _setting(name: str, value: object) -> str:
    """Name what a server may refuse: one value of a field, or any seed, since each prompt has its own."""
    return name if name == "seed" else f"{name} {json.dumps(value)}"


def _read(reply: Reply, is_chat: bool, request: Request) -> Completion:
    """Read the first choice of a reply; whatever has another shape becomes an error that quotes it."""
    body = reply.body
    try:
        choice = body["choices"][0]
        text = (choice["message"]["content"] if is_chat else choice["text"]) or ""
        finish = str(choice["finish_reason"])
        told = (body.get("usage") or {}).get("completion_tokens")
        new_tokens = int(told or 0) or -(-len(text) // _CHARS_PER_TOKEN)
        text = text.removeprefix(request.written)  # some servers repeat it
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return Completion(finish="error", error=f"the reply has another shape: {reply.quote(body)}")
    if finish not in ("stop", "length"):
        return Completion(text, "error", new_tokens, error=f'the server ended the answer with "{reply.quote(finish)}"')
    # An estimate cannot tell an answer that was cut from one that had no more room.
    is_counted = told is not None and (told or not text)
    if finish == "length" and is_counted and new_tokens < request.max_new_tokens:
        return Completion(text, "too_long", new_tokens, error="the answer filled the model's context")
    return Completion(text, finish, new_tokens)
