"""Who answers: text out of one model, reached by name."""

from __future__ import annotations

from collections.abc import Callable

from katsuo.engines.base import CanCountTokens, CanGenerate, EngineSettings, ModelInfo
from katsuo.registry import Door, Registry

ENGINES: Registry[Callable[[EngineSettings], CanGenerate]] = Registry(
    "engines",
    {
        "hf": Door("katsuo.engines.hf.engine:HfEngine", extra="hf", summary="transformers, in this process"),
        "fake": Door("katsuo.engines.fake:FakeEngine", summary="no model: deterministic, well-formed answers"),
    },
)


def open_engine(name: str, settings: EngineSettings) -> CanGenerate:
    """Load a model behind the engine called `name`."""
    return ENGINES.get(name)(settings)


__all__ = ["ENGINES", "CanCountTokens", "CanGenerate", "EngineSettings", "ModelInfo", "open_engine"]
