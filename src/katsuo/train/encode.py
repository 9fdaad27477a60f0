"""From a pair of texts to tokens: the prompt exactly as an engine encodes it, the completion, the end of sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy
from numpy.typing import NDArray

from katsuo.engines.hf.prompts import closing_tokens, encode_plain, end_token, opening_tokens
from katsuo.engines.hf.prompts import encode as encode_prompt
from katsuo.records import Message, Passage, Prompt, Reason
from katsuo.tasks.style import asker
from katsuo.train.recipes import TrainRecipe

Tokens = NDArray[numpy.int32]
_NOWHERE = Passage("", "", "", 0, 0)
_ENCODED_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing to learn: a prompt, raw or as the messages of a chat, and what is to follow it."""

    prompt: str | tuple[Message, ...]
    completion: str
    fault: Reason | None = None
    """Why it must not be learned; it is rejected and counted."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens; the loss is on those from `prompt_length` on, the end of sequence included."""

    tokens: Tokens
    prompt_length: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Longest prompt, completion and whole example, in tokens."""

    tokens: int
    prompt: int | None = None
    completion: int | None = None


def limits_of(recipe: TrainRecipe) -> Limits:
    """Give the lengths that the recipe allows."""
    return Limits(recipe.data.max_tokens, recipe.data.max_prompt_tokens, recipe.data.max_completion_tokens)


@dataclass
class Ledger:
    """What became of the pairs: kept and rejected add up to those that came in."""

    kept: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


class Encoder:
    """Encode pairs for one tokenizer; `end_token` is what a completion of a raw prompt ends with."""

    def __init__(self, tokenizer: Any, *, end_tokens: Collection[int], limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = frozenset(end_tokens)
        self._limits = limits
        self.ledger = Ledger()
        self._chat_tail: list[int] = []
        self.end_token = end_token(tokenizer, end_tokens=self._end_tokens)

    def encode(self, pairs: Iterable[Pair]) -> Iterator[Encoded | None]:
        """Give each pair in order, None for one that does not fit; `ledger` counts both."""
        source = iter(pairs)
        while batch := list(islice(source, _ENCODED_TOGETHER)):
            prompts = self._prompts(batch)
            completions = encode_plain(self._tokenizer, [pair.completion for pair in batch])
            for pair, prompt, completion in zip(batch, prompts, completions, strict=True):
                yield self._join(pair, prompt, completion)

    def windows(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Split raw texts into windows of at most `limits.tokens`; every token but a text's first is learned once."""
        size = self._limits.tokens
        for text in texts:
            (tokens,) = encode_plain(self._tokenizer, [text])
            tokens = [*opening_tokens(self._tokenizer, end_tokens=self._end_tokens), *tokens, self.end_token]
            for start in range(0, len(tokens) - 1, size - 1):
                # Each window begins with the last token of the one before it.
                window = numpy.array(tokens[start : start + size], dtype=numpy.int32)
                self._count(window, 1)
                yield Encoded(window, 1)

    def _prompts(self, batch: Sequence[Pair]) -> list[list[int]]:
        texts = [pair.prompt for pair in batch if isinstance(pair.prompt, str)]
        if len(texts) == len(batch):
            encoded = self._tokenizer(texts, split_special_tokens=True).input_ids
            # As engines do: some tokenizers close every text, and a prompt is to be continued.
            return [ids[:-1] if ids and ids[-1] in self._end_tokens else ids for ids in encoded]
        return [
            encode_prompt(self._tokenizer, _as_prompt(pair), end_tokens=self._end_tokens).tokens.tolist()
            for pair in batch
        ]

    def _join(self, pair: Pair, prompt: list[int], completion: list[int]) -> Encoded | None:
        if fault := Reason.EMPTY_PART if not completion or not prompt else pair.fault:
            self.ledger.rejected[str(fault)] += 1
            return None
        tail = [self.end_token] if isinstance(pair.prompt, str) else self._tail_of_chat()
        limits, learned = self._limits, len(completion) + len(tail)
        too_long = (
            len(prompt) + learned > limits.tokens
            or len(prompt) > (limits.prompt or limits.tokens)
            or learned > (limits.completion or limits.tokens)
        )
        if too_long:
            self.ledger.rejected[str(Reason.TOO_LONG)] += 1
            return None
        tokens = numpy.array([*prompt, *completion, *tail], dtype=numpy.int32)
        self._count(tokens, len(prompt))
        return Encoded(tokens, len(prompt))

    def _count(self, tokens: Tokens, prompt_length: int) -> None:
        self.ledger.kept += 1
        self.ledger.tokens += len(tokens)
        self.ledger.learned_tokens += len(tokens) - prompt_length

    def _tail_of_chat(self) -> list[int]:
        if not self._chat_tail:
            self._chat_tail = closing_tokens(self._tokenizer, end_tokens=self._end_tokens, is_chat=True)
        return self._chat_tail


def _as_prompt(pair: Pair) -> Prompt:
    if isinstance(pair.prompt, str):
        return Prompt("", _NOWHERE, "", 0, 0, text=pair.prompt)
    return Prompt("", _NOWHERE, "", 0, 0, messages=pair.prompt)


Styler = Callable[[str, str], Pair]


def styler(style: str, template: str | None = None) -> Styler:
    """Give the function that writes an instruction and its response as a pair of that style."""
    ask = asker(style, template)
    if style == "template":
        return lambda instruction, response: Pair(ask(instruction), response)
    return lambda instruction, response: Pair(ask(instruction), response.strip())
