"""Who answers: text out of one model, reached by name."""

from __future__ import annotations

from collections.abc import Callable

from katsuo.engines.base import (
    CanCountTokens,
    CanGenerate,
    CanScore,
    CanStream,
    Choices,
    EngineSettings,
    ModelInfo,
    Scores,
)
from katsuo.registry import Door, Registry

ENGINES: Registry[Callable[[EngineSettings], CanGenerate]] = Registry(
    "engines",
    {
        "hf": Door("katsuo.engines.hf.engine:HfEngine", extra="hf", summary="transformers, in this process"),
        "llamacpp": Door(
            "katsuo.engines.llamacpp.engine:LlamaCppEngine",
            extra="llamacpp",
            summary="a GGUF model by llama.cpp, in this process",
        ),
        "openai": Door(
            "katsuo.engines.openai_server.engine:open_openai",
            extra="openai",
            summary="any server that speaks the OpenAI protocol",
        ),
        "vllm": Door(
            "katsuo.engines.vllm_process.engine:open_vllm", extra="vllm", summary="vLLM, in a process of its own"
        ),
        "fake": Door("katsuo.engines.fake:FakeEngine", summary="no model: deterministic, well-formed answers"),
    },
)


def open_engine(name: str, settings: EngineSettings) -> CanGenerate:
    """Load a model behind the engine called `name`."""
    return ENGINES.get(name)(settings)


__all__ = [
    "ENGINES",
    "CanCountTokens",
    "CanGenerate",
    "CanScore",
    "CanStream",
    "Choices",
    "EngineSettings",
    "ModelInfo",
    "Scores",
    "open_engine",
]
