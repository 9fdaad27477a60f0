"""Training: it learns, stops, resumes to the same weights, and says what went wrong."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.errors import RunChangedError, RunExistsError, StoreError, TrainError
from katsuo.records import Passage, Prompt
from katsuo.tasks.codec import render_bonito
from katsuo.train.data import allow
from katsuo.train.encode import Encoder, limits_of
from katsuo.train.fit import passes_of, steps_of
from katsuo.train.generator import train_generator
from katsuo.train.load import load_base
from katsuo.train.read import PairFolder
from katsuo.train.recipes import LAPTOP
from katsuo.train.upkeep.checkpoints import CHECKPOINTS, WHOLE, last_checkpoint
from katsuo.train.weights import lora

pytestmark = pytest.mark.filterwarnings("ignore:.*was renamed from:UserWarning")

SMALL = LAPTOP.override(
    {
        "dtype": "float32",
        "device": "cpu",
        "learning_rate": 0.02,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": 8,
        "evaluate_every": 4,
        "checkpoint_every": 2,
        "log_every": 1,
        "data.held_out": 12,
        "data.balance": "types",
    }
)
WEIGHTS = "adapter_model.safetensors"


def silent(progress):
    del progress


def train(pairs, model, output, recipe=SMALL, on_progress=silent, start=None):
    return train_generator(pairs, str(model), output, recipe, start=start, on_progress=on_progress)


def lines_of(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def one_thread():
    """As many threads here as in a process with OMP_NUM_THREADS=1: sums in another order differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class StoppedError(BaseException):
    """What a killed process looks like from inside."""


def stop_at(step):
    def stop(progress):
        if progress.step == step and progress.loss is not None:
            raise StoppedError

    return stop


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3_text", "gpt_neox", "phi3", "gpt_oss"])
def test_another_base_is_another_word(pair_folder, small_model, tmp_path, kind):
    before = (small_model(kind) / "model.safetensors").read_bytes()
    trained = train(pair_folder, small_model(kind), tmp_path / "out")
    assert trained.fitted.held_out_loss < trained.fitted.first_held_out_loss
    assert trained.change > 0
    assert not (tmp_path / "out" / CHECKPOINTS).exists()
    assert (small_model(kind) / "model.safetensors").read_bytes() == before
    settings = EngineSettings(str(small_model(kind)), str(tmp_path / "out"), EngineOptions(device="cpu"))
    assert open_engine("hf", settings).info.codec == "bonito-v1"
    has_own_attention = any("attention has parts of its own" in warning for warning in trained.fitted.warnings)
    assert has_own_attention == (kind == "gpt_oss")


def test_a_trained_model_writes_what_it_learned_and_stops(pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"max_steps": 60, "epochs": 100, "adapter.rank": 32, "adapter.alpha": 64})
    train(pair_folder, small_model(), tmp_path / "out", recipe)
    engine = open_engine("hf", EngineSettings(str(small_model()), str(tmp_path / "out"), EngineOptions(device="cpu")))
    text = render_bonito("topic classification", "news 3: the cat sat.")
    prompt = Prompt("p", Passage("p", "", "file", 0, 0), "topic", 0, 0, text=text)
    (completion,) = engine.generate([prompt], Sampling(temperature=0, max_new_tokens=64))
    assert completion.finish == "stop"
    assert completion.text.startswith("{{context}}\nWho sat?\n<|pipe|>\nCat")


def test_a_resumed_training_gives_the_same_weights(pair_folder, small_model, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    told = train(pair_folder, small_model(), whole).fitted
    with pytest.raises(StoppedError):
        train(pair_folder, small_model(), stopped, on_progress=stop_at(5))
    assert last_checkpoint(stopped).name == "checkpoint-4"
    steps = []
    resumed = train(
        pair_folder, small_model(), stopped, on_progress=lambda progress: steps.append(progress.step)
    ).fitted
    assert min(steps) == 5, "the training began anew"
    assert (resumed.steps, resumed.best_step) == (told.steps, told.best_step)
    assert resumed.held_out_loss == pytest.approx(told.held_out_loss, abs=1e-6)
    one, other = load_file(whole / WEIGHTS), load_file(stopped / WEIGHTS)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert [line["step"] for line in lines_of(stopped)] == [line["step"] for line in lines_of(whole)]


def die(*_, **__):
    raise StoppedError


def train_twice(pairs, model, output, recipe):
    """Train in a process that dies while it writes the final weights, then give the same command again."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lora, "save_adapter", die)
        with pytest.raises(StoppedError):
            train(pairs, model, output, recipe)
    return train(pairs, model, output, recipe)


def test_a_training_killed_after_its_last_update_makes_no_more_of_them(pair_folder, small_model, tmp_path):
    # Six updates of four examples each: the last one falls inside the epoch.
    recipe = SMALL.override({"schedule": "constant", "data.held_out": 0, "data.balance": "none", "data.examples": 26})
    recipe = recipe.override({"max_steps": 6})
    told = train(pair_folder, small_model(), tmp_path / "whole", recipe).fitted
    again = train_twice(pair_folder, small_model(), tmp_path / "killed", recipe).fitted
    assert (again.steps, again.loss) == (6, told.loss)
    one, other = load_file(tmp_path / "whole" / WEIGHTS), load_file(tmp_path / "killed" / WEIGHTS)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_an_epoch_learns_every_example_also_those_that_fill_no_batch(pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"data.held_out": 0, "data.balance": "none", "data.examples": 26, "max_steps": None})
    trained = train(pair_folder, small_model(), tmp_path / "out", recipe.override({"epochs": 1}))
    folder = PairFolder(pair_folder)
    places = allow(folder.places(recipe.seed), recipe.data, {})[:26]
    base = load_base(str(small_model()), recipe)
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    tokens = sum(len(one.tokens) for one in encoder.encode(folder.pairs(places)))
    assert (trained.fitted.steps, trained.fitted.tokens) == (7, tokens)


def test_a_training_killed_after_its_early_stop_makes_no_more_updates(pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"schedule": "constant", "max_steps": 200, "epochs": 1000, "data.examples": 8})
    recipe = recipe.override({"evaluate_every": 10, "checkpoint_every": 10, "patience": 3})
    told = train(pair_folder, small_model(), tmp_path / "whole", recipe).fitted
    again = train_twice(pair_folder, small_model(), tmp_path / "killed", recipe).fitted
    assert told.stopped_early
    assert again.stopped_early
    assert (again.steps, again.best_step, again.warnings) == (told.steps, told.best_step, told.warnings)


def test_a_training_that_is_killed_goes_on_with_the_same_command(pair_folder, small_model, tmp_path, one_thread):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    recipe = SMALL.override({"max_steps": 120, "epochs": 1000, "evaluate_every": 60, "checkpoint_every": 5})
    train(pair_folder, small_model(), whole, recipe)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "katsuo", "train-generator", str(pair_folder), "-m", str(small_model())]
    command += ["-o", str(killed), "--recipe", str(tmp_path / "recipe.yaml"), "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 90
    while not list((killed / CHECKPOINTS).glob(f"checkpoint-*/{WHOLE}")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / WEIGHTS).exists()
    steps = []
    train(pair_folder, small_model(), killed, recipe, on_progress=lambda progress: steps.append(progress.step))
    assert min(steps) > 1, "the training began anew"
    one, other = load_file(whole / WEIGHTS), load_file(killed / WEIGHTS)
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-6) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_give_the_weights_of_one(pair_folder, small_model, tmp_path, method):
    recipe = SMALL.override({"method": method, "learning_rate": 0.005})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    train(pair_folder, small_model(), tmp_path / "one", recipe)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "katsuo"]
    command += ["train-generator", str(pair_folder), "-m", str(small_model()), "-o", str(tmp_path / "two")]
    command += ["--recipe", str(tmp_path / "recipe.yaml"), "--quiet"]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=120)
    name = WEIGHTS if method == "lora" else "model.safetensors"
    one, two = (load_file(tmp_path / folder / name) for folder in ("one", "two"))
    assert all(torch.allclose(one[key].float(), two[key].float(), atol=1e-3) for key in one)
    assert lines_of(tmp_path / "two")[-1]["held_out_loss"] == pytest.approx(
        lines_of(tmp_path / "one")[-1]["held_out_loss"], abs=1e-3
    )


def test_a_checkpoint_that_was_cut_short_is_not_taken(tmp_path):
    for step, is_whole in ((2, True), (10, True), (12, False)):
        (tmp_path / CHECKPOINTS / f"checkpoint-{step}").mkdir(parents=True)
        if is_whole:
            (tmp_path / CHECKPOINTS / f"checkpoint-{step}" / WHOLE).write_text("")
    assert last_checkpoint(tmp_path) == tmp_path / CHECKPOINTS / "checkpoint-10"
    assert not (tmp_path / CHECKPOINTS / "checkpoint-12").exists()


def test_a_finished_training_is_not_done_again(pair_folder, small_model, tmp_path):
    first = train(pair_folder, small_model(), tmp_path / "out")
    steps = []
    again = train(pair_folder, small_model(), tmp_path / "out", on_progress=steps.append)
    assert again == first
    assert steps == []


def test_passing_a_batch_in_parts_changes_no_loss(pair_folder, small_model, tmp_path):
    passes = []
    for most in (None, 40):
        output = tmp_path / str(most)
        train(pair_folder, small_model(), output, SMALL.override({"micro_tokens": most, "micro_batch_size": 4}))
        passes.append([line["loss"] for line in lines_of(output) if "loss" in line])
    assert passes[1] == pytest.approx(passes[0], rel=1e-3)


def test_a_folder_with_another_training_is_refused(pair_folder, small_model, tmp_path):
    train(pair_folder, small_model(), tmp_path / "out")
    with pytest.raises(RunChangedError, match=r"learning_rate: 0.02 → 0.01"):
        train(pair_folder, small_model(), tmp_path / "out", SMALL.override({"learning_rate": 0.01}))
    train(pair_folder, small_model(), tmp_path / "out", SMALL.override({"micro_batch_size": 4}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(RunExistsError):
        train(pair_folder, small_model(), tmp_path / "other")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(pair_folder, small_model, tmp_path):
    def poison(progress):
        if progress.step == 5 and progress.loss is not None:
            for thing in gc.get_objects():
                if type(thing) is torch.nn.Parameter and thing.requires_grad:
                    thing.data.fill_(float("nan"))

    with pytest.raises(TrainError, match="loss of step 6") as caught:
        train(pair_folder, small_model(), tmp_path / "out", on_progress=poison)
    assert "learning_rate" in caught.value.hint
    kept = last_checkpoint(tmp_path / "out")
    assert kept.name == "checkpoint-4"
    assert all(torch.isfinite(weight).all() for weight in load_file(kept / WEIGHTS).values())


def test_a_gradient_that_is_no_number_takes_no_step(pair_folder, small_model, tmp_path):
    from katsuo.train.watch import Watch

    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, float("inf")])
    model = torch.nn.ParameterList([weight])
    state = type("State", (), {"global_step": 2})
    watch = Watch(SMALL, tmp_path, steps=4, best=None, on_progress=silent, train=[])
    with pytest.raises(TrainError, match="gradient of step 3"):
        watch.on_pre_optimizer_step(None, state, None, model=model)
    scaled = SMALL.override({"method": "full", "dtype": "float16"})
    Watch(scaled, tmp_path, steps=4, best=None, on_progress=silent, train=[]).on_pre_optimizer_step(
        None, state, None, model=model
    )


def test_a_disk_that_takes_no_more_stops_and_keeps_the_last_whole_checkpoint(pair_folder, small_model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress):
        if progress.step == 5 and progress.loss is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    try:
        with pytest.raises(StoreError, match="checkpoint") as caught:
            train(pair_folder, small_model(), tmp_path / "out", on_progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free some space" in caught.value.hint
    assert [path.name for path in (tmp_path / "out" / CHECKPOINTS).glob("checkpoint-*")].count("checkpoint-6") == 0
    assert last_checkpoint(tmp_path / "out").name == "checkpoint-4"
    assert train(pair_folder, small_model(), tmp_path / "out").fitted.steps == 8


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({}, "micro_batch_size"),
        ({"micro_batch_size": 1}, "gradient_checkpointing"),
        ({"micro_batch_size": 1, "gradient_checkpointing": True}, "data.max_tokens"),
    ],
)
def test_too_little_memory_names_the_setting_to_lower(pair_folder, small_model, tmp_path, changes, setting):
    def exhaust(progress):
        if progress.step == 1:
            torch.empty(1 << 55, dtype=torch.uint8)

    with pytest.raises(TrainError, match="not enough memory") as caught:
        train(pair_folder, small_model(), tmp_path / "out", SMALL.override(changes), on_progress=exhaust)
    assert setting in caught.value.hint


def test_overfitting_is_warned_of_stopped_and_the_best_weights_are_kept(pair_folder, small_model, tmp_path):
    # Every answer is drawn by lot: what is learned of one pair says nothing of another.
    recipe = SMALL.override({"max_steps": 200, "epochs": 1000, "evaluate_every": 10, "patience": 3, "data.examples": 8})
    told = []
    trained = train(pair_folder, small_model(), tmp_path / "out", recipe, on_progress=told.append)
    fitted = trained.fitted
    readings = {line["step"]: line["held_out_loss"] for line in lines_of(tmp_path / "out") if "held_out_loss" in line}
    assert fitted.stopped_early
    assert fitted.steps < 200
    assert fitted.held_out_loss == pytest.approx(min(readings.values()), abs=1e-4)
    assert readings[fitted.best_step] == min(readings.values())
    assert any("part ways" in progress.warning for progress in told)
    assert "part ways" in (tmp_path / "out" / "README.md").read_text()


def test_metrics_are_lines_of_json(pair_folder, small_model, tmp_path):
    train(pair_folder, small_model(), tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert [line["step"] for line in lines if "held_out_loss" in line] == [0, 4, 8]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 9))
    assert all(line["tokens_per_s"] > 0 and line["learning_rate"] >= 0 for line in losses)
    assert losses[-1]["learning_rate"] < losses[0]["learning_rate"]


def test_steps_are_those_of_max_steps_or_of_the_epochs_whichever_is_less():
    assert steps_of(SMALL.override({"max_steps": 8}), 400) == 8
    assert steps_of(SMALL.override({"max_steps": 500}), 400) == 100
    assert steps_of(SMALL.override({"max_steps": None, "epochs": 0.5}), 400) == 50
    assert steps_of(SMALL.override({"max_steps": None, "epochs": 1}), 4 * 7 + 1) == 8
    assert steps_of(SMALL.override({"max_steps": None, "epochs": 0.7}), 4 * 10) == 7


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "passes"),
    [(8, 8, 1, (8, 1)), (24, 8, 1, (8, 3)), (24, 8, 2, (6, 2)), (24, 8, 4, (6, 1)), (14, 7, 7, (2, 1))],
)
def test_the_passes_of_all_processes_make_up_the_batch(batch, micro, processes, passes):
    assert passes_of(SMALL.override({"batch_size": batch, "micro_batch_size": micro}), processes) == passes
    assert passes[0] * passes[1] * processes == batch
