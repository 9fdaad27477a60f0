"""What an engine is: one method for text, a second protocol for counting tokens, and a promise about batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from katsuo.config import EngineOptions, Sampling
from katsuo.records import Completion, Prompt


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
