"""Fit a model to encoded examples with the trainer of transformers: checkpoints, resume, early stop, metrics."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from typing_extensions import override

from katsuo.errors import StoreError, TrainError, UsageError
from katsuo.train import processes
from katsuo.train.encode import Encoded
from katsuo.train.pack import Batch, collate, cut, split
from katsuo.train.recipes import TrainRecipe
from katsuo.train.watch import Best, OnProgress, Watch

CHECKPOINTS = "checkpoints"
WHOLE = "complete"
"""The file that is written into a checkpoint last."""
_OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw": "paged_adamw_32bit", "adamw_8bit": "adamw_bnb_8bit"}
_KEPT_CHECKPOINTS = 2
_LARGEST_DIFFERENCE = 0.05
"""Of the logits' own size; sixteen-bit arithmetic in another order stays well below."""
_FULL = ("No space left", "PytorchStreamWriter failed", "enforce fail at inline_container")
"""What torch and safetensors say of a full disk."""


@dataclass(frozen=True)
class Fitted:
    """How a training went: the last and the best step, losses, and what was warned of."""

    steps: int
    best_step: int
    loss: float | None
    held_out_loss: float | None
    first_held_out_loss: float | None
    tokens: int
    seconds: float
    stopped_early: bool
    warnings: tuple[str, ...] = ()


class Examples(Dataset[Encoded]):
    """Encoded examples, as the trainer's loader takes them."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Encoded:
        return self._examples[index]


class AnswerTrainer(Trainer):
    """The trainer of transformers, with logits where something is to be learned and nowhere else."""

    def __init__(self, *, held_out: Sequence[Encoded], is_packed: bool, recipe: TrainRecipe, **told: Any) -> None:
        # A loss function of its own makes the trainer count the learned tokens of a whole update.
        super().__init__(**told, compute_loss_func=_never_called)
        self._held_out = held_out
        self._is_packed = is_packed
        self._per_pass = recipe.micro_batch_size
        # Several processes have to pass equally often, or they wait for each other for ever.
        self._most_tokens = recipe.micro_tokens if processes.count() == 1 else None
        self.loss_is_scaled_for_ga = True

    def training_step(
        self, model: Any, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Pass a batch in parts that the memory holds; their gradients add up to those of the whole."""
        if self._most_tokens is None or num_items_in_batch is None:
            return super().training_step(model, inputs, num_items_in_batch)
        step = super().training_step
        return torch.stack([step(model, part, num_items_in_batch) for part in cut(inputs, self._most_tokens)]).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Give the summed loss of a batch over the learned tokens of the whole update."""
        total = summed_loss(model, inputs, is_packed=self._is_packed)
        if not torch.isfinite(total):
            raise TrainError(
                f"the loss of step {self.state.global_step + 1} is not a number",
                hint="lower learning_rate; the last checkpoint is kept, and the same command goes on from it",
            )
        count = inputs["labels"].numel() if num_items_in_batch is None else num_items_in_batch
        loss = total / count * (self.accelerator.num_processes if num_items_in_batch is not None else 1)
        return (loss, None) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Give the held-out loss, a mean over all held-out tokens."""
        loss = held_out_loss(self.model, self._held_out, is_packed=self._is_packed, per_pass=self._per_pass)
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _never_called(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("compute_loss is overridden")


def summed_loss(model: Any, batch: Batch, *, is_packed: bool) -> torch.Tensor:
    """Sum the loss over the learned tokens of a batch."""
    if is_packed:
        return _row_loss(model, batch)
    return torch.stack([_row_loss(model, part) for part in split(batch)]).sum()


def _row_loss(model: Any, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(_row_logits(model, batch), batch["labels"], reduction="sum")


def _row_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Give the logits in float32 at the positions that are learned from; shape (positions, vocabulary)."""
    told = {name: tensor for name, tensor in batch.items() if name not in ("labels", "shift_labels")}
    logits = model(**told, use_cache=False).logits[0]
    if len(logits) != len(batch["logits_to_keep"]):
        # A model that does not know `logits_to_keep` gives them all.
        logits = logits[batch["logits_to_keep"]]
    kept: torch.Tensor = logits.float()
    return kept


@torch.no_grad()
def held_out_loss(model: Any, examples: Sequence[Encoded], *, is_packed: bool, per_pass: int) -> float:
    """Give the mean loss over all learned tokens of `examples`."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(examples), per_pass):
        batch = collate(examples[start : start + per_pass])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        total += float(summed_loss(model, batch, is_packed=is_packed))
        count += batch["labels"].numel()
    model.train(was_training)
    return total / max(1, count)


@torch.no_grad()
def can_pack(model: Any, vocabulary: int) -> bool:
    """Say whether an example in a row after another has the logits that it has alone, which not every model gives."""
    ids = (torch.arange(5, 35) * 7 % vocabulary).numpy().astype("int32")
    batch = {name: tensor.to(model.device) for name, tensor in collate([Encoded(ids[:14], 13), _second(ids)]).items()}
    was_training = model.training
    model.eval()
    try:
        packed = _row_logits(model, batch)
        alone = torch.cat([_row_logits(model, part) for part in split(batch)])
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        # Whatever this model needs instead, it does not take several examples in a row.
        return False
    finally:
        model.train(was_training)
    return bool((packed - alone).norm() <= _LARGEST_DIFFERENCE * alone.norm())


def _second(ids: Any) -> Encoded:
    """Give an example that is learned from its second token on, the one that would see most of the row before."""
    return Encoded(ids[14:], 1)


def steps_of(recipe: TrainRecipe, examples: int) -> int:
    """Give the number of updates: `max_steps` or `epochs`, whichever ends first."""
    by_epochs = max(1, round(recipe.epochs * examples / recipe.batch_size))
    return min(by_epochs, recipe.max_steps or by_epochs)


def fit(
    model: Any,
    train: Sequence[Encoded],
    held_out: Sequence[Encoded],
    recipe: TrainRecipe,
    output: Path,
    *,
    best: Best,
    on_progress: OnProgress,
) -> Fitted:
    """
    Train `model` in place and leave it with its best weights; begun again on the same `output`, go on.

    Raise `TrainError` for a loss that is no number or too little memory and `StoreError` for a full disk; the last
    whole checkpoint stays.
    """
    is_packed = recipe.packing and can_pack(model, int(model.get_input_embeddings().weight.shape[0]))
    steps = steps_of(recipe, len(train))
    place = output / CHECKPOINTS
    last = last_checkpoint(place)
    watch = Watch(recipe, output, steps=steps, best=best, on_progress=on_progress, train=train)
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(recipe, place, steps),
        train_dataset=Examples(train),
        data_collator=collate,
        held_out=held_out,
        is_packed=is_packed,
        recipe=recipe,
        callbacks=[watch, WholeCheckpoints()],
    )
    trainer.remove_callback(PrinterCallback)
    with _translated(recipe, place):
        watch.begin(trainer, resumed=last is not None, has_held_out=bool(held_out))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        watch.end(trainer, has_held_out=bool(held_out))
    if recipe.packing and not is_packed:
        watch.warn(steps, "this model cannot take several examples in a row; each was passed alone")
    return Fitted(**watch.result())


def _arguments(recipe: TrainRecipe, place: Path, steps: int) -> TrainingArguments:
    on_processor = recipe.device == "cpu" or (recipe.device == "auto" and not torch.accelerator.is_available())
    count = processes.count()
    if recipe.batch_size % count:
        raise UsageError(
            f"batch_size {recipe.batch_size} cannot be shared by {count} processes", hint=f"set a multiple of {count}"
        )
    per_process = recipe.batch_size // count
    micro = min(recipe.micro_batch_size, per_process)
    return TrainingArguments(
        output_dir=str(place),
        max_steps=steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=per_process // micro,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(recipe.schedule, recipe.schedule),
        warmup_steps=recipe.warmup_steps,
        optim=_OPTIMIZERS[recipe.optimizer],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        activation_checkpointing=recipe.gradient_checkpointing or None,
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=_KEPT_CHECKPOINTS,
        report_to=list(recipe.report_to) or "none",
        remove_unused_columns=False,
        use_cpu=on_processor,
        # Whole weights are kept in float32 and computed with in sixteen bits; an adapter does so by itself.
        bf16=recipe.method == "full" and recipe.dtype == "bfloat16",
        fp16=recipe.method == "full" and recipe.dtype == "float16",
        seed=recipe.seed,
        disable_tqdm=True,
        dataloader_pin_memory=not on_processor,
        ddp_find_unused_parameters=False,
    )


class WholeCheckpoints(TrainerCallback):
    """Mark a checkpoint as whole once all of it is written."""

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the mark."""
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE).write_text("")


def last_checkpoint(place: Path) -> Path | None:
    """Give the last whole checkpoint and remove those that were cut short."""
    whole = []
    for folder in place.glob("checkpoint-*"):
        if (folder / WHOLE).exists():
            whole.append(folder)
        elif processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


@contextmanager
def _translated(recipe: TrainRecipe, place: Path) -> Iterator[None]:
    """Say what to do about a full disk and too little memory, and clear away the half-written checkpoint."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        is_full = getattr(error, "errno", None) == errno.ENOSPC or any(word in str(error) for word in _FULL)
        if is_full or isinstance(error, OSError | SafetensorError):
            last_checkpoint(place)
            what = "no space left on the disk" if is_full else f"cannot write: {error}"
            raise StoreError(
                f'{what} for a checkpoint in "{place}"',
                hint="free some space and give the same command again: the last whole checkpoint is kept",
            ) from error
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error).lower():
            raise TrainError(f"there is not enough memory: {error}", hint=_smaller(recipe)) from error
        raise


def _smaller(recipe: TrainRecipe) -> str:
    if recipe.micro_batch_size > 1:
        return f"lower micro_batch_size (now {recipe.micro_batch_size})"
    if not recipe.gradient_checkpointing:
        return "set gradient_checkpointing to true"
    return f"lower data.max_tokens (now {recipe.data.max_tokens}) or adapter.rank (now {recipe.adapter.rank})"
