"""What a training leaves: an adapter that is proved, small, described, and can be gone on with or merged."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.hf.load import load_model
from katsuo.errors import ModelError, RunExistsError, TrainError
from katsuo.models import revision_of
from katsuo.models.export import export_gguf
from katsuo.records import Passage, Prompt
from katsuo.train.generator import train_generator
from katsuo.train.recipes import LAPTOP, Adapter
from katsuo.train.weights import lora
from katsuo.train.weights.merge import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*was renamed from:UserWarning"),
]

SMALL = LAPTOP.override(
    {"dtype": "float32", "device": "cpu", "learning_rate": 0.02, "max_steps": 4, "data.held_out": 6}
)
TOKENS = torch.tensor([[1, 40, 41, 90, 200]])


def silent(progress):
    del progress


@pytest.fixture(scope="module")
def trained(pair_folder, small_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "adapter"
    train_generator(pair_folder, str(small_model()), output, SMALL, start=None, on_progress=silent)
    return output


def adapted(folder):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return lora.add_adapter(model, Adapter(rank=4))


def test_an_adapter_that_changes_nothing_is_no_result(small_model, tmp_path):
    model = adapted(small_model())
    lora.save_adapter(model, tmp_path, base_name="tiny")
    with pytest.raises(TrainError, match="not changed"):
        lora.prove_adapter(model, tmp_path, TOKENS)


def test_an_adapter_that_does_not_load_back_the_same_is_no_result(small_model, tmp_path):
    model = adapted(small_model())
    weights = lora.adapter_weights(model)
    lora.set_adapter_weights(model, {name: torch.full_like(weight, 0.1) for name, weight in weights.items()})
    lora.save_adapter(model, tmp_path, base_name="tiny")
    assert lora.prove_adapter(model, tmp_path, TOKENS) > 0
    lora.set_adapter_weights(model, {name: torch.full_like(weight, 0.2) for name, weight in weights.items()})
    with pytest.raises(TrainError, match="load back"):
        lora.prove_adapter(model, tmp_path, TOKENS)


def test_the_adapter_is_saved_in_two_bytes_a_number_and_keeps_its_logits(small_model, tmp_path):
    model = adapted(small_model())
    weights = lora.adapter_weights(model)
    lora.set_adapter_weights(model, {name: torch.randn_like(weight) for name, weight in weights.items()})
    lora.save_adapter(model, tmp_path, base_name="tiny")
    saved = load_file(tmp_path / lora.WEIGHTS)
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert all(weight.dtype == torch.float32 for weight in lora.adapter_weights(model).values())


def test_the_manifest_says_what_an_engine_and_a_reader_need(trained, pair_folder):
    manifest = json.loads((trained / "katsuo.json").read_text())
    assert manifest["codec"] == "bonito-v1"
    assert manifest["base_model"] == "llama"
    assert manifest["base_revision"].startswith("local-")
    assert manifest["data"]["card"]
    assert manifest["recipe"]["learning_rate"] == 0.02
    assert manifest["fitted"]["held_out_loss"] < manifest["fitted"]["first_held_out_loss"]
    told = (trained / "adapter_config.json").read_text() + (trained / "README.md").read_text() + json.dumps(manifest)
    assert str(pair_folder.parent) not in told


def test_the_card_names_every_source_with_its_licence(trained):
    card = (trained / "README.md").read_text()
    for source, licence in (("quiz", "CC0-1.0"), ("news", "research only"), ("tales", "none stated")):
        assert f"| {source} | {licence} |" in card
    assert "non-commercial use only" in card


def test_sources_can_be_left_out_by_their_licence(pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"data.exclude_license": ["nc"]})
    train_generator(pair_folder, str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| news |" not in card
    assert "non-commercial use only" not in card


def test_an_adapter_can_be_gone_on_with(trained, pair_folder, small_model, tmp_path):
    told = train_generator(
        pair_folder, str(small_model()), tmp_path / "more", SMALL, start=str(trained), on_progress=silent
    )
    before = json.loads((trained / "katsuo.json").read_text())["fitted"]
    assert told.fitted.first_held_out_loss == pytest.approx(before["held_out_loss"], rel=0.02)
    assert told.fitted.held_out_loss < before["held_out_loss"]
    assert f"went on from the adapter `{trained.name}`" in (tmp_path / "more" / "README.md").read_text()


def test_all_weights_can_be_trained_instead(pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"method": "full", "learning_rate": 0.005})
    told = train_generator(pair_folder, str(small_model()), tmp_path / "full", recipe, start=None, on_progress=silent)
    assert told.fitted.held_out_loss < told.fitted.first_held_out_loss
    loaded = load_model(EngineSettings(str(tmp_path / "full"), None, EngineOptions(device="cpu")))
    base = load_file(small_model() / "model.safetensors")
    assert not torch.equal(loaded.model.get_input_embeddings().weight, base["model.embed_tokens.weight"])


def test_a_merged_model_says_what_base_and_adapter_say(trained, small_model, tmp_path):
    merge(str(trained), tmp_path / "merged", model=str(small_model()))
    options = EngineOptions(device="cpu")
    beside = load_model(EngineSettings(str(small_model()), str(trained), options))
    merged = load_model(EngineSettings(str(tmp_path / "merged"), None, options))
    base = load_model(EngineSettings(str(small_model()), None, options))
    with torch.inference_mode():
        logits = [loaded.model(TOKENS).logits for loaded in (beside, merged, base)]
    assert torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[0], logits[2], atol=1e-1)
    assert json.loads((tmp_path / "merged" / "katsuo.json").read_text())["codec"] == "bonito-v1"


def test_an_adapter_alone_brings_its_base(trained, small_model, monkeypatch):
    whole = EngineSettings(str(small_model()), str(trained), EngineOptions(device="cpu"))
    with pytest.raises(ModelError, match=r'the base of ".*", "llama", is not on this machine') as caught:
        load_model(EngineSettings(str(trained)))
    assert "--adapter" in caught.value.hint
    monkeypatch.chdir(small_model().parent)
    alone = open_engine("hf", EngineSettings(str(trained), options=EngineOptions(device="cpu")))
    assert alone.info.codec == "bonito-v1"
    assert alone.info.model == trained.name
    assert alone.info.revision == revision_of(trained)
    prompt = Prompt("p", Passage("p", "", "file", 0, 0), "topic", 0, 0, text="The cat")
    greedy = Sampling(temperature=0, max_new_tokens=16)
    assert alone.generate([prompt], greedy) == open_engine("hf", whole).generate([prompt], greedy)


def test_an_adapter_is_no_base_to_train(trained, pair_folder, tmp_path):
    with pytest.raises(ModelError, match="is an adapter") as caught:
        train_generator(pair_folder, str(trained), tmp_path / "out", SMALL, start=None, on_progress=silent)
    assert "--from" in caught.value.hint


def test_a_base_that_is_not_here_is_asked_for(trained, tmp_path):
    with pytest.raises(ModelError, match="llama") as caught:
        merge(str(trained), tmp_path / "merged")
    assert "--model" in caught.value.hint


def test_a_merge_overwrites_nothing(trained, small_model):
    with pytest.raises(RunExistsError):
        merge(str(trained), small_model(), model=str(small_model()))


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_a_gguf_file_can_be_read_back_as_the_same_model(trained, small_model, tmp_path, kind):
    merge(str(trained), tmp_path / "merged", model=str(small_model()), gguf=kind)
    export_gguf(tmp_path / "merged" / f"model-{kind}.gguf", tmp_path / "back")
    one, other = (
        load_file(tmp_path / "merged" / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert set(one) == set(other)
    for name, weight in one.items():
        assert torch.allclose(weight.float(), other[name].float(), rtol=0.01, atol=1e-3), name


def test_gguf_of_another_architecture_is_refused(pair_folder, small_model, tmp_path):
    train_generator(pair_folder, str(small_model("qwen2")), tmp_path / "a", SMALL, start=None, on_progress=silent)
    with pytest.raises(ModelError, match="qwen2"):
        merge(str(tmp_path / "a"), tmp_path / "merged", model=str(small_model("qwen2")), gguf="bf16")
    assert not (tmp_path / "merged").exists()
