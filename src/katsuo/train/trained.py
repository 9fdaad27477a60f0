"""What a training is given, and what came out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katsuo.train.fit import Fitted
from katsuo.train.load import Base
from katsuo.train.recipes import TrainRecipe


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and where to."""

    command: str
    base: Base
    recipe: TrainRecipe
    output: Path
    data: Mapping[str, Any]
    codec: str | None = None
    start: Path | None = None


@dataclass(frozen=True)
class Trained:
    """What came out of a training."""

    path: Path
    fitted: Fitted
    change: float
    examples: int
    rejected: Mapping[str, int]
    bytes: int
