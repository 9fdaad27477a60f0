"""What goes wrong from outside, said with what helps: a full disk, too little memory, a missing package."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from katsuo.errors import MissingPackageError, StoreError, TrainError
from katsuo.train import processes
from katsuo.train.recipes import TrainRecipe
from katsuo.train.upkeep.checkpoints import last_checkpoint

_FULL = ("No space left", "PytorchStreamWriter failed", "enforce fail at inline_container")
"""What torch and safetensors say of a full disk."""
_INSTEAD = {"tensorboard": ("tensorboardX",)}


def require_packages(recipe: TrainRecipe) -> None:
    """Raise `MissingPackageError` for what the recipe asks for and nobody has installed."""
    needed: list[tuple[str, str, str]]
    needed = [(f'report_to "{name}"', name, f"pip install {name}, or leave it out") for name in recipe.report_to]
    hint = "pip install 'katsuo[qlora]'"
    if recipe.quantization != "none":
        needed.append((f'quantization "{recipe.quantization}"', "bitsandbytes", f"{hint}, or set quantization to none"))
    if recipe.optimizer != "adamw":
        needed.append((f'optimizer "{recipe.optimizer}"', "bitsandbytes", f"{hint}, or set optimizer to adamw"))
    for what, package, cure in needed:
        if not any(importlib.util.find_spec(name) for name in (package, *_INSTEAD.get(package, ()))):
            raise MissingPackageError(f'{what} needs the package "{package}", which is not installed', hint=cure)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error speaks of memory, of a GPU's or the processor's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error).lower()


@contextmanager
def translated(recipe: TrainRecipe, output: Path) -> Iterator[None]:
    """Say what to do about a full disk and too little memory, and clear away what was half written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        is_full = getattr(error, "errno", None) == errno.ENOSPC or any(word in str(error) for word in _FULL)
        if is_full or isinstance(error, OSError | SafetensorError):
            last = last_checkpoint(output)
            _clear(output)
            what = "no space left on the disk" if is_full else f"cannot write: {error}"
            goes_on = f"it goes on from {last.name}" if last else "there is no checkpoint yet, so it begins anew"
            raise StoreError(
                f'{what} for a checkpoint or the weights in "{output}"',
                hint=f"free some space and give the same command again: {goes_on}",
            ) from error
        if is_out_of_memory(error):
            raise TrainError(f"there is not enough memory: {error}", hint=_smaller(recipe, output)) from error
        raise


def in_place_of(setting: str, output: Path) -> str:
    """Say how to lower a setting that decides what comes out: in the same folder only before the first checkpoint."""
    if last_checkpoint(output) is None:
        return f"lower {setting} and give the command again"
    return f"lower {setting} and give a new folder with -o: the checkpoints here are of a training with the old one"


def _clear(output: Path) -> None:
    if processes.is_first():
        for partial in output.rglob("*.partial"):
            partial.unlink(missing_ok=True)


def _smaller(recipe: TrainRecipe, output: Path) -> str:
    """Name what bounds the tokens of a pass; then what changes no result; then what does."""
    longest = recipe.data.max_tokens
    bound = recipe.micro_tokens if processes.count() == 1 else None
    if bound and longest < bound < recipe.micro_batch_size * longest:
        return f"lower micro_tokens (now {bound}) and give the command again"
    if recipe.micro_batch_size > 1 and not (bound and bound <= longest):
        return f"lower micro_batch_size (now {recipe.micro_batch_size}) and give the command again"
    if not recipe.gradient_checkpointing:
        return "set gradient_checkpointing to true and give the command again"
    return in_place_of(f"data.max_tokens (now {longest}) or adapter.rank (now {recipe.adapter.rank})", output)
