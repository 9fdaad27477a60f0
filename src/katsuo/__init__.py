"""Private text in, checked instruction-tuning data out: the front door."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from katsuo.api import Estimate, Evaluation, estimate, export_run, generate, preview
    from katsuo.config import Recipe, read_recipe
    from katsuo.errors import KatsuoError
    from katsuo.records import Example, Passage, Reject, Summary
    from katsuo.store import Run

_HOMES = {
    "katsuo.api": ("Estimate", "Evaluation", "estimate", "export_run", "generate", "preview"),
    "katsuo.config": ("Recipe", "read_recipe"),
    "katsuo.errors": ("KatsuoError",),
    "katsuo.records": ("Example", "Passage", "Reject", "Summary"),
    "katsuo.store": ("Run",),
}

__all__ = [
    "Estimate",
    "Evaluation",
    "Example",
    "KatsuoError",
    "Passage",
    "Recipe",
    "Reject",
    "Run",
    "Summary",
    "estimate",
    "export_run",
    "generate",
    "preview",
    "read_recipe",
]


def __getattr__(name: str) -> object:
    """Import what is asked for on first use, so that `import katsuo` costs nothing."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'katsuo' has no attribute {name!r}")
