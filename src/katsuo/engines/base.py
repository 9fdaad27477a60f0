"""What an engine is: one method for text, further abilities as protocols of their own, and a promise about batches."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from katsuo.config import EngineOptions, Sampling
from katsuo.records import Completion, Prompt

UNKNOWN_CODEC = "unknown"
"""What `ModelInfo` says of a model whose files do not tell its codec; the recipe has to name it."""


@dataclass(frozen=True)
class EngineSettings:
    """What `open_engine` hands to an engine's door."""

    model: str
    adapter: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class ModelInfo:
    """Which model an engine holds; goes into the manifest and into every example."""

    engine: str
    model: str
    revision: str
    codec: str
    context_tokens: int
    is_cacheable: bool = True
    """False where an answer costs less than looking it up."""
    not_taken: tuple[str, ...] = ()
    """What was asked for and the answers up to now do not follow, such as `grammar` or `seed`."""


@runtime_checkable
class CanGenerate(Protocol):
    """
    Text out of one model.

    The batch promise: `generate` returns exactly one completion per prompt, in order. A prompt that cannot be answered
    becomes a completion that says so (`finish` "too_long" or "error"); a dead engine raises `EngineError`.
    """

    @property
    def info(self) -> ModelInfo:
        """The model behind the engine."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order."""
        ...


@runtime_checkable
class CanCountTokens(Protocol):
    """The engine's own tokenizer, for cutting documents into passages that fit."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Give one count per text."""
        ...


@runtime_checkable
class CanStream(Protocol):
    """
    Whole completions, handed over as they come, so that what came before a failure or a stop is not lost.

    The promise: `stream` gives `(place, completion)`, every place of `prompts` exactly once, in any order, and raises
    what `generate` raises. It runs in the thread of its caller, who may close it early: then what is under way is
    dropped, and the engine can be asked again.
    """

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as soon as it is there."""
        ...


@runtime_checkable
class CanRecall(Protocol):
    """What was answered before, without asking again."""

    def recall(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion | None]:
        """Give one completion per prompt, in order, None where there is none yet."""
        ...


@dataclass(frozen=True)
class Choices:
    """A prompt and the answers to be scored after it; `has_end` scores the end of the answer, too."""

    prompt: Prompt
    answers: tuple[str, ...]
    has_end: bool = True


@dataclass(frozen=True)
class Scores:
    """
    Per answer: the sum of the natural log-probabilities of its tokens after the prompt, and how many tokens they are.

    `finish` is "stop", "too_long" (the prompt with its longest answer does not fit the model) or "error" (with the
    engine's own words in `error`); the other two are empty then.
    """

    log_probabilities: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    finish: str = "stop"
    error: str = ""


@runtime_checkable
class CanScore(Protocol):
    """
    How likely a model finds given answers.

    The batch promise of `generate` holds: one `Scores` per question, in order. A prompt is encoded as `generate`
    encodes it, and an answer as a training on the same prompts would.
    """

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer in a chat, or to a raw prompt, as it would be typed; empty where unknown."""
        ...

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give the scores of every question, in order."""
        ...
