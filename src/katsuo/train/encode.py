"""From a pair of texts to tokens: the prompt exactly as an engine encodes it, the completion, the end of sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy
from numpy.typing import NDArray

from katsuo.engines.hf.prompts import encode as encode_prompt
from katsuo.errors import ModelError
from katsuo.records import Message, Passage, Prompt, Reason
from katsuo.train.recipes import TrainRecipe

Tokens = NDArray[numpy.int32]
_NOWHERE = Passage("", "", "", 0, 0)
_ENCODED_TOGETHER = 256
_STAND_IN = "\ue000katsuo\ue001"


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing to learn: a prompt, raw or as the messages of a chat, and what is to follow it."""

    prompt: str | tuple[Message, ...]
    completion: str


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
        own = tokenizer.eos_token_id
        if own is None and not self._end_tokens:
            raise ModelError("the tokenizer names no end token", hint="set eos_token in its tokenizer_config.json")
        self.end_token = int(own if own is not None else min(self._end_tokens))

    def encode(self, pairs: Iterable[Pair]) -> Iterator[Encoded | None]:
        """Give each pair in order, None for one that does not fit; `ledger` counts both."""
        source = iter(pairs)
        while batch := list(islice(source, _ENCODED_TOGETHER)):
            prompts = self._prompts(batch)
            completions = self._plain([pair.completion for pair in batch])
            for pair, prompt, completion in zip(batch, prompts, completions, strict=True):
                yield self._join(pair, prompt, completion)

    def windows(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Split raw texts into windows of at most `limits.tokens`; every token but a text's first is learned once."""
        size = self._limits.tokens
        for text in texts:
            (tokens,) = self._plain([text])
            tokens = [*self._opening(), *tokens, self.end_token]
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

    def _plain(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def _opening(self) -> list[int]:
        """Give what the tokenizer puts before a text, such as a beginning-of-sequence token."""
        ids = list(self._tokenizer("").input_ids)
        return ids[:-1] if ids and ids[-1] in self._end_tokens else ids

    def _join(self, pair: Pair, prompt: list[int], completion: list[int]) -> Encoded | None:
        if not completion or not prompt:
            self.ledger.rejected[str(Reason.EMPTY_PART)] += 1
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
        """Give what the chat template writes after an answer, up to the token that ends it."""
        if not self._chat_tail:
            chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _STAND_IN}]
            rendered = self._tokenizer.apply_chat_template(chat, tokenize=False)
            after = list(self._tokenizer(rendered.partition(_STAND_IN)[2], add_special_tokens=False).input_ids)
            end = next((place for place, token in enumerate(after) if token in self._end_tokens), None)
            self._chat_tail = [self.end_token] if end is None else after[: end + 1]
        return self._chat_tail


def _as_prompt(pair: Pair) -> Prompt:
    if isinstance(pair.prompt, str):
        return Prompt("", _NOWHERE, "", 0, 0, text=pair.prompt)
    return Prompt("", _NOWHERE, "", 0, 0, messages=pair.prompt)


Styler = Callable[[str, str], Pair]


def styler(style: str, template: str | None = None) -> Styler:
    """Give the function that writes an instruction and its response as a pair of that style."""
    if style == "chat":
        return lambda instruction, response: Pair((Message("user", instruction.strip()),), response.strip())
    if style == "template":
        assert template is not None
        return lambda instruction, response: Pair(template.replace("{instruction}", instruction), response)
    return lambda instruction, response: Pair(f"<|input|>\n{instruction.strip()}\n<|output|>\n", response.strip())
