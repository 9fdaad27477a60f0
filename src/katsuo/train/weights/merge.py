"""Add an adapter to the weights of its model for good, and write the whole model."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from katsuo.errors import ModelError, RunExistsError, StoreError, TrainError
from katsuo.models import locate
from katsuo.models.gguf_files.checkpoint import FolderCheckpoint
from katsuo.models.gguf_files.write import write_gguf
from katsuo.models.locate import MANIFEST, read_manifest
from katsuo.train.load import load_base
from katsuo.train.recipes import LAPTOP
from katsuo.train.weights import lora
from katsuo.train.weights.card import write_merged_card
from katsuo.train.weights.start import add_up, history_of, locate_adapter, sources_of

LARGEST_DIFFERENCE = 0.1
"""Between the logits of base and adapter and those of the merged weights, as a share of the adapter's own effect."""


def merge(adapter: str, output: Path, *, model: str | None = None, gguf: str | None = None) -> Path:
    """
    Write base and adapter as one model in safetensors, with tokenizer and manifest, and with `gguf` as that too.

    The sum is rounded once, to the base's own number format. `model` is needed only where the adapter's manifest does
    not name the base. Raise `TrainError` when the merged model does not say what base and adapter say.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunExistsError(f'"{output}" exists already', hint="give an empty or a new folder with -o")
    folder = locate_adapter(adapter)
    manifest = read_manifest(folder)
    base = load_base(model or _base_of(folder, manifest), LAPTOP.override({"dtype": "float32"}))
    stored = _stored_dtype(base.folder)
    wrapped = lora.open_adapter(base.model, folder).eval()
    probe = torch.arange(3, 35)[None] * 11 % int(wrapped.get_input_embeddings().weight.shape[0])
    with torch.no_grad():
        expected = wrapped(input_ids=probe).logits.float()
        with wrapped.disable_adapter():
            plain = wrapped(input_ids=probe).logits.float()
    merged: Any = wrapped.merge_and_unload()
    history = history_of(folder)
    told = {
        **({"codec": manifest["codec"]} if "codec" in manifest else {}),
        "base_model": base.public_name,
        "base_revision": base.revision,
        "adapter_revision": history["revision"],
        "from": {**history, "sources": add_up([*sources_of(base.folder), *history["sources"]])},
    }
    merged = merged.to(stored)
    with torch.no_grad():
        apart = float((merged(input_ids=probe).logits.float() - expected).norm())
    if apart > LARGEST_DIFFERENCE * float((expected - plain).norm()) + 0.02 * float(expected.norm()):
        raise TrainError(
            f"the merged weights in {stored} do not say what base and adapter say",
            hint="keep the adapter beside its base: katsuo generate --model BASE --adapter FOLDER",
        )
    _write(merged, base.tokenizer, told, output, gguf)
    return output


def _stored_dtype(folder: Path) -> torch.dtype:
    """Give the number format that the config names, or that of the weights themselves."""
    named: torch.dtype | None = AutoConfig.from_pretrained(folder, local_files_only=True).dtype
    if named:
        return named
    with safe_open(next(iter(sorted(folder.glob("*.safetensors")))), framework="pt") as weights:
        found: torch.dtype = weights.get_tensor(next(iter(weights.keys()))).dtype
    return found


def _base_of(folder: Path, manifest: dict[str, Any]) -> str:
    named = manifest.get("base_model")
    if not named:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named = config.get("base_model_name_or_path")
    try:
        locate(str(named))
    except ModelError as error:
        raise ModelError(
            f'the model "{named}" that the adapter was trained on is not here', hint="give it with --model"
        ) from error
    return str(named)


def _write(model: Any, tokenizer: Any, manifest: dict[str, Any], output: Path, gguf: str | None) -> None:
    """Write the folder whole or not at all."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            write_merged_card(unfinished, manifest)
            if gguf:
                write_gguf(FolderCheckpoint(unfinished), unfinished / f"model-{gguf}.gguf", kind=gguf)
            for path in (unfinished, *unfinished.iterdir()):
                path.chmod(0o755 if path.is_dir() else 0o644)
            if output.is_dir():
                output.rmdir()
            unfinished.rename(output)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(f'cannot write "{output}": {why}', hint="free some space") from error
