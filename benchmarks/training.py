"""Training on the same pairs three ways: the published recipe's, trl's SFTTrainer with its defaults, katsuo's.

    pip install 'katsuo[bench]'
    katsuo ctga build --data DATA -o PAIRS
    python benchmarks/training.py PAIRS --examples 512

Each way trains an adapter of rank 16 with batches of 16, in a process of its own. Tokens are those of the examples,
padding not counted; seconds are those of the training loop; the peak of resident memory is the whole process's. Does
not measure: loading, the quality of what the generator writes, and any device but this one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

MODEL = "smollm2-135m-instruct"
BATCH, RATE = 16, 1e-3
HELD_OUT = 48
WAYS = ("published", "trl", "katsuo")


def main() -> None:
    """Measure every way in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--peak", type=float, help="TFLOP/s of this device in bfloat16: prints the share that is used")
    parser.add_argument("--way", choices=WAYS)
    told = parser.parse_args()
    if told.way:
        measure(told)
        return
    results = []
    for way in told.ways.split(","):
        command = [sys.executable, __file__, str(told.pairs), "--way", way, "--model", told.model]
        command += ["--examples", str(told.examples), "--threads", str(told.threads)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(f"{way} failed:\n{finished.stderr[-3000:]}")
        results.append(json.loads(finished.stdout.splitlines()[-1]))
        print(f"{way}: {results[-1]['tokens_per_s']:.0f} tokens/s", file=sys.stderr, flush=True)
    report(results, told)


def report(results: list[dict[str, Any]], told: argparse.Namespace) -> None:
    """Print the table."""
    print(f"{told.examples} pairs, {told.model}, {told.threads} threads, torch {torch.__version__}\n")
    ours = next((row["tokens_per_s"] for row in results if row["way"] == "katsuo"), None)
    print("| way | tokens/s | katsuo is faster by | minutes | resident, GB | GPU, GB | held-out loss before | after |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in results:
        faster = f"{ours / row['tokens_per_s']:.2f}" if ours else ""
        cells = [row["way"], f"{row['tokens_per_s']:.0f}", faster, f"{row['seconds'] / 60:.1f}"]
        cells += [f"{row['gigabytes']:.1f}", f"{row['gpu_gigabytes']:.1f}"]
        cells += [f"{row['before']:.3f}", f"{row['after']:.3f}"]
        print(f"| {' | '.join(cells)} |")
    if told.peak:
        shares = (f"{row['way']} {row['flops'] / 1e12 / told.peak:.1%}" for row in results)
        print(f"\nShare of {told.peak:g} TFLOP/s: {'; '.join(shares)}")
    print("\nTraining loss, by quarters of the run: ", end="")
    print("; ".join(f"{row['way']} {' '.join(f'{loss:.2f}' for loss in row['quarters'])}" for row in results))


def measure(told: argparse.Namespace) -> None:
    """Train one way and print what was measured."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(told.threads)
    from katsuo.train.data import draw, hold_out
    from katsuo.train.encode import Encoder, limits_of
    from katsuo.train.load import load_base
    from katsuo.train.loss import held_out_loss
    from katsuo.train.pack import ATTENTION
    from katsuo.train.read import PairFolder
    from katsuo.train.recipes import LAPTOP

    recipe = LAPTOP.override({"data.balance": "types", "data.held_out": HELD_OUT, "batch_size": BATCH, "epochs": 1.0})
    base = load_base(told.model, recipe)
    folder = PairFolder(told.pairs)
    held_out, rest = hold_out(sorted(folder.places(0), key=lambda place: place.order), recipe.data)
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    watched = [example for example in encoder.encode(folder.pairs(held_out)) if example]
    drawn = draw(rest, 2 * told.examples, balance="types", weights={})
    both = zip(folder.pairs(drawn), encoder.encode(folder.pairs(drawn)), strict=True)
    chosen = [(pair, example) for pair, example in both if example][: told.examples]
    base.model.set_attn_implementation(ATTENTION)
    before = held_out_loss(base.model, watched, is_packed=True, per_pass=8)
    with tempfile.TemporaryDirectory() as scratch:
        model, losses, seconds = TRAIN[told.way](base, chosen, recipe, Path(scratch))
    model.get_base_model().set_attn_implementation(ATTENTION)
    after = held_out_loss(model.to(torch.bfloat16), watched, is_packed=True, per_pass=8)
    edges = [len(losses) * quarter // 4 for quarter in range(5)]
    tokens = sum(len(example.tokens) for _, example in chosen)
    # Forward and backward pass, two operations per weight each; the gradient of the weights for the adapter's alone.
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    per_token = 4 * sum(weight.numel() for weight in model.parameters()) + 2 * trained
    is_gpu = torch.cuda.is_available()
    result = {
        "way": told.way,
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        "flops": per_token * tokens / seconds,
        "gpu_gigabytes": torch.cuda.max_memory_allocated() / 1e9 if is_gpu else 0.0,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "before": before,
        "after": after,
        "quarters": [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges) if b > a],
    }
    print(json.dumps(result))


def train_katsuo(base: Any, chosen: list[Any], recipe: Any, scratch: Path) -> tuple[Any, list[float], float]:
    """Train as `katsuo train-generator` does."""
    from katsuo.engines.hf.load import choose_device
    from katsuo.train.fit import fit
    from katsuo.train.quick.adapted import quicken_adapted
    from katsuo.train.quick.norm import quicken_norms
    from katsuo.train.weights import lora

    class Nothing:
        def keep(self, step: int, loss: float) -> None: ...
        def read(self) -> None: ...
        def restore(self) -> None: ...

    model = lora.add_adapter(base.model, recipe.adapter)
    quicken_adapted(model, device=choose_device(recipe.device))
    quicken_norms(model)
    losses: list[float] = []
    recipe = recipe.override({"log_every": 1, "checkpoint_minutes": 1e6, "learning_rate": RATE})

    def note(progress: Any) -> None:
        if progress.loss is not None:
            losses.append(progress.loss)

    fitted = fit(model, [example for _, example in chosen], [], recipe, scratch, best=Nothing(), on_progress=note)
    return model, losses, fitted.seconds


def train_published(base: Any, chosen: list[Any], recipe: Any, scratch: Path) -> tuple[Any, list[float], float]:
    """One example at a time, padded to a multiple of 64, activations computed again, logits for every position."""
    from transformers import Trainer, TrainingArguments

    from katsuo.train.weights import lora

    base.model.set_attn_implementation("sdpa")
    model = lora.add_adapter(base.model, recipe.adapter)
    model.enable_input_require_grads()
    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=BATCH,
        activation_checkpointing=True,
        learning_rate=RATE,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    rows = [padded(example) for _, example in chosen]
    return timed(Trainer(model=model, args=arguments, train_dataset=rows), model)


def padded(example: Any) -> dict[str, torch.Tensor]:
    """Give an example as the published recipe passes it: -100 where nothing is learned, zeros to the next 64."""
    length = -(-len(example.tokens) // 64) * 64
    ids, labels, mask = torch.zeros(length).long(), torch.full((length,), -100), torch.zeros(length).long()
    tokens = torch.from_numpy(example.tokens).long()
    ids[: len(tokens)], mask[: len(tokens)] = tokens, 1
    labels[example.prompt_length : len(tokens)] = tokens[example.prompt_length :]
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def train_trl(base: Any, chosen: list[Any], recipe: Any, scratch: Path) -> tuple[Any, list[float], float]:
    """Hand the trainer texts and leave everything but the batch, the rate and the adapter as it comes."""
    import peft
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = recipe.adapter
    adapter = peft.LoraConfig(
        r=settings.rank, lora_alpha=int(settings.alpha), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    arguments = SFTConfig(
        output_dir=str(scratch),
        gradient_accumulation_steps=BATCH // 8,
        learning_rate=RATE,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"prompt": pair.prompt, "completion": pair.completion} for pair, _ in chosen])
    trainer = SFTTrainer(
        model=str(base.folder), args=arguments, train_dataset=rows, processing_class=base.tokenizer, peft_config=adapter
    )
    return timed(trainer, trainer.model)


def timed(trainer: Any, model: Any) -> tuple[Any, list[float], float]:
    """Train, and give the model, the losses and the seconds."""
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    return model, [line["loss"] for line in trainer.state.log_history if "loss" in line], seconds


TRAIN = {"katsuo": train_katsuo, "published": train_published, "trl": train_trl}

if __name__ == "__main__":
    main()
