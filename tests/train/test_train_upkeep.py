"""What keeps a training going: its folder, its metrics, its best weights, and errors that say what helps."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from katsuo.cli.main import _goes_on
from katsuo.errors import MissingPackageError, RunChangedError, StoreError, TrainError, UsageError
from katsuo.train import load
from katsuo.train.fit import _on_one_device
from katsuo.train.generator import train_generator
from katsuo.train.recipes import LAPTOP, Adapter
from katsuo.train.upkeep.best import Kept, state_of
from katsuo.train.upkeep.checkpoints import CHECKPOINTS, WHOLE, mark_whole
from katsuo.train.upkeep.folder import TENSORBOARD, identity_of, open_output
from katsuo.train.upkeep.trouble import in_place_of, require_packages, translated
from katsuo.train.watch import METRICS, Watch
from katsuo.train.weights import lora

SMALL = LAPTOP.override({"dtype": "float32", "device": "cpu", "batch_size": 2, "micro_batch_size": 2, "max_steps": 2})


class Noted:
    """Best weights of which only the numbers are kept."""

    def __init__(self, kept=None):
        self.kept, self.steps = kept, []

    def keep(self, step, loss):
        self.kept = (step, loss)
        self.steps.append(step)

    def read(self):
        return self.kept

    def restore(self):
        return self.kept[0] if self.kept else None


class State:
    is_world_process_zero = True

    def __init__(self, step):
        self.global_step = step


class Control:
    should_training_stop = False


class Evaluates:
    def __init__(self, loss):
        self.loss = loss

    def evaluate(self):
        return {"eval_loss": self.loss}


def silent(progress):
    del progress


def watch_in(output, best, told=silent, **changes):
    recipe = SMALL.override(changes)
    examples = [type("Encoded", (), {"tokens": range(10)})] * 3
    return Watch(recipe, output, steps=40, best=best, on_progress=told, train=examples)


def read_at(watch, step, loss):
    control = Control()
    watch._step = step
    watch.on_evaluate(None, State(step), control, metrics={"eval_loss": loss})
    return control.should_training_stop


def whole_checkpoint(output, step=4, seconds=0.0):
    folder = output / CHECKPOINTS / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    mark_whole(folder, seconds=seconds)
    return folder


def test_the_best_weights_are_kept_where_the_model_was_better_before(tmp_path):
    best, told = Noted(), []
    watch = watch_in(tmp_path, best, told.append, patience=2)
    watch.begin(Evaluates(2.0), last=None, has_held_out=True)
    watch.on_train_begin(None, State(0), None)
    losses = {10: 2.5, 20: 2.4, 30: 2.6, 40: 2.7}
    assert [read_at(watch, step, loss) for step, loss in losses.items()] == [False, False, False, True]
    watch.end(None, has_held_out=True)
    result = watch.result()
    assert best.steps == [10, 20]
    assert (result["best_step"], result["held_out_loss"], result["first_held_out_loss"]) == (20, 2.4, 2.0)
    assert "worse than the model before training" in result["warnings"][-1]
    assert told[-1].warning == result["warnings"][-1]


def test_the_first_reading_waits_until_the_trainer_has_placed_the_model(tmp_path):
    told = []
    watch = watch_in(tmp_path, Noted(), told.append)
    watch.begin(Evaluates(2.0), last=None, has_held_out=True)
    assert told == []
    watch.on_train_begin(None, State(0), None)
    assert [(progress.step, progress.held_out_loss) for progress in told] == [(0, 2.0)]
    assert json.loads((tmp_path / METRICS).read_text()) == {"step": 0, "held_out_loss": 2.0}


def test_each_weight_is_kept_also_where_none_of_it_lies_on_this_device():
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.empty(0)) for name in ("one", "other")})
    model["tied"] = model["one"]
    assert set(state_of(model)) == {"one", "other"}


def test_a_torn_line_of_metrics_is_left_out_and_no_worse_weights_replace_the_kept(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 0, "held_out_loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 4, "held_o')
    best = Noted(kept=(4, 1.0))
    watch = watch_in(tmp_path, best)
    watch.begin(Evaluates(9.0), last=whole_checkpoint(tmp_path), has_held_out=True)
    watch.on_train_begin(None, State(4), None)
    read_at(watch, 8, 1.5)
    assert best.steps == []
    steps = [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert steps == [0, 2, 4, 8]
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_line_in_the_middle_is_said_and_not_guessed(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 0\n{"step": 2, "loss": 2.5}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl"):
        watch_in(tmp_path, Noted()).begin(None, last=whole_checkpoint(tmp_path), has_held_out=False)


def test_tokens_and_seconds_are_those_of_the_whole_training(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 4, "loss": 2.5}\n')
    watch = watch_in(tmp_path, Noted())
    watch.begin(None, last=whole_checkpoint(tmp_path, seconds=100.0), has_held_out=False)
    watch.on_train_begin(None, State(4), None)
    watch._step = 6
    watch.end(None, has_held_out=False)
    assert watch.result()["tokens"] == 3 * 3 * 10  # six updates are three epochs of three examples, two and one each
    assert 100 <= watch.result()["seconds"] < 160
    args = type("Arguments", (), {"output_dir": str(tmp_path / CHECKPOINTS)})
    (tmp_path / CHECKPOINTS / "checkpoint-6").mkdir()
    watch.on_save(args, State(6), None)
    assert float((tmp_path / CHECKPOINTS / "checkpoint-6" / WHOLE).read_text()) >= 100


def test_a_folder_without_a_checkpoint_takes_other_settings_and_forgets_what_was_kept(tmp_path):
    first, other = (identity_of("adapt", "m", SMALL.override({"learning_rate": rate}), {}, None) for rate in (0.1, 0.2))
    assert open_output(tmp_path / "out", first) is False
    (tmp_path / "out" / CHECKPOINTS).mkdir()
    (tmp_path / "out" / CHECKPOINTS / "best.json").write_text("{}")
    (tmp_path / "out" / TENSORBOARD).mkdir()
    assert open_output(tmp_path / "out", other) is False
    assert not (tmp_path / "out" / CHECKPOINTS).exists()
    assert not (tmp_path / "out" / TENSORBOARD).exists()
    assert in_place_of("learning_rate", tmp_path / "out") == "lower learning_rate and give the command again"
    whole_checkpoint(tmp_path / "out")
    assert "new folder with -o" in in_place_of("learning_rate", tmp_path / "out")
    assert open_output(tmp_path / "out", other) is False
    with pytest.raises(RunChangedError, match=r"learning_rate: 0.2 → 0.1"):
        open_output(tmp_path / "out", first)


def test_a_command_that_failed_is_taken_up_as_it_was_corrected(pair_folder, small_model, tmp_path):
    for longest in (16, 17):
        recipe = SMALL.override({"data.max_tokens": longest})
        with pytest.raises(UsageError, match="no example is left"):
            train_generator(pair_folder, str(small_model()), tmp_path, recipe, start=None, on_progress=silent)


def test_weights_that_the_disk_does_not_take_leave_nothing_half_written(small_model, tmp_path):
    from transformers import AutoModelForCausalLM

    model = lora.add_adapter(AutoModelForCausalLM.from_pretrained(small_model()), Adapter(rank=4))
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / "best.partial").write_text("what a killed process left")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(StoreError, match="checkpoint or the weights") as caught, translated(SMALL, tmp_path):
            Kept(model, tmp_path, is_adapter=True).keep(4, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "begins anew" in caught.value.hint
    assert not list(tmp_path.rglob("best.*"))


def test_a_disk_that_is_full_at_the_end_says_so_and_the_same_command_finishes(pair_folder, small_model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    recipe = SMALL.override({"data.held_out": 0, "log_every": 1, "learning_rate": 0.02})

    def fill(progress):
        if progress.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    told, told_nobody = ({"start": None, "on_progress": on_progress} for on_progress in (fill, silent))
    try:
        with pytest.raises(StoreError, match="the weights in"):
            train_generator(pair_folder, str(small_model()), tmp_path / "out", recipe, **told)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert train_generator(pair_folder, str(small_model()), tmp_path / "out", recipe, **told_nobody).fitted.steps == 2


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"micro_batch_size": 8, "micro_tokens": 1024}, "micro_tokens (now 1024)"),
        ({"micro_batch_size": 8, "micro_tokens": 512}, "gradient_checkpointing"),
        ({"micro_batch_size": 8, "micro_tokens": None}, "micro_batch_size (now 8)"),
    ],
)
def test_what_bounds_a_pass_is_named_when_memory_runs_out(tmp_path, changes, setting):
    recipe = LAPTOP.override(changes)
    with pytest.raises(TrainError) as caught, translated(recipe, tmp_path):
        torch.empty(1 << 55, dtype=torch.uint8)
    assert setting in caught.value.hint


def test_weights_that_memory_does_not_hold_are_no_damaged_model(small_model, monkeypatch):
    def exhaust(*_, **__):
        torch.empty(1 << 55, dtype=torch.uint8)

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", exhaust)
    for method, cure in (("full", "method to lora"), ("lora", "quantization to nf4")):
        with pytest.raises(TrainError, match="not enough memory") as caught:
            load.load_base(str(small_model()), SMALL.override({"method": method}))
        assert cure in caught.value.hint


def test_four_bit_weights_are_not_trained_on_a_processor(small_model):
    with pytest.raises(UsageError, match="on a GPU") as caught:
        load.load_base(str(small_model()), SMALL.override({"quantization": "nf4", "device": "cpu"}))
    assert "int8" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "what", "cure"),
    [
        ({"quantization": "nf4"}, 'quantization "nf4" needs the package "bitsandbytes"', "katsuo[qlora]"),
        ({"optimizer": "adamw_8bit"}, 'optimizer "adamw_8bit" needs the package "bitsandbytes"', "katsuo[qlora]"),
        ({"report_to": ["wandb"]}, 'report_to "wandb" needs the package "wandb"', "pip install wandb"),
    ],
)
def test_a_package_that_the_recipe_needs_is_asked_for_by_name(change, what, cure, monkeypatch):
    require_packages(SMALL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=what) as caught:
        require_packages(SMALL.override(change))
    assert cure in caught.value.hint


def test_one_process_trains_on_the_one_device_that_is_named(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    arguments._n_gpu = 2
    assert arguments.train_batch_size == 8
    _on_one_device(arguments, SMALL.override({"device": "cpu:0"}))
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 4)
    assert arguments.device == torch.device("cpu:0")


class Writer:
    """What TensorBoard's writer does to a folder."""

    def __init__(self, log_dir):
        Path(log_dir).mkdir(parents=True)
        (Path(log_dir) / "events").write_text("")

    def __getattr__(self, name):
        return lambda *_, **__: None


def test_what_tensorboard_wrote_is_left_beside_the_weights(pair_folder, small_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    monkeypatch.setattr("katsuo.train.load.require_packages", lambda recipe: None)
    recipe = SMALL.override({"report_to": ["tensorboard"], "data.held_out": 0, "learning_rate": 0.02})
    told = {"start": None, "on_progress": silent}
    train_generator(pair_folder, str(small_model()), tmp_path / "out", recipe, **told)
    assert [path.name for path in (tmp_path / "out" / TENSORBOARD).iterdir()] == ["events"]
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    train_generator(pair_folder, str(small_model()), tmp_path / "other", recipe, **told)
    assert (tmp_path / "elsewhere" / "events").is_file()


def test_an_interrupted_training_says_where_it_goes_on():
    assert "checkpoint" in _goes_on(["adapt", "run"])
    assert "shard" in _goes_on(["generate", "docs"])


@pytest.mark.parametrize(("told", "kept"), [({}, "256"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
def test_kernels_of_about_one_pass_are_kept_unless_the_user_says_how_many(small_model, monkeypatch, told, kept):
    folder, name = small_model(), "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    environment = {key: value for key, value in os.environ.items() if key != name} | told
    monkeypatch.setattr("os.environ", environment)
    load.load_base(str(folder), SMALL.override({"batch_size": 16, "micro_batch_size": 16}))
    assert environment[name] == kept
