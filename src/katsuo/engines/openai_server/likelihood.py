"""
Ask a server how likely its model finds a text.

Two ways are known. A server that echoes gives the log-probability of every token that it was sent (`echo` with
`logprobs`, as vLLM and SGLang do): one request per answer. llama.cpp's server tells only of tokens that it wrote
itself, so it is made to write each token of the answer (`logit_bias`), and tells how likely that was without the push:
one request per token, of which it reads only what is new. Of a token that ends within a letter it tells nothing; a
second request then makes it write a whole letter, and list how likely every token was in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from katsuo.engines.openai_server.gate import Place
from katsuo.engines.openai_server.greet import Served
from katsuo.engines.openai_server.line import Refusal, Reply, Trouble
from katsuo.engines.openai_server.patience import Patience

Values = list[float]
_PUSH = 1000.0
"""Added to a logit, more than any other token has."""


class LikelihoodAsker:
    """The requests themselves; `is_probe` is true where they only try whether the server takes them."""

    def __init__(self, patience: Patience, served: Served, *, is_probe: bool = False) -> None:
        self.patience = patience
        self.served = served
        self._is_probe = is_probe
        self._url = f"{patience.line.address}/completions"
        self._letter: int | None = None

    async def read(self, place: Place, prompt: list[int], answer: list[int]) -> Values | Refusal | Trouble:
        """Give the log-probability of every token of the answer, in the way in which this server tells it."""
        return await (self.forced if self.served.dialect.is_forced else self.echoed)(place, prompt, answer)

    async def echoed(self, place: Place, prompt: list[int], answer: list[int]) -> Values | Refusal | Trouble:
        """Give the log-probability of every token of the answer, in one request."""
        outcome = await self._ask(place, [*prompt, *answer], {"echo": True, "logprobs": 1})
        if not isinstance(outcome, Reply):
            return outcome
        values = _listed(outcome.body, "token_logprobs")[len(prompt) : len(prompt) + len(answer)]
        return _numbers(values, len(answer)) or _without(outcome)

    async def echoed_text(self, place: Place, text: str) -> tuple[list[str], list[Any]] | Refusal | Trouble:
        """Give the tokens of a text as words, and the log-probability of each; the first has none."""
        outcome = await self._ask(place, text, {"echo": True, "logprobs": 1})
        if not isinstance(outcome, Reply):
            return outcome
        words, values = (_listed(outcome.body, name)[:-1] for name in ("tokens", "token_logprobs"))
        if len(words) != len(values) or not _numbers(values[1:], max(1, len(words) - 1)):
            return _without(outcome)
        return [str(word) for word in words], values

    async def forced(self, place: Place, prompt: list[int], answer: list[int]) -> Values | Refusal | Trouble:
        """Give the log-probability of every token of the answer, each written because it has to be."""
        found: list[float] = []
        for number, token in enumerate(answer):
            begun = [*prompt, *answer[:number]]
            outcome = await self._pushed(place, begun, token, listed=1)
            if isinstance(outcome, Reply) and not _written(outcome.body) and self.served.vocabulary:
                outcome = await self._beside_a_letter(place, begun)
            if not isinstance(outcome, Reply):
                return outcome
            value = _told_of(token, _written(outcome.body))
            if value is None:
                return _without(outcome)
            found.append(value)
        return found

    async def _beside_a_letter(self, place: Place, begun: list[int]) -> Reply | Refusal | Trouble:
        """Have a letter written, and all tokens listed that might have been in its place."""
        if self._letter is None:
            assert self.served.dialect.tokenize is not None, "a server that takes tokens tells them"
            told = self.served.dialect.tokenize(self.served.name, "a")
            outcome = await self.patience.ask(place, f"{self.patience.line.root}/tokenize", told)
            if not isinstance(outcome, Reply):
                return outcome
            tokens = outcome.body.get("tokens")
            if not isinstance(tokens, list) or not tokens:
                return Trouble(f"the server gives no tokens: {outcome.quote(outcome.body)}")
            self._letter = int(tokens[0])
        return await self._pushed(place, begun, self._letter, listed=self.served.vocabulary)

    async def _pushed(self, place: Place, begun: list[int], token: int, *, listed: int) -> Reply | Refusal | Trouble:
        """Have one token written after those that are there; `listed` is of how many the server tells beside it."""
        return await self._ask(place, begun, {"logit_bias": [[token, _PUSH]], "logprobs": listed, "cache_prompt": True})

    async def _ask(self, place: Place, prompt: list[int] | str, how: Mapping[str, Any]) -> Reply | Refusal | Trouble:
        body = {"model": self.served.name, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, **how}
        return await self.patience.ask(place, self._url, body, is_probe=self._is_probe)


def _listed(body: Mapping[str, Any], name: str) -> list[Any]:
    """Give a list out of the first choice's log-probabilities; an empty one where there is none."""
    found = _logprobs(body).get(name)
    return found if isinstance(found, list) else []


def _written(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what is told about the first token that was written."""
    content = _logprobs(body).get("content")
    return content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}


def _told_of(token: int, written: Mapping[str, Any]) -> float | None:
    """Give the log-probability of a token: the one that was written, or one that the server lists beside it."""
    beside = written.get("top_logprobs")
    for told in (written, *(beside if isinstance(beside, list) else ())):
        if isinstance(told, dict) and told.get("id") == token and isinstance(told.get("logprob"), int | float):
            return float(told["logprob"])
    return None


def _logprobs(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    told = first.get("logprobs") if isinstance(first, dict) else None
    return told if isinstance(told, dict) else {}


def _numbers(values: Sequence[Any], count: int) -> Values | None:
    """Give the values as numbers; None unless there are so many and each is one."""
    if len(values) != count or not all(isinstance(value, int | float) for value in values):
        return None
    return [float(value) for value in values]


def _without(reply: Reply) -> Trouble:
    return Trouble(f"the server gives no log-probabilities: {reply.quote(reply.body)}")
