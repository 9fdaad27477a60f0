"""From a prompt's tokens to its completion, in one slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from katsuo.config import Sampling
from katsuo.engines.llama_words import SAMPLING, SEED_BITS, lark_fields
from katsuo.engines.llamacpp.model import LlamaModel
from katsuo.engines.parts import Request, carry_out, plan
from katsuo.records import Completion, Prompt


@dataclass(frozen=True)
class Row:
    """A prompt, its place in the batch, and its tokens."""

    place: int
    prompt: Prompt
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Writer:
    """Write the completions of rows; `encode` gives the tokens of what was written before."""

    model: LlamaModel
    encode: Callable[[str], list[int]]
    sampling: Sampling

    def write(self, slot: int, row: Row, is_stopped: Callable[[], bool]) -> Completion:
        """Give a row's completion, in as many requests as its plan has."""

        def answer(request: Request) -> Completion:
            return self._ask(slot, row, request, is_stopped)

        return carry_out(plan(row.prompt, self.sampling, has_grammar=True), answer)

    def _ask(self, slot: int, row: Row, request: Request, is_stopped: Callable[[], bool]) -> Completion:
        body = {
            **SAMPLING,
            "prompt": [*row.tokens, *(self.encode(request.written) if request.written else ())],
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": row.prompt.seed & ((1 << SEED_BITS) - 1),
            **(lark_fields(request.grammar) if request.grammar else {}),
        }
        written = self.model.write(slot, body, is_stopped)
        if written.refusal:
            return Completion(finish="error", error=written.refusal)
        return Completion(written.text, written.finish or "stop", written.new_tokens)
