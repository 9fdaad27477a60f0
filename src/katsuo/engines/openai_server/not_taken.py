"""What a server was asked for and does not take: told once each, and written down."""

from __future__ import annotations

import warnings

from katsuo.errors import KatsuoWarning


class NotTaken:
    """Settings that a server's answers do not follow, by name."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """What was not taken up to now, in alphabetical order."""
        return tuple(sorted(self._names))

    def add(self, name: str, message: str = "", *, hint: str = "") -> None:
        """Write a setting down and, the first time and where there is a message, warn of it."""
        if name in self._names:
            return
        self._names.add(name)
        if message:
            warnings.warn(KatsuoWarning(message, hint=hint), stacklevel=2)
