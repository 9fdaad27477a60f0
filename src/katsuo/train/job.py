"""One training from its beginning to a folder that engines load: taken up where it was stopped, never mixed up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import set_seed

from katsuo.errors import ModelError, StoreError, UsageError
from katsuo.models.locate import MANIFEST, locate
from katsuo.resume import refuse_occupied, refuse_other
from katsuo.settings import flat
from katsuo.train import processes
from katsuo.train.encode import Encoded, Ledger
from katsuo.train.fit import CHECKPOINTS, Fitted, fit, last_checkpoint
from katsuo.train.norm import quicken_norms
from katsuo.train.pack import ATTENTION
from katsuo.train.recipes import LAPTOP, TrainRecipe
from katsuo.train.trained import Job, Trained
from katsuo.train.watch import OnProgress
from katsuo.train.weights import lora
from katsuo.train.weights.card import write_card

IDENTITY = "training.json"
_MAY_CHANGE = {
    *("micro_batch_size", "micro_tokens", "gradient_checkpointing", "packing"),
    *("checkpoint_minutes", "checkpoint_every", "log_every", "report_to", "device"),
}
"""Settings that change how fast a training goes, but not what comes out."""


def open_output(output: Path, identity: Mapping[str, Any]) -> Trained | None:
    """
    Make the output folder or take up the one that is there; give what came out if the training is finished.

    Raise `RunChangedError` when the folder holds a training with other settings or other data.
    """
    held = output / IDENTITY
    if not processes.is_first():
        return _finished(output)
    if held.is_file():
        try:
            before = json.loads(held.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f'cannot read "{held}": {error}', hint="give another folder with -o") from error
        # What a setting was before there was such a setting, it was by default.
        usual = {key: value for key, value in flat(LAPTOP.model_dump(mode="json")).items() if key in identity}
        now = json.loads(json.dumps(identity))
        refuse_other(output, "training", {**usual, **before}, now, ignoring=_MAY_CHANGE)
        return _finished(output)
    refuse_occupied(output, "training")
    try:
        output.mkdir(parents=True, exist_ok=True)
        held.write_text(json.dumps(identity, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise StoreError(f'cannot write "{held}": {error.strerror}', hint="check the space and the rights") from error
    return None


def identity_of(command: str, base_name: str, recipe: TrainRecipe, data: Mapping[str, Any], start: Path | None) -> Any:
    """Give all that decides what comes out of a training."""
    told = {"command": command, "model": base_name, "from": str(start) if start else None}
    return {**told, **{f"data: {key}": value for key, value in data.items()}, **flat(recipe.model_dump(mode="json"))}


def run_job(
    job: Job, train: Sequence[Encoded], held_out: Sequence[Encoded], ledger: Ledger, on_progress: OnProgress
) -> Trained:
    """Train, save, prove and describe; raise `TrainError` when the result is not usable."""
    if not train:
        raise UsageError("no example is left to train on", hint="raise data.max_tokens, or give more examples")
    set_seed(job.recipe.seed)
    model = _prepared(job)
    best = _Kept(model, job.output / CHECKPOINTS, is_adapter=job.recipe.method == "lora")
    fitted = fit(model, train, held_out, job.recipe, job.output, best=best, on_progress=on_progress)
    probe = torch.from_numpy(train[0].tokens.astype("int64"))[None].to(model.device)
    if job.recipe.method == "lora":
        lora.save_adapter(model, job.output, base_name=job.base.public_name)
        processes.wait()
        change = lora.prove_adapter(model, job.output, probe)
    else:
        change = _save_full(job, model, probe)
    weights = sum(path.stat().st_size for path in job.output.glob("*.safetensors"))
    trained = Trained(job.output, fitted, change, len(train), dict(ledger.rejected), weights)
    if processes.is_first():
        write_card(job, trained)
        _write_manifest(job, trained)
        shutil.rmtree(job.output / CHECKPOINTS, ignore_errors=True)
    processes.wait()
    return trained


def _prepared(job: Job) -> Any:
    model = job.base.model
    if job.recipe.method == "full":
        return model
    if job.recipe.quantization != "none":
        import peft

        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=job.recipe.gradient_checkpointing)
    model = lora.open_adapter(model, job.start) if job.start else lora.add_adapter(model, job.recipe.adapter)
    lora.quicken(model)
    quicken_norms(model)
    if job.recipe.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def _save_full(job: Job, model: Any, probe: torch.Tensor) -> float:
    from transformers import AutoModelForCausalLM

    dtype = {"auto": torch.bfloat16}.get(job.recipe.dtype) or getattr(torch, job.recipe.dtype)
    state = {name: weight.to(dtype) for name, weight in _state(model).items()}
    processes.load_whole(model, {name: weight.float() for name, weight in state.items()})
    if processes.is_first():
        model.config.dtype = dtype
        model.save_pretrained(job.output, state_dict=state)
        job.base.tokenizer.save_pretrained(job.output)
    processes.wait()
    with torch.no_grad():
        trained = model.eval()(input_ids=probe).logits.float()
        loads: Any = AutoModelForCausalLM.from_pretrained
        told = {"dtype": torch.float32, "attn_implementation": ATTENTION}
        loaded = loads(job.output, **told).to(probe.device).eval()(input_ids=probe).logits.float()
        base = loads(job.base.folder, **told).to(probe.device).eval()(input_ids=probe).logits.float()
    return lora.compare_logits(base=base, trained=trained, loaded=loaded, folder=job.output)


class _Kept:
    """The best weights so far, beside the checkpoints."""

    def __init__(self, model: Any, place: Path, *, is_adapter: bool) -> None:
        self._model, self._is_adapter = model, is_adapter
        self._weights, self._told = place / "best.safetensors", place / "best.json"

    def keep(self, step: int, loss: float) -> None:
        """Write the weights, then what they are."""
        state = lora.adapter_weights(self._model) if self._is_adapter else _state(self._model)
        if not processes.is_first():
            return
        self._weights.parent.mkdir(parents=True, exist_ok=True)
        partial = self._weights.with_suffix(".partial")
        save_file(state, partial)
        partial.replace(self._weights)
        self._told.write_text(json.dumps({"step": step, "loss": loss}), encoding="utf-8")

    def read(self) -> tuple[int, float] | None:
        """Give the step and the loss of what is kept."""
        if not self._told.is_file():
            return None
        told = json.loads(self._told.read_text(encoding="utf-8"))
        return int(told["step"]), float(told["loss"])

    def restore(self) -> int | None:
        """Put the kept weights back."""
        processes.wait()
        kept = self.read()
        if kept is None:
            return None
        weights = load_file(self._weights)
        if self._is_adapter:
            lora.set_adapter_weights(self._model, weights)
        else:
            processes.load_whole(self._model, weights)
        return kept[0]


def _state(model: Any) -> dict[str, torch.Tensor]:
    """Copy all weights, each tied one once."""
    seen: set[int] = set()
    state = {}
    for name, weight in model.state_dict().items():
        place = processes.part_of(weight).data_ptr()
        if place not in seen:
            seen.add(place)
            state[name] = processes.whole(weight)
    return state


def _write_manifest(job: Job, trained: Trained) -> None:
    """Write the manifest last: it says that the training is finished."""
    manifest = {
        "format": "katsuo-training-1",
        "command": job.command,
        **({"codec": job.codec} if job.codec else {}),
        "base_model": job.base.public_name,
        "base_revision": job.base.revision,
        "method": job.recipe.method,
        "data": dict(job.data),
        "examples": trained.examples,
        "rejected": dict(trained.rejected),
        "fitted": asdict(trained.fitted),
        "logits_change": trained.change,
        "weights_bytes": trained.bytes,
        "recipe": job.recipe.model_dump(mode="json"),
    }
    partial = job.output / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(job.output / MANIFEST)


def _finished(output: Path) -> Trained | None:
    path = output / MANIFEST
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    fitted = Fitted(**{**told["fitted"], "warnings": tuple(told["fitted"]["warnings"])})
    return Trained(output, fitted, told["logits_change"], told["examples"], told["rejected"], told["weights_bytes"])


def locate_adapter(name: str) -> Path:
    """Give the folder of an adapter to go on from; raise `ModelError` when it holds none."""
    folder = locate(name)
    if not (folder / lora.WEIGHTS).is_file():
        raise ModelError(f'"{folder}" holds no {lora.WEIGHTS}', hint="give --from the folder of a LoRA adapter")
    return folder


__all__ = ["Job", "Trained", "identity_of", "last_checkpoint", "locate_adapter", "open_output", "run_job"]
