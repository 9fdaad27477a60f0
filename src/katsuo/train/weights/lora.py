"""The adapter: put beside the weights, computed quickly, saved, and proved before it is handed over."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from katsuo.errors import ModelError, TrainError
from katsuo.train import processes
from katsuo.train.recipes import Adapter

NAME = "default"
_PROOF = "proof"
WEIGHTS = "adapter_model.safetensors"


def add_adapter(model: Any, settings: Adapter) -> Any:
    """Give the model with a fresh adapter that changes nothing yet; its own weights are frozen."""
    modules = settings.target_modules
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=modules[0] if modules == ("all-linear",) else list(modules),
        task_type="CAUSAL_LM",
    )
    try:
        with _quietly():
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            f"the adapter finds no place in this model: {error}", hint="set adapter.target_modules to all-linear"
        ) from error
    return wrapped


def open_adapter(model: Any, folder: Path) -> Any:
    """Give the model with the adapter in `folder`, ready to be trained on."""
    try:
        with _quietly():
            wrapped: Any = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f'cannot load the adapter in "{folder}": {error}', hint="give the model that the adapter was trained on"
        ) from error
    # Where the base lies on this machine: peft asks the hub about a name that is no folder.
    wrapped.peft_config[NAME].base_model_name_or_path = model.name_or_path
    return wrapped


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copy the adapter's weights, under the names that they are saved by."""
    with _quietly():
        state = peft.get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    return {name: processes.whole(weight) for name, weight in state.items()}


def set_adapter_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put weights back that `adapter_weights` gave."""
    with _quietly():
        peft.set_peft_model_state_dict(model, weights, adapter_name=NAME)


def save_adapter(model: Any, folder: Path, *, base_name: str) -> None:
    """Write adapter_config.json and the weights in bfloat16, and let the model hold what was written."""
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in adapter_weights(model).items()}
    set_adapter_weights(model, {name: weight.float() for name, weight in weights.items()})
    if not processes.is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.peft_config[NAME])
    config.inference_mode, config.base_model_name_or_path = True, base_name
    config.save_pretrained(str(folder))
    partial = folder / f"{WEIGHTS}.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / WEIGHTS)


@torch.no_grad()
def prove_adapter(model: Any, folder: Path, tokens: torch.Tensor, *, start: Path | None = None) -> float:
    """
    Compare logits of what was begun from, of the adapter as trained and as saved; give how far training moved them.

    `tokens` are (1, length). It was begun from the base alone, or with the adapter in `start` beside it. Raise
    `TrainError` when training has changed nothing, or the adapter does not load back the same.
    """
    model.eval()
    trained = model(input_ids=tokens).logits.float()
    if start:
        base = _logits_beside(model, start, tokens)
    else:
        with model.disable_adapter():
            base = model(input_ids=tokens).logits.float()
    loaded = _logits_beside(model, folder, tokens)
    return compare_logits(base=base, trained=trained, loaded=loaded, folder=folder)


def _logits_beside(model: Any, folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """Give the logits with the adapter in `folder` in place of the model's own."""
    with _quietly():
        model.load_adapter(str(folder), adapter_name=_PROOF, use_safetensors=True)
    model.set_adapter(_PROOF)
    logits: torch.Tensor = model(input_ids=tokens).logits.float()
    model.set_adapter(NAME)
    model.delete_adapter(_PROOF)
    return logits


def compare_logits(*, base: torch.Tensor, trained: torch.Tensor, loaded: torch.Tensor, folder: Path) -> float:
    """Give how far training moved the logits, as a share of their size; raise `TrainError` when nothing came of it."""
    if not torch.equal(loaded, trained):
        raise TrainError(f'the weights in "{folder}" do not load back to the same logits', hint="train again")
    change = float((trained - base).norm() / base.norm())
    if not change > 0.0:
        raise TrainError(
            "training has not changed what the model says", hint="raise learning_rate or max_steps, and train again"
        )
    return change


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide what peft says about names that transformers is about to drop; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield
