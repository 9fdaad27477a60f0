"""Fit a model to encoded examples with the trainer of transformers: checkpoints, resume, early stop, metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from katsuo.engines.hf.load import choose_device
from katsuo.errors import TrainError, UsageError
from katsuo.train import processes
from katsuo.train.encode import Encoded
from katsuo.train.loss import held_out_loss, summed_loss
from katsuo.train.pack import Batch, collate, cut
from katsuo.train.quick.rotary import quicker_rotary
from katsuo.train.quick.top import quicker_top
from katsuo.train.recipes import TrainRecipe
from katsuo.train.upkeep.best import Best
from katsuo.train.upkeep.checkpoints import CHECKPOINTS, last_checkpoint
from katsuo.train.upkeep.folder import TENSORBOARD
from katsuo.train.upkeep.trial import AS_WRITTEN, can_pack, take_attention
from katsuo.train.upkeep.trouble import in_place_of, translated
from katsuo.train.watch import OnProgress, Watch, has_loss_scaler

_OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw": "paged_adamw_32bit", "adamw_8bit": "adamw_bnb_8bit"}
_KEPT_CHECKPOINTS = 2


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

    def __init__(self, *, held_out: Sequence[Encoded], recipe: TrainRecipe, output: Path, **told: Any) -> None:
        # A loss function of its own makes the trainer count the learned tokens of a whole update.
        super().__init__(**told, compute_loss_func=_never_called)
        self._held_out, self._output = held_out, output
        model, device = told["model"], self.args.device
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        # Decided by the first process: the others may not hold the weights yet, and all have to pass alike.
        self.is_quick = processes.as_the_first(take_attention(model, vocabulary), device)
        if not self.is_quick:
            model.set_attn_implementation(AS_WRITTEN)
        self.is_packed = processes.as_the_first(recipe.packing and can_pack(model, vocabulary), device)
        self._per_pass = recipe.micro_batch_size
        # Several processes have to pass equally often, or they wait for each other for ever.
        self._most_tokens = recipe.micro_tokens if processes.count() == 1 else None
        self.loss_is_scaled_for_ga = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        """Give the batches of an update; none where a resumed training is at its end, which the trainer overlooks."""
        if self.control.should_training_stop:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

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
        total = summed_loss(model, inputs, is_packed=self.is_packed)
        if not torch.isfinite(total):
            raise TrainError(
                f"the loss of step {self.state.global_step + 1} is not a number",
                hint=in_place_of("learning_rate", self._output),
            )
        count = inputs["labels"].numel() if num_items_in_batch is None else num_items_in_batch
        loss = total / count * (self.accelerator.num_processes if num_items_in_batch is not None else 1)
        return (loss, None) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Give the held-out loss, a mean over all held-out tokens."""
        loss = held_out_loss(
            self.model,
            self._held_out,
            is_packed=self.is_packed,
            per_pass=self._per_pass,
            most_tokens=self._most_tokens,
        )
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _never_called(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("compute_loss is overridden")


def steps_of(recipe: TrainRecipe, examples: int) -> int:
    """Give the number of updates: `max_steps` or `epochs`, whichever ends first; the last may be of fewer examples."""
    # To six places, since a share such as 0.7 of the examples is none in binary.
    by_epochs = max(1, math.ceil(round(recipe.epochs * examples / recipe.batch_size, 6)))
    return min(by_epochs, recipe.max_steps or by_epochs)


def passes_of(recipe: TrainRecipe, count: int) -> tuple[int, int]:
    """
    Give the examples of a pass and the passes of an update, for each of `count` processes.

    A pass has the most examples that `micro_batch_size` allows and that divide what a process takes of `batch_size`.
    """
    per_process = recipe.batch_size // count
    most = min(recipe.micro_batch_size, per_process)
    size = next(size for size in range(most, 0, -1) if per_process % size == 0)
    return size, per_process // size


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

    Raise `TrainError` for a loss that is no number or too little memory, `StoreError` for a full disk and `UsageError`
    for settings that this machine cannot train with; the last whole checkpoint stays.
    """
    steps = steps_of(recipe, len(train))
    last = last_checkpoint(output)
    watch = Watch(recipe, output, steps=steps, best=best, on_progress=on_progress, train=train)
    with translated(recipe, output), quicker_rotary(model), quicker_top(model):
        trainer = _trainer(
            recipe,
            steps,
            model=model,
            output=output,
            train_dataset=Examples(train),
            held_out=held_out,
            callbacks=[watch],
        )
        watch.begin(trainer, last=last, has_held_out=bool(held_out))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        watch.end(trainer, has_held_out=bool(held_out))
    if recipe.packing and not trainer.is_packed:
        watch.warn(steps, "this model cannot take several examples in a row; each was passed alone")
    if not trainer.is_quick:
        watch.warn(steps, "this model's attention has parts of its own; it was computed as transformers writes it out")
    return Fitted(**watch.result())


def _trainer(recipe: TrainRecipe, steps: int, *, output: Path, **told: Any) -> AnswerTrainer:
    try:
        arguments = _arguments(recipe, output / CHECKPOINTS, steps)
        trainer = AnswerTrainer(args=arguments, data_collator=collate, recipe=recipe, output=output, **told)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"the trainer does not take these settings here: {error}", hint="docs/training.md lists every setting"
        ) from error
    trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        # Its own place is among the checkpoints, which are removed at the end.
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(output / TENSORBOARD)
    return trainer


def _arguments(recipe: TrainRecipe, place: Path, steps: int) -> TrainingArguments:
    on_processor = recipe.device == "cpu" or (recipe.device == "auto" and not torch.accelerator.is_available())
    count = processes.count()
    if recipe.batch_size % count:
        raise UsageError(
            f"batch_size {recipe.batch_size} cannot be shared by {count} processes", hint=f"set a multiple of {count}"
        )
    size, passes = passes_of(recipe, count)
    arguments = TrainingArguments(
        output_dir=str(place),
        max_steps=steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=passes,
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
        fp16=has_loss_scaler(recipe),
        seed=recipe.seed,
        disable_tqdm=True,
        dataloader_pin_memory=not on_processor,
        ddp_find_unused_parameters=False,
    )
    return _on_one_device(arguments, recipe)


def _on_one_device(arguments: TrainingArguments, recipe: TrainRecipe) -> TrainingArguments:
    """
    Keep one process on one GPU, the one that the recipe names.

    The trainer would copy the model to every GPU it sees and scatter each batch over them; a packed row cannot be cut.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    device = choose_device(recipe.device)
    if processes.count() == 1 and device.type == arguments.device.type and device.index is not None:
        arguments.__dict__["_setup_devices"] = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
    return arguments
