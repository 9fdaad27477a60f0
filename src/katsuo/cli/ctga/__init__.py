"""`katsuo ctga`: its four commands, and how they look."""

from __future__ import annotations

from katsuo.cli.ctga.commands import add_to, app

__all__ = ["add_to", "app"]
