"""One training from its beginning to a folder that engines load: taken up where it was stopped, never mixed up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from katsuo.engines.hf.load import choose_device
from katsuo.errors import UsageError
from katsuo.models.locate import MANIFEST
from katsuo.train import processes
from katsuo.train.encode import Encoded, Ledger
from katsuo.train.fit import Fitted, fit
from katsuo.train.quick.adapted import quicken_adapted
from katsuo.train.quick.norm import quicken_norms
from katsuo.train.recipes import TrainRecipe
from katsuo.train.trained import Job, Trained
from katsuo.train.upkeep.best import Kept, state_of
from katsuo.train.upkeep.checkpoints import CHECKPOINTS
from katsuo.train.upkeep.folder import identity_of, open_output
from katsuo.train.upkeep.trouble import translated
from katsuo.train.watch import OnProgress
from katsuo.train.weights import lora
from katsuo.train.weights.card import write_card
from katsuo.train.weights.start import history_of


def open_job(
    command: str, model: str, output: Path, recipe: TrainRecipe, data: Mapping[str, Any], *, start: Path | None
) -> Trained | None:
    """Make or take up the output folder; give what came out where the training in it is finished."""
    is_finished = open_output(output, identity_of(command, model, recipe, data, start))
    return _finished(output) if is_finished else None


def run_job(
    job: Job, train: Sequence[Encoded], held_out: Sequence[Encoded], ledger: Ledger, on_progress: OnProgress
) -> Trained:
    """Train, save, prove and describe; raise `TrainError` when the result is not usable."""
    if not train:
        raise UsageError("no example is left to train on", hint="raise data.max_tokens, or give more examples")
    set_seed(job.recipe.seed)
    model = _prepared(job)
    best = Kept(model, job.output, is_adapter=job.recipe.method == "lora")
    fitted = fit(model, train, held_out, job.recipe, job.output, best=best, on_progress=on_progress)
    with translated(job.recipe, job.output):
        probe = torch.from_numpy(train[0].tokens.astype("int64"))[None].to(model.device)
        change = _save_adapter(job, model, probe) if job.recipe.method == "lora" else _save_full(job, model, probe)
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
    model = lora.open_adapter(model, job.start) if job.start else lora.add_adapter(model, job.recipe.adapter)
    quicken_adapted(model, device=choose_device(job.recipe.device))
    quicken_norms(model)
    if job.recipe.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def _save_adapter(job: Job, model: Any, probe: torch.Tensor) -> float:
    lora.save_adapter(model, job.output, base_name=job.base.public_name)
    processes.wait()
    return lora.prove_adapter(model, job.output, probe, start=job.start)


def _save_full(job: Job, model: Any, probe: torch.Tensor) -> float:
    dtype = {"auto": torch.bfloat16}.get(job.recipe.dtype) or getattr(torch, job.recipe.dtype)
    state = {name: weight.to(dtype) for name, weight in state_of(model).items()}
    change = 0.0
    if processes.is_first():
        model.config.dtype = dtype
        model.save_pretrained(job.output, state_dict=state)
        job.base.tokenizer.save_pretrained(job.output)
        change = _prove_full(job, state, probe.cpu())
    processes.wait()
    return change


@torch.no_grad()
def _prove_full(job: Job, state: Mapping[str, torch.Tensor], probe: torch.Tensor) -> float:
    """
    Compare logits of the base, of the base with the weights in `state` and of the saved model, in float32.

    On the processor and beside the trained model: that one computes as the trainer has wrapped it, in fewer bits or
    spread over several devices, one of which need not hold a whole model.
    """
    from transformers import AutoModelForCausalLM

    loads: Any = AutoModelForCausalLM.from_pretrained
    told = {"dtype": torch.float32, "attn_implementation": job.base.model.config._attn_implementation}
    model = loads(job.base.folder, **told).eval()
    base = model(input_ids=probe).logits
    model.load_state_dict(state, strict=False)
    trained = model(input_ids=probe).logits
    loaded = loads(job.output, **told).eval()(input_ids=probe).logits
    return lora.compare_logits(base=base, trained=trained, loaded=loaded, folder=job.output)


def _write_manifest(job: Job, trained: Trained) -> None:
    """Write the manifest last: it says that the training is finished."""
    manifest = {
        "format": "katsuo-training-1",
        "command": job.command,
        **({"codec": job.codec} if job.codec else {}),
        "base_model": job.base.public_name,
        "base_revision": job.base.revision,
        **({"from": history_of(job.start)} if job.start else {}),
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


def _finished(output: Path) -> Trained:
    told = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    fitted = Fitted(**{**told["fitted"], "warnings": tuple(told["fitted"]["warnings"])})
    return Trained(output, fitted, told["logits_change"], told["examples"], told["rejected"], told["weights_bytes"])
