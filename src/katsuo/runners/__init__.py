"""Where the pipeline runs: order, parallelism, resume and progress; what a shard holds is not their business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from katsuo.registry import Door, Registry
from katsuo.runners.base import Runner, RunnerSettings

RUNNERS: Registry[Callable[[RunnerSettings[Any]], Runner[Any]]] = Registry(
    "runners",
    {
        "local": Door("katsuo.runners.local:LocalRunner", summary="one shard after the other, in this process"),
        "ray": Door("katsuo.runners.ray_actors:RayRunner", extra="ray", summary="workers of a Ray cluster"),
    },
)

__all__ = ["RUNNERS", "Runner", "RunnerSettings"]
