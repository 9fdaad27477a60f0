"""Load a causal language model of transformers, its tokenizer and its adapter: safetensors only, no code but ours."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before the hub's library is imported: it reads these once.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_TELEMETRY", "1")

import peft
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from katsuo.engines.base import EngineSettings
from katsuo.errors import ModelError
from katsuo.models import locate, locate_parts
from katsuo.models.locate import ADAPTER_WEIGHTS

FAR_LENGTH = 10**6
"""A tokenizer that says its texts may be longer than this says nothing."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to decode; `folder` is that of the name it was asked for by, an adapter's own for an adapter."""

    model: PreTrainedModel
    tokenizer: Any
    folder: Path
    end_tokens: frozenset[int]
    context_tokens: int


def load_model(settings: EngineSettings) -> LoadedModel:
    """Load what `settings` names; raise `ModelError` when it is not here, not whole or not safe to load."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = settings.options
    folder, adapter = locate_parts(settings.model, settings.adapter, options.revision)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f'the model in "{folder}" has no .safetensors file', hint="give a model whose weights are safetensors"
        )
    common: dict[str, Any] = {"trust_remote_code": options.trust_remote_code, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=options.dtype, use_safetensors=True, **common)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ImportError) as error:
        raise ModelError(
            f'cannot load the model in "{folder}": {error}',
            hint="pull the model again; for one that brings its own code, set engine_options.trust_remote_code",
        ) from error
    if adapter:
        model = merge_adapter(model, adapter)
    model = model.to(choose_device(options.device)).eval()
    named = locate(settings.model, options.revision)
    return LoadedModel(model, tokenizer, named, _end_tokens(model, tokenizer), _context_tokens(model, tokenizer))


def choose_device(wanted: str) -> torch.device:
    """Give the device that `wanted` names; `auto` takes a GPU where there is one."""
    if wanted == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f'there is no device "{wanted}": {error}', hint="set engine_options.device to auto") from error
    return device


def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Add a LoRA adapter to the weights for good; raise `ModelError` for one that was trained on another model."""
    hint = "give --model the model that the adapter was trained on; its adapter_config.json names it"
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f'"{folder}" holds no {ADAPTER_WEIGHTS}', hint="give --adapter a LoRA adapter's folder")
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
            saved = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        config.base_model_name_or_path = (
            model.name_or_path
        )  # it lies elsewhere on this machine; peft would warn of that
        wrapped = _wrap(model, config)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f'cannot load the adapter in "{folder}": {error}', hint=hint) from error
    wanted = {name: tuple(weight.shape) for name, weight in peft.get_peft_model_state_dict(wrapped).items()}
    if saved != wanted:
        odd = sorted(saved.items() ^ wanted.items())[0][0]
        raise ModelError(f'the adapter in "{folder}" does not fit this model, first at "{odd}"', hint=hint)
    wrapped.load_adapter(str(folder), adapter_name="default", use_safetensors=True)
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged


def _wrap(model: PreTrainedModel, config: peft.PeftConfig) -> Any:
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers is about to drop; users can do nothing about it.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(model, config)


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Collect every token that ends an answer: generation settings may list several, the tokenizer names one."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several = list(named) if isinstance(named, (list, tuple)) else [named]
    ends = frozenset(token for token in [*several, tokenizer.eos_token_id] if token is not None)
    if not ends:
        raise ModelError("the model names no end token", hint="set eos_token_id in its generation_config.json")
    return ends


def _context_tokens(model: PreTrainedModel, tokenizer: Any) -> int:
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit and limit < FAR_LENGTH]
    return min(known) if known else FAR_LENGTH
