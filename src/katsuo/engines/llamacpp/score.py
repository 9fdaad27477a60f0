"""
How likely a model finds given answers.

llama.cpp tells the log-probability of what it writes, not of what it reads. So each token of an answer is pushed until
it is the one that is written, and what is told is how likely it was without the push. A slot keeps the prompt, so that
a token of an answer costs as much as one that is written freely, and a beginning that answers share is asked for once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from katsuo.engines.base import Choices, Scores
from katsuo.engines.llamacpp.model import LlamaModel
from katsuo.engines.llamacpp.prompts import Encoder


@dataclass(frozen=True)
class Scored:
    """A question as tokens, and its place in the batch."""

    place: int
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer, and of the one that is written after all but the last."""
        return len(self.prompt) + max(map(len, self.answers)) + 1


def encode_choices(place: int, question: Choices, encoder: Encoder, context_tokens: int) -> Scored | Scores:
    """Give a question's tokens, or the scores that say why it cannot be asked."""
    if not question.answers or not all(question.answers):
        return Scores(finish="error", error="an answer is empty" if question.answers else "there is no answer to score")
    tail = encoder.closing(is_chat=bool(question.prompt.messages)) if question.has_end else []
    # Something has to stand before the first token for the model to say how likely that is.
    prompt = encoder.encode(question.prompt) or encoder.closing(is_chat=False)
    answers = tuple((*encoder.encode_plain(answer), *tail) for answer in question.answers)
    scored = Scored(place, tuple(prompt), answers)
    return Scores(finish="too_long") if scored.longest - 1 > context_tokens else scored


def score(model: LlamaModel, slot: int, scored: Scored, is_stopped: Callable[[], bool]) -> Scores:
    """Give the scores of one question."""
    known: dict[tuple[int, ...], float] = {}
    sums = []
    for answer in scored.answers:
        total = 0.0
        for end in range(1, len(answer) + 1):
            begun = answer[:end]
            if begun not in known:
                value = model.likelihood(slot, [*scored.prompt, *begun[:-1]], begun[-1], is_stopped)
                if isinstance(value, str):
                    return Scores(finish="error", error=value)
                known[begun] = value
            total += known[begun]
        sums.append(total)
    return Scores(tuple(sums), tuple(map(len, scored.answers)))
