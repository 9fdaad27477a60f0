"""Targets: adapted to a run's examples in the style they are asked in, or trained further on its passages."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from katsuo.api import generate
from katsuo.config import EngineOptions
from katsuo.engines import EngineSettings
from katsuo.engines.hf.load import load_model
from katsuo.errors import UsageError
from katsuo.store import Run
from katsuo.train.data import watch_what_fits
from katsuo.train.encode import Encoder, limits_of
from katsuo.train.load import load_base
from katsuo.train.read import PairFolder, passage_places
from katsuo.train.recipes import LAPTOP
from katsuo.train.target import adapt, as_many_steps_as, pretrain, style_of

pytestmark = pytest.mark.filterwarnings("ignore:.*was renamed from:UserWarning")

SMALL = LAPTOP.override(
    {"dtype": "float32", "device": "cpu", "learning_rate": 0.01, "max_steps": 4, "data.held_out": 4, "batch_size": 2,
     "micro_batch_size": 2, "data.max_tokens": 700}
)  # fmt: skip


def silent(progress):
    del progress


def manifest(folder):
    return json.loads((folder / "katsuo.json").read_text())


@pytest.fixture
def base_model(small_model, tmp_path):
    """A model without a chat template."""
    folder = tmp_path / "base"
    shutil.copytree(small_model("llama"), folder)
    AutoTokenizer.from_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("command", [adapt, pretrain])
def test_a_target_learns_and_leaves_a_loadable_adapter(command, small_run, small_model, tmp_path):
    told = command(Run(small_run), str(small_model()), tmp_path / "out", SMALL, start=None, on_progress=silent)
    assert told.fitted.held_out_loss < told.fitted.first_held_out_loss
    assert told.change > 0
    options = EngineOptions(device="cpu")
    base, tuned = (
        load_model(EngineSettings(str(small_model()), adapter, options)).model
        for adapter in (None, str(tmp_path / "out"))
    )
    tokens = torch.tensor([[1, 40, 41, 90, 200]])
    with torch.inference_mode():
        assert not torch.allclose(base(tokens).logits, tuned(tokens).logits, atol=1e-3)
    assert "codec" not in manifest(tmp_path / "out")


def test_the_style_follows_the_model_unless_it_is_given(small_model, base_model):
    chat, plain = load_base(str(small_model()), SMALL), load_base(str(base_model), SMALL)
    assert style_of(chat, SMALL)[1] == "chat"
    style, name = style_of(plain, SMALL)
    assert name == "input-output"
    assert style(" ask ", " answer ").prompt == "<|input|>\nask\n<|output|>\n"
    own = SMALL.override({"style": "template", "prompt_template": "Instruct: {instruction}\nAnswer:"})
    assert style_of(chat, own)[0]("ask", "answer").prompt == "Instruct: ask\nAnswer:"
    with pytest.raises(UsageError, match="no chat template"):
        style_of(plain, SMALL.override({"style": "chat"}))


def test_a_prompt_template_may_hold_braces_and_the_instruction_too(small_model):
    own = SMALL.override({"style": "template", "prompt_template": '{"ask": "{instruction}"}'})
    style, _ = style_of(load_base(str(small_model()), SMALL), own)
    assert style("{instruction} {x}", "y").prompt == '{"ask": "{instruction} {x}"}'


@pytest.mark.parametrize("command", [adapt, pretrain])
def test_general_instructions_are_mixed_in_at_their_share(command, small_run, small_model, tmp_path):
    lines = (
        json.dumps({"prompt": f"Say {number}." * (1 + number % 2 * 200), "completion": str(number)})
        for number in range(100)
    )
    (tmp_path / "general.jsonl").write_text("\n".join(lines))
    recipe = SMALL.override({"data.replay": str(tmp_path / "general.jsonl"), "data.replay_share": 0.25})
    told = command(Run(small_run), str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)
    assert manifest(tmp_path / "out")["data"]["replayed"] == pytest.approx(told.examples / 4, abs=1)
    assert 0 < told.rejected["prompt too long (replayed)"] < 50
    recipe = recipe.override({"data.replay_share": 0.95})
    with pytest.raises(UsageError, match="replay_share"):
        command(Run(small_run), str(small_model()), tmp_path / "more", recipe, start=None, on_progress=silent)


def test_the_baseline_takes_as_many_updates_as_the_adaptation(small_run, small_model, tmp_path):
    told = adapt(Run(small_run), str(small_model()), tmp_path / "out", SMALL, start=None, on_progress=silent)
    recipe = as_many_steps_as(SMALL.override({"max_steps": 1}), tmp_path / "out")
    baseline = pretrain(Run(small_run), str(small_model()), tmp_path / "raw", recipe, start=None, on_progress=silent)
    assert baseline.fitted.steps == told.fitted.steps == 4
    with pytest.raises(UsageError, match="no finished training"):
        as_many_steps_as(SMALL, tmp_path / "nowhere")


def test_every_passage_is_split_and_none_is_left_out(small_run, small_model, tmp_path):
    recipe = SMALL.override({"data.max_tokens": 64, "data.held_out": 0})
    told = pretrain(Run(small_run), str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)
    assert told.rejected == {}
    tokenizer = AutoTokenizer.from_pretrained(small_model())
    lengths = [len(tokenizer(passage.text).input_ids) + 1 for passage in Run(small_run).passages()]
    assert told.examples == sum(-(-(length - 1) // 63) for length in lengths)


def test_the_baseline_of_a_stopped_run_reads_the_passages_that_were_asked_about(tmp_path):
    (tmp_path / "documents").mkdir()
    for number in range(12):
        (tmp_path / "documents" / f"{number:02d}.txt").write_text(f"Report {number} says that the bridge opened.")
    options = {"engine": "fake", "model": "fake", "shard_size": 8, "budget__max_examples": 11}
    run = generate(str(tmp_path / "documents"), ["ynqa", "exqa"], tmp_path / "run", **options)
    asked = {example.passage_id for example in run.examples()}
    places = list(passage_places(run, 0))
    read = {run.read_passages(place.shard)[place.row].id for place in places}
    assert len(places) == len(read) == 6
    assert read == asked
    assert len(list(run.passages())) == 12


def test_held_out_examples_that_do_not_fit_are_counted(pair_folder, small_model, tmp_path):
    base, folder = load_base(str(small_model()), SMALL), PairFolder(pair_folder)
    places = sorted(folder.places(0), key=lambda place: place.task_type)
    lengths = [len(base.tokenizer(pair.prompt + pair.completion).input_ids) for pair in folder.pairs(places)]
    limits = limits_of(SMALL.override({"data.max_tokens": sorted(lengths)[len(lengths) // 2] + 1}))
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits)
    trained_on = sum(one is not None for one in encoder.encode(folder.pairs(places[:60])))
    before = dict(encoder.ledger.rejected)
    watched, ledger = watch_what_fits(folder, places[60:], encoder)
    late = {reason: count for reason, count in ledger.rejected.items() if reason not in before}
    assert 0 < len(watched) < 60
    assert len(watched) + sum(late.values()) == 60
    assert all(reason.endswith("(held out)") for reason in late)
    assert (ledger.kept, sum(before.values())) == (trained_on, 60 - trained_on)


def test_what_an_adaptation_leaves_out_stands_in_its_manifest(small_run, small_model, tmp_path):
    recipe = SMALL.override({"data.min_response_words": 100})
    told = adapt(Run(small_run), str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)
    count = sum(one.task_type.startswith("extractive") for one in Run(small_run).examples())
    assert told.rejected["response too short"] == manifest(tmp_path / "out")["rejected"]["response too short"] == count
    assert manifest(tmp_path / "out")["data"]["types"].keys() == {"yes-no question answering"}
    # The raw passages have no responses.
    told = pretrain(Run(small_run), str(small_model()), tmp_path / "raw", recipe, start=None, on_progress=silent)
    assert told.rejected == {}


def test_a_recipe_that_leaves_nothing_to_train_on_says_so(small_run, small_model, tmp_path):
    recipe = SMALL.override({"data.max_tokens": 16})
    with pytest.raises(UsageError, match=r"no example is left") as caught:
        adapt(Run(small_run), str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)
    assert "max_tokens" in caught.value.hint
