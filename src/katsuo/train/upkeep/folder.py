"""The folder of a training: made, taken up where it was stopped, never mixed up with another training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from katsuo.models.locate import MANIFEST
from katsuo.places import read_json, write_json
from katsuo.resume import refuse_occupied, refuse_other
from katsuo.settings import flat
from katsuo.train import processes
from katsuo.train.recipes import LAPTOP, TrainRecipe
from katsuo.train.upkeep.checkpoints import CHECKPOINTS, last_checkpoint

IDENTITY = "training.json"
TENSORBOARD = "tensorboard"
"""The folder of what TensorBoard shows; it stays."""
_MAY_CHANGE = {
    *("micro_batch_size", "micro_tokens", "gradient_checkpointing", "packing"),
    *("checkpoint_minutes", "checkpoint_every", "log_every", "report_to", "device"),
}
"""Settings that change how fast a training goes, but not what comes out."""


def identity_of(command: str, base_name: str, recipe: TrainRecipe, data: Mapping[str, Any], start: Path | None) -> Any:
    """Give all that decides what comes out of a training."""
    told = {"command": command, "model": base_name, "from": str(start) if start else None}
    return {**told, **{f"data: {key}": value for key, value in data.items()}, **flat(recipe.model_dump(mode="json"))}


def open_output(output: Path, identity: Mapping[str, Any]) -> bool:
    """
    Make the output folder or take up the one that is there; say whether the training in it is finished.

    Before its first checkpoint a training has nothing to lose: it begins anew, with other settings too. Raise
    `RunChangedError` when the folder holds a checkpoint or the result of other settings or other data.
    """
    held, is_finished = output / IDENTITY, (output / MANIFEST).is_file()
    if not processes.is_first():
        return is_finished
    if not held.is_file():
        refuse_occupied(output, "training")
    elif is_finished or last_checkpoint(output):
        # What a setting was before there was such a setting, it was by default.
        usual = {key: value for key, value in flat(LAPTOP.model_dump(mode="json")).items() if key in identity}
        now = json.loads(json.dumps(identity))
        refuse_other(
            output,
            "training",
            {**usual, **read_json(held, hint="give another folder with -o")},
            now,
            ignoring=_MAY_CHANGE,
        )
        return is_finished
    # What is kept without a checkpoint belongs to a training that begins anew.
    for name in (CHECKPOINTS, TENSORBOARD):
        shutil.rmtree(output / name, ignore_errors=True)
    write_json(held, identity)
    return False
