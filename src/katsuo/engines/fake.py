"""An engine without a model: deterministic, well-formed, typed answers for tests, docs and dry runs."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from katsuo.config import Sampling
from katsuo.engines.base import Choices, EngineSettings, ModelInfo, Scores
from katsuo.records import Completion, Prompt


class FakeEngine:
    """Answer every prompt with the sketch of its own constraint; equal prompts and seeds give equal answers."""

    def __init__(self, settings: EngineSettings) -> None:
        self.info = ModelInfo(
            engine="fake", model="fake", revision="1", codec="bonito-v1", context_tokens=8192, is_cacheable=False
        )
        del settings  # there is nothing to load

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; a prompt without a constraint gets an empty text."""
        return [_answer(prompt, sampling) for prompt in prompts]

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer."""
        del is_chat  # one end for all
        return "</s>"

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give each answer a log-probability that depends on prompt and answer alone."""
        return [
            Scores(
                tuple(-(crc32(f"{_text(one.prompt)}\0{answer}".encode()) % 10_000) / 100 for answer in one.answers),
                tuple(len(answer.split()) + one.has_end for answer in one.answers),
            )
            for one in questions
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count words parted by white space."""
        return [len(text.split()) for text in texts]


def _text(prompt: Prompt) -> str:
    return prompt.text + "\0".join(message.content for message in prompt.messages)


def _answer(prompt: Prompt, sampling: Sampling) -> Completion:
    text = prompt.constraint.sketch(prompt.seed) if prompt.constraint else ""
    words = len(text.split())
    if words > sampling.max_new_tokens:
        return Completion(" ".join(text.split()[: sampling.max_new_tokens]), "length", sampling.max_new_tokens)
    return Completion(text, "stop", words)
