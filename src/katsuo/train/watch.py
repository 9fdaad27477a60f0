"""What happens between updates: metrics, the held-out loss, early stop, checkpoints by the clock, a warning."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from katsuo.errors import StoreError, TrainError
from katsuo.train import processes
from katsuo.train.encode import Encoded
from katsuo.train.recipes import TrainRecipe
from katsuo.train.upkeep.best import Best
from katsuo.train.upkeep.checkpoints import mark_whole, seconds_until
from katsuo.train.upkeep.trouble import in_place_of

METRICS = "metrics.jsonl"
_PART_WAYS = 1.03
"""The held-out loss this far above its best, while the training loss falls, is overfitting."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come; `warning` is a sentence when something is to be said."""

    step: int
    steps: int
    loss: float | None = None
    held_out_loss: float | None = None
    tokens_per_s: float | None = None
    learning_rate: float | None = None
    warning: str = ""


OnProgress = Callable[[Progress], None]


class Watch(TrainerCallback):
    """See every update; told to the terminal through `on_progress`, to `metrics.jsonl` line by line."""

    def __init__(
        self,
        recipe: TrainRecipe,
        output: Path,
        *,
        steps: int,
        best: Best,
        on_progress: OnProgress,
        train: Sequence[Encoded],
    ) -> None:
        self._recipe, self._steps, self._best = recipe, steps, best
        self._output, self._path = output, output / METRICS
        self._on_progress = on_progress
        self._examples = len(train)
        self._mean_tokens = sum(len(example.tokens) for example in train) / max(1, len(train))
        self._lines: list[dict[str, Any]] = []
        self._losses: deque[float] = deque(maxlen=10)
        self._readings: list[tuple[int, float, float]] = []
        self._warnings: list[str] = []
        self._evaluate: Callable[[], float] | None = None
        self._started = self._last_save = self._last_log = time.monotonic()
        self._last_log_step = 0
        self._seconds_before = 0.0
        self._stopped_early = self._is_overfitting = False
        self._step = 0

    def begin(self, trainer: Any, *, last: Path | None, has_held_out: bool) -> None:
        """Take what reads the held-out loss, and the lines of a training interrupted after the checkpoint `last`."""
        if has_held_out:
            self._evaluate = lambda: float(trainer.evaluate()["eval_loss"])
        if last:
            self._lines, self._seconds_before = _read_lines(self._path), seconds_until(last)

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what an interrupted training noted after its last checkpoint; else take a first reading."""
        self._step = self._last_log_step = state.global_step
        self._lines = [line for line in self._lines if line["step"] <= state.global_step]
        self._take_up_kept(state.global_step)
        if processes.is_first():
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")
            partial.replace(self._path)
        self._losses.extend(line["loss"] for line in self._lines if "loss" in line)
        for line in self._lines:
            if "held_out_loss" in line:
                self._readings.append((line["step"], line["held_out_loss"], line.get("train_loss", math.inf)))
                self._warn_of_overfitting(*self._readings[-1])
        self._stopped_early = self._is_patience_used_up()
        # Here and not before: only now the model lies where, and computes as, all later readings find it.
        if self._evaluate and not state.global_step:
            self._read_held_out(0, self._evaluate())
        self._started = self._last_save = self._last_log = time.monotonic()

    def _take_up_kept(self, step: int) -> None:
        """Note the reading of the weights that are kept, where its line was lost: no worse one may replace them."""
        kept = self._best.read() if self._evaluate else None
        read = {line["step"] for line in self._lines if "held_out_loss" in line}
        if kept and kept[0] <= step and kept[0] not in read:
            self._lines.append({"step": kept[0], "held_out_loss": round(kept[1], 5)})
            self._lines.sort(key=lambda line: line["step"])

    @override
    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where an interrupted training had come to its end and only its result was not written."""
        if self._stopped_early or state.global_step >= self._steps:
            control.should_training_stop = True

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse to take a step along a gradient that is no number; a loss scaler skips such steps by itself."""
        if has_loss_scaler(self._recipe):
            return
        weights = kwargs["model"].parameters()
        gradients = [processes.part_of(weight.grad) for weight in weights if weight.grad is not None]
        norms = torch._foreach_norm(gradients)
        if not torch.isfinite(torch.stack([norm.to(norms[0].device) for norm in norms])).all():
            raise TrainError(
                f"the gradient of step {state.global_step + 1} is not a number",
                hint=in_place_of("learning_rate", self._output),
            )

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide whether it is time for a reading of the held-out loss and for a checkpoint."""
        self._step = state.global_step
        recipe, is_last = self._recipe, state.global_step >= self._steps
        if self._evaluate and (state.global_step % recipe.evaluate_every == 0 or is_last):
            control.should_log = True
            control.should_evaluate = True
        minutes = (time.monotonic() - self._last_save) / 60
        by_count = recipe.checkpoint_every is not None and state.global_step % recipe.checkpoint_every == 0
        is_time = minutes >= recipe.checkpoint_minutes
        if by_count or processes.as_the_first(is_time, args.device):
            self._last_save = time.monotonic()
            control.should_save = True

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark a checkpoint as whole once all of it is written."""
        if state.is_world_process_zero:
            mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", seconds=self._seconds())

    @override
    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write a line of metrics."""
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        now, step = time.monotonic(), state.global_step
        rate = (self._tokens(step) - self._tokens(self._last_log_step)) / max(1e-6, now - self._last_log)
        self._last_log, self._last_log_step = now, step
        self._losses.append(logs["loss"])
        line = {
            "step": step,
            "loss": round(logs["loss"], 5),
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_s": round(rate, 1),
        }
        self._write(line)
        self._tell(step, loss=logs["loss"], tokens_per_s=rate, learning_rate=logs.get("learning_rate"))

    @override
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the best weights, stop early, and warn of overfitting."""
        step = state.global_step
        if step == 0 or any(step == reading[0] for reading in self._readings):
            return
        self._read_held_out(step, kwargs["metrics"]["eval_loss"])
        self._last_log = time.monotonic()
        self._stopped_early = self._is_patience_used_up()
        if self._stopped_early:
            control.should_training_stop = True

    def _is_patience_used_up(self) -> bool:
        read = self._trained_readings()
        if not read or not self._recipe.patience:
            return False
        best_step = min(read, key=lambda reading: reading[1])[0]
        return sum(reading[0] > best_step for reading in read) >= self._recipe.patience

    def _trained_readings(self) -> list[tuple[int, float, float]]:
        """Give the readings after an update: the weights before training are the base's, and are not kept."""
        return [reading for reading in self._readings if reading[0] > 0]

    def _read_held_out(self, step: int, loss: float) -> None:
        train_loss = sum(self._losses) / len(self._losses) if self._losses else math.inf
        is_best = all(loss < reading[1] for reading in self._trained_readings())
        self._readings.append((step, loss, train_loss))
        line = {"step": step, "held_out_loss": round(loss, 5)}
        if math.isfinite(train_loss):
            line["train_loss"] = round(train_loss, 5)
        if is_best and step:
            self._best.keep(step, loss)
        self._write(line)
        self._tell(step, held_out_loss=loss)
        self._warn_of_overfitting(step, loss, train_loss)

    def _warn_of_overfitting(self, step: int, loss: float, train_loss: float) -> None:
        # The first reading comes before any training loss: a rise over it alone is no overfitting.
        read = [reading for reading in self._readings if math.isfinite(reading[2])]
        best_step, best_loss, best_train = min(read, default=(step, loss, train_loss), key=lambda reading: reading[1])
        parts = best_step < step and loss > best_loss * _PART_WAYS and train_loss < best_train
        if parts and not self._is_overfitting:
            self._is_overfitting = True
            self.warn(
                step,
                f"training and held-out loss part ways: held out {loss:.3f} at step {step}, {best_loss:.3f} at step "
                f"{best_step}, while the training loss fell from {best_train:.3f} to {train_loss:.3f} (overfitting)",
            )

    def warn(self, step: int, text: str) -> None:
        """Say something once, and keep it for the manifest."""
        self._warnings.append(text)
        self._tell(step, warning=text)

    def end(self, trainer: Any, *, has_held_out: bool) -> None:
        """Put the best weights back, and warn where they are worse than none."""
        del trainer
        self._best_step = (self._best.restore() if has_held_out else None) or self._step
        held_out = {step: loss for step, loss, _ in self._readings}
        before, after = held_out.get(0), held_out.get(self._best_step)
        if before is not None and after is not None and after >= before:
            self.warn(
                self._best_step,
                f"the trained model is worse than the model before training: held-out loss {before:.3f} before, "
                f"{after:.3f} after update {self._best_step}, the best one",
            )

    def result(self) -> dict[str, Any]:
        """Give the fields of `Fitted`."""
        losses = [line["loss"] for line in self._lines if "loss" in line]
        held_out = {step: loss for step, loss, _ in self._readings}
        return {
            "steps": self._step,
            "best_step": self._best_step,
            "loss": losses[-1] if losses else None,
            "held_out_loss": held_out.get(self._best_step),
            "first_held_out_loss": held_out.get(0),
            "tokens": round(self._tokens(self._step)),
            "seconds": round(self._seconds(), 1),
            "stopped_early": self._stopped_early,
            "warnings": tuple(self._warnings),
        }

    def _tokens(self, step: int) -> float:
        """Give how many tokens were passed up to an update; the last one of an epoch may be smaller than the others."""
        per_epoch = -(-self._examples // self._recipe.batch_size)
        epochs, inside = divmod(step, max(1, per_epoch))
        return self._mean_tokens * (epochs * self._examples + inside * self._recipe.batch_size)

    def _seconds(self) -> float:
        """Give the seconds of the whole training, without those that an interrupted one lost."""
        return self._seconds_before + time.monotonic() - self._started

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if not processes.is_first():
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _tell(self, step: int, **values: Any) -> None:
        if processes.is_first():
            self._on_progress(Progress(step, self._steps, **values))


def has_loss_scaler(recipe: TrainRecipe) -> bool:
    """Say whether gradients are scaled, as whole weights in float16 need it; an adapter's own are in float32."""
    return recipe.method == "full" and recipe.dtype == "float16"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics but a last one that was cut short."""
    lines: list[dict[str, Any]] = []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, text in enumerate(texts, start=1):
            try:
                lines.append(json.loads(text))
            except ValueError:
                if number < len(texts):
                    raise
    except (OSError, ValueError) as error:
        raise StoreError(f'cannot read "{path}": {error}', hint="give another folder with -o") from error
    return lines
