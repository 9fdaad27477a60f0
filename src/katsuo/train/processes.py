"""Training in several processes (`accelerate launch`): the first writes, all decide alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict


def count() -> int:
    """Give the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Say whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Wait until every process has come this far."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def as_the_first(decision: bool, device: torch.device) -> bool:
    """Give the first process's decision, for what depends on a clock."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return decision
    told = torch.tensor([int(decision)], device=device)
    distributed.broadcast(told, src=0)
    return bool(told.item())


def whole(weight: torch.Tensor) -> torch.Tensor:
    """Copy a weight to the processor's memory, gathered where it is spread over several devices."""
    gather = getattr(weight, "full_tensor", None)
    gathered: torch.Tensor = gather() if gather else weight
    return gathered.detach().cpu().clone()


def part_of(weight: torch.Tensor) -> torch.Tensor:
    """Give the part of a weight or a gradient that lies on this device: all of it, unless it is spread."""
    part: torch.Tensor = getattr(weight, "_local_tensor", weight)
    return part


def load_whole(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put whole weights into a model, spread as the model is; those that are not named stay."""
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(model, dict(weights), options=options)
