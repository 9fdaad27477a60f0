"""What a training leaves: an adapter that is proved, small, described, and can be gone on with or merged."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.hf.load import load_model
from katsuo.errors import ModelError, RunExistsError, TrainError, UsageError
from katsuo.models import codec_of, revision_of
from katsuo.models.export import export_gguf
from katsuo.records import Passage, Prompt
from katsuo.train.fit import Fitted
from katsuo.train.generator import train_generator
from katsuo.train.recipes import LAPTOP, Adapter
from katsuo.train.trained import Job, Trained
from katsuo.train.weights import lora
from katsuo.train.weights.card import write_card
from katsuo.train.weights.merge import merge
from katsuo.train.weights.start import sources_of

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


def test_going_on_that_changes_nothing_is_no_result(small_model, tmp_path):
    model = adapted(small_model())
    weights = lora.adapter_weights(model)
    lora.set_adapter_weights(model, {name: torch.full_like(weight, 0.1) for name, weight in weights.items()})
    lora.save_adapter(model, tmp_path / "start", base_name="tiny")
    lora.save_adapter(model, tmp_path / "more", base_name="tiny")
    assert lora.prove_adapter(model, tmp_path / "more", TOKENS) > 0
    with pytest.raises(TrainError, match="not changed"):
        lora.prove_adapter(model, tmp_path / "more", TOKENS, start=tmp_path / "start")


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
    recipe = SMALL.override({"adapter.rank": 3, "adapter.alpha": 5.0})
    told = train_generator(
        pair_folder, str(small_model()), tmp_path / "more", recipe, start=str(trained), on_progress=silent
    )
    before = json.loads((trained / "katsuo.json").read_text())["fitted"]
    assert told.fitted.first_held_out_loss == pytest.approx(before["held_out_loss"], rel=0.02)
    assert told.fitted.held_out_loss < before["held_out_loss"]
    card = (tmp_path / "more" / "README.md").read_text()
    assert f"went on from the adapter `{trained.name}`" in card
    manifest = json.loads((tmp_path / "more" / "katsuo.json").read_text())
    adapter = manifest["recipe"]["adapter"]
    assert (adapter["rank"], adapter["alpha"]) == (SMALL.adapter.rank, SMALL.adapter.alpha)
    assert {source["source"] for source in manifest["from"]["sources"]} == {"quiz", "news", "tales"}
    assert manifest["from"]["revision"] == revision_of(trained)
    counts = {source["source"]: source["examples"] for source in sources_of(tmp_path / "more")}
    assert sum(counts.values()) == told.examples + sum(one["examples"] for one in manifest["from"]["sources"])


def test_the_card_names_the_sources_of_the_adapter_that_was_gone_on_with(trained, tmp_path):
    base = SimpleNamespace(public_name="llama", revision="local", folder=tmp_path)
    job = Job("adapt", base, SMALL, tmp_path, {}, start=trained)
    write_card(job, Trained(tmp_path, Fitted(1, 1, None, None, None, 1, 1.0, False), 0.1, 1, {}, 1))
    card = (tmp_path / "README.md").read_text()
    assert "| news | research only | non-commercial |" in card
    assert "non-commercial use only" in card
    assert "see-each-source-some-non-commercial" in card


def test_all_weights_cannot_go_on_from_an_adapter(trained, pair_folder, small_model, tmp_path):
    recipe = SMALL.override({"method": "full"})
    with pytest.raises(UsageError, match="cannot go on from the adapter") as caught:
        train_generator(
            pair_folder, str(small_model()), tmp_path / "out", recipe, start=str(trained), on_progress=silent
        )
    assert "katsuo merge" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "dtype"), [("llama", "float32"), ("llama", "bfloat16"), ("mistral", "bfloat16")])
def test_all_weights_can_be_trained_instead(pair_folder, small_model, tmp_path, kind, dtype):
    recipe = SMALL.override({"method": "full", "learning_rate": 0.005, "dtype": dtype})
    told = train_generator(
        pair_folder, str(small_model(kind)), tmp_path / "full", recipe, start=None, on_progress=silent
    )
    assert told.fitted.held_out_loss < told.fitted.first_held_out_loss
    loaded = load_model(EngineSettings(str(tmp_path / "full"), None, EngineOptions(device="cpu")))
    assert {str(weight.dtype) for weight in load_file(tmp_path / "full" / "model.safetensors").values()} == {
        f"torch.{dtype}"
    }
    base = load_file(small_model(kind) / "model.safetensors")
    assert not torch.equal(loaded.model.get_input_embeddings().weight, base["model.embed_tokens.weight"])


def test_whole_weights_that_do_not_load_back_the_same_are_no_result(pair_folder, small_model, tmp_path, monkeypatch):
    write = PreTrainedModel.save_pretrained

    def spoil(model, folder, *, state_dict):
        last = list(state_dict)[-1]
        write(model, folder, state_dict={**state_dict, last: state_dict[last] * 1.5})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", spoil)
    recipe = SMALL.override({"method": "full", "learning_rate": 0.005})
    with pytest.raises(TrainError, match="load back"):
        train_generator(pair_folder, str(small_model()), tmp_path / "out", recipe, start=None, on_progress=silent)


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


def test_a_base_that_calls_its_number_format_torch_dtype_is_merged_in_it(trained, small_model, tmp_path):
    shutil.copytree(small_model(), tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "torch_dtype": config.pop("dtype")}))
    merge(str(trained), tmp_path / "merged", model=str(tmp_path / "base"))
    assert {weight.dtype for weight in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.float32}


def test_a_base_that_names_no_number_format_is_merged_in_that_of_its_weights(trained, small_model, tmp_path):
    shutil.copytree(small_model(), tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    del config["dtype"]
    path.write_text(json.dumps(config))
    merge(str(trained), tmp_path / "merged", model=str(tmp_path / "base"))
    assert {weight.dtype for weight in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.float32}


def test_an_adapter_given_by_name_says_its_codec(small_model, tmp_path, monkeypatch):
    assert codec_of("smollm2-135m-instruct", "katsuo-135m") == "bonito-v1"
    assert codec_of(str(small_model())) == "instruct"
    cached = tmp_path / "models--somebody--lora"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cached / "snapshots" / ("0" * 40) / "katsuo.json").write_text('{"codec": "bonito-v1"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert codec_of(str(small_model()), "somebody/lora") == "bonito-v1"
    assert codec_of("somebody/lora") == "bonito-v1"


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
