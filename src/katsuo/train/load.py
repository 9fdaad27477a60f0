"""Load a model to be trained: its weights in the number format of the recipe, its tokenizer, its attention."""

from __future__ import annotations

import logging as python_logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from katsuo.engines.hf.load import choose_device
from katsuo.errors import ModelError, TrainError, UsageError
from katsuo.models import KNOWN, is_adapter, locate, revision_of
from katsuo.train import processes
from katsuo.train.recipes import TrainRecipe
from katsuo.train.upkeep.trouble import is_out_of_memory, require_packages

_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_SHAPES_OF_A_PASS, _SHAPES_OF_AN_EXAMPLE = 128, 8


@dataclass(frozen=True)
class Base:
    """The model that a training starts from."""

    model: Any
    tokenizer: Any
    name: str
    public_name: str
    revision: str
    folder: Path
    end_tokens: frozenset[int]


def load_base(name: str, recipe: TrainRecipe) -> Base:
    """
    Load a known model, a hub model or a folder; raise `ModelError` when it cannot be trained.

    Raise `UsageError` for four-bit weights on a processor, `MissingPackageError` for what the recipe needs, and
    `TrainError` where memory does not hold the weights.
    """
    if recipe.quantization == "nf4" and choose_device(recipe.device).type == "cpu":
        # After a reading of the held-out loss bitsandbytes multiplies there by kernels that pass no gradient on.
        raise UsageError("four-bit weights are trained on a GPU", hint="set quantization to none or int8")
    require_packages(recipe)
    _keep_few_kernels(recipe)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = locate(name)
    if is_adapter(folder):
        raise ModelError(
            f'"{name}" is an adapter', hint=f"give its base as --model, and --from {name} to go on with it"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f'the model in "{folder}" has no .safetensors file', hint="give a model with safetensors")
    told: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    if recipe.quantization != "none":
        told["quantization_config"] = _quantization(recipe)
        told["device_map"] = {"": _own_device(recipe.device)}
    dtype: Any = torch.float32 if recipe.method == "full" else recipe.dtype
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **told)
    except (OSError, ValueError, KeyError, RuntimeError, MemoryError, SafetensorError, ImportError) as error:
        if is_out_of_memory(error):
            raise TrainError(
                f'there is not enough memory for the weights in "{folder}": {error}', hint=_lighter(recipe)
            ) from error
        raise ModelError(f'cannot load the model in "{folder}": {error}', hint="pull the model again") from error
    return Base(
        model, tokenizer, name, _public_name(name, folder), revision_of(folder), folder, _ends(model, tokenizer)
    )


def _keep_few_kernels(recipe: TrainRecipe) -> None:
    """
    Have the library of matrix products keep the kernels of about one pass, unless the user has said how many.

    It writes one for every shape and keeps 1,024 of them, a gigabyte in all. No two passes have the same shapes: what
    is used again is used by the next layer of the same pass.
    """
    shapes = _SHAPES_OF_A_PASS + _SHAPES_OF_AN_EXAMPLE * recipe.micro_batch_size
    os.environ.setdefault(_CAPACITY, str(shapes))


def _own_device(wanted: str) -> torch.device:
    """Give the device of this process: of several on one machine, each has its own GPU."""
    device = choose_device(wanted)
    if str(device) == "cuda" and processes.count() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def token_counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """Give what counts the tokens of texts for a model, without loading its weights; raise `ModelError`."""
    folder = locate(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f'cannot load the tokenizer in "{folder}": {error}', hint="pull the model again") from error
    return lambda texts: [len(tokens) for tokens in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _public_name(name: str, folder: Path) -> str:
    """Give a name that means the same on another machine: the hub's where there is one, else the folder's last part."""
    known = KNOWN.get(name)
    if known:
        return known.hub
    return folder.name if Path(name).expanduser().is_dir() else name


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    several: Collection[int | None] = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(token) for token in [*several, tokenizer.eos_token_id] if token is not None)


def _lighter(recipe: TrainRecipe) -> str:
    if recipe.method == "full":
        return "set method to lora, whose frozen weights take half and which needs no room for their optimiser"
    smaller = "give a smaller --model"
    return smaller if recipe.quantization != "none" else f"set quantization to nf4 (needs a GPU), or {smaller}"


def _quantization(recipe: TrainRecipe) -> Any:
    from transformers import BitsAndBytesConfig

    # It says at every product of eight-bit weights that these are multiplied in float16.
    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)

    four_bit = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16 if recipe.dtype == "auto" else getattr(torch, recipe.dtype),
    }
    told: dict[str, Any] = four_bit if recipe.quantization == "nf4" else {"load_in_8bit": True}
    return BitsAndBytesConfig(**told)  # type: ignore[no-untyped-call]
