"""Where the checkpoints of a training lie, and which of them is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from katsuo.train import processes

CHECKPOINTS = "checkpoints"
WHOLE = "complete"
"""The file that is written into a checkpoint last; it holds the seconds that the training took until then."""


def last_checkpoint(output: Path) -> Path | None:
    """Give the last whole checkpoint of the training in `output` and remove those that were cut short."""
    whole = []
    for folder in (output / CHECKPOINTS).glob("checkpoint-*"):
        if (folder / WHOLE).exists():
            whole.append(folder)
        elif processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def mark_whole(checkpoint: Path, *, seconds: float) -> None:
    """Say that all of a checkpoint is written."""
    (checkpoint / WHOLE).write_text(json.dumps(round(seconds, 1)), encoding="utf-8")


def seconds_until(checkpoint: Path) -> float:
    """Give the seconds that the training took until a whole checkpoint."""
    return float((checkpoint / WHOLE).read_text(encoding="utf-8") or 0.0)
