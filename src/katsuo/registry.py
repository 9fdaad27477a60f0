"""One lookup for every family: name → door → thing, imported on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Generic, TypeVar, cast

from katsuo.errors import MissingPackageError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Door:
    """Where a thing lives and what it needs: `path` is `module:attribute`, `extra` names katsuo's own extra."""

    path: str
    extra: str | None = None
    summary: str = ""


class Registry(Generic[T]):
    """
    Look things of one family up by name; importing a registry imports none of them.

    Packages outside the project join through the entry-point group `katsuo.<family>`.
    """

    def __init__(self, family: str, doors: dict[str, Door]) -> None:
        self.family = family
        self._doors = doors

    def names(self) -> list[str]:
        """List every known name, our own first."""
        return [*self._doors, *sorted(entry.name for entry in self._entry_points())]

    def door(self, name: str) -> Door:
        """Give the door of `name`; raise `UnknownNameError` with the nearest known one."""
        if name in self._doors:
            return self._doors[name]
        for entry in self._entry_points():
            if entry.name == name:
                return Door(entry.value)
        raise unknown_name(self.family.rstrip("s"), name, self.names())

    def get(self, name: str) -> T:
        """Import and give the thing; raise `MissingPackageError` with what to install."""
        door = self.door(name)
        module_name, _, attribute = door.path.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not door.extra or (error.name or "").startswith("katsuo"):
                raise
            raise MissingPackageError(
                f'{self.family.rstrip("s")} "{name}" needs the package "{error.name}", which is not installed',
                hint=f"pip install 'katsuo[{door.extra}]'",
            ) from error
        return cast(T, getattr(module, attribute))

    def _entry_points(self) -> Iterator[metadata.EntryPoint]:
        for entry in metadata.entry_points(group=f"katsuo.{self.family}"):
            if entry.name not in self._doors:
                yield entry


def unknown_name(noun: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Say that `name` is not known, and which known one is nearest."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
    return UnknownNameError(f'unknown {noun} "{name}"', hint=hint)
