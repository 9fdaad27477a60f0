"""Taking up a folder: only what was begun with the same settings, and never one that holds something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from katsuo.errors import RunChangedError, RunExistsError
from katsuo.settings import flat


def refuse_other(
    path: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any], *, ignoring: Collection[str] = ()
) -> None:
    """Raise `RunChangedError`, which lists what differs, where `path` holds another `what` than is asked for now."""
    was, is_now = flat(before), flat(now)
    changed = [
        f"{key}: {was.get(key)!r} → {is_now.get(key)!r}"
        for key in sorted({*was, *is_now})
        if was.get(key) != is_now.get(key) and key not in ignoring
    ]
    if changed:
        raise RunChangedError(
            f'"{path}" holds another {what}:\n  ' + "\n  ".join(changed),
            hint="give another folder with -o, or the old settings",
        )


def refuse_occupied(path: Path, what: str) -> None:
    """Raise `RunExistsError` where `path` is a file or a folder with something whole in it."""
    if path.exists() and (not path.is_dir() or any(not one.name.endswith(".partial") for one in path.iterdir())):
        raise RunExistsError(f'"{path}" exists and holds no {what}', hint="give an empty or a new folder with -o")


def is_run_of(names: set[str]) -> bool:
    """Say whether a folder with files and folders of these names is a run."""
    return {"recipe.yaml", "passages", "done"} <= names
