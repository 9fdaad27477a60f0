"""Hold rows to their grammars: the instruction's first, then the answer's, which depends on what was written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy
import torch

from katsuo.records import Constraint

SEPARATOR = "\n<|pipe|>\n"
"""The line between instruction and answer, with the line breaks that belong to it."""


class GrammarError(Exception):
    """One row cannot be held to its grammar; the row says so and the others go on."""


class Grammars:
    """Matchers for one tokenizer; grammars that rows share are compiled once."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, end_tokens: Collection[int]) -> None:
        self.vocabulary = vocabulary
        self.end_tokens = frozenset(end_tokens)
        # Some tokenizers have more tokens than the model has logits for: these can never be drawn.
        self._width = max(vocabulary, len(tokenizer))
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=self._width, eos_token=sorted(end_tokens))
        self._executor = llguidance.LLExecutor()
        self._compiled = lru_cache(maxsize=256)(self._compile)

    def matcher(self, grammar: str) -> Any:
        """Give a fresh matcher; raise `GrammarError` with the library's words for a grammar it refuses."""
        return self._compiled(grammar).deep_copy()

    def masks(self, rows: Sequence[GrammarRow]) -> torch.Tensor:
        """Say which tokens each row may take next: booleans of shape (rows, vocabulary), computed in parallel."""
        bits = llguidance.numpy.allocate_token_bitmask(len(rows), self._width)
        matchers = [(row.matcher, line) for line, row in enumerate(rows)]
        llguidance.numpy.fill_next_token_bitmask_par(self._executor, matchers, bits)
        unpacked = numpy.unpackbits(bits.view(numpy.uint8), axis=1, bitorder="little")
        allowed = unpacked[:, : self.vocabulary].astype(numpy.bool_)
        for line, row in enumerate(rows):
            allowed[line, list(row.refused)] = False
        return torch.from_numpy(allowed)

    def _compile(self, grammar: str) -> Any:
        # log_level 0: a grammar that fails is reported by the row, not on standard error.
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError(matcher.get_error().strip())
        return matcher


class GrammarRow:
    """Where one row stands in its two grammars."""

    def __init__(self, grammars: Grammars, constraint: Constraint, decode: Callable[[Sequence[int]], str]) -> None:
        self._grammars = grammars
        self._constraint = constraint
        self._decode = decode
        self.matcher = grammars.matcher(constraint.instruction())
        self.is_answering = False
        self.is_finished = False
        self.refused: set[int] = set()
        """Tokens that were drawn here and not taken."""

    def accept(self, token: int, before: Sequence[int]) -> bool:
        """Take `token` after the tokens `before`, or refuse it; both grammars end exactly on a token's border."""
        if not self._takes(token, before):
            self.refused.add(token)
            return False
        self.refused.clear()
        if token in self._grammars.end_tokens:
            self.is_finished = True
        elif self.is_answering:
            self.is_finished = self.matcher.is_stopped()
        elif self.matcher.is_accepting():
            self._start_answer([*before, token])
        return True

    def _takes(self, token: int, before: Sequence[int]) -> bool:
        if token in self._grammars.end_tokens:
            return bool(self.is_answering and self.matcher.is_accepting())
        if self._is_unwanted(token, before):
            return False
        if self.matcher.try_consume_tokens([token]):
            return True
        if self.matcher.is_error():
            raise GrammarError(self.matcher.get_error().strip())
        return False

    def _is_unwanted(self, token: int, before: Sequence[int]) -> bool:
        if self.is_answering or not self._constraint.is_watched:
            return False
        return not self._constraint.may_go_on(self._decode([*before, token]))

    def _start_answer(self, tokens: Sequence[int]) -> None:
        instruction = self._decode(tokens)
        if not instruction.endswith(SEPARATOR):
            raise GrammarError(f"the grammar of the instruction does not end with the separator: {instruction[-20:]!r}")
        self.matcher = self._grammars.matcher(self._constraint.answer(instruction.removesuffix(SEPARATOR)))
        self.is_answering = True
