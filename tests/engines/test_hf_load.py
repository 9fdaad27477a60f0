"""Loading: adapters that fit are merged, those that do not are refused, and nothing but safetensors is read."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.hf.load import choose_device, load_model
from katsuo.engines.hf.lockstep import LockstepMemory
from katsuo.engines.hf.masks import additive_masks
from katsuo.engines.hf.memory import SlotMemory, shared_length
from katsuo.engines.hf.pack import is_packing_available, pack_linears
from katsuo.engines.hf.probe import open_memory
from katsuo.errors import ModelError
from katsuo.records import Passage, Prompt

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

CPU = EngineOptions(device="cpu")
TOKENS = torch.tensor([[1, 40, 41, 90, 200]])


def save_adapter(model_folder, folder, **changes):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **changes}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    wrapped.save_pretrained(folder)
    with torch.inference_mode():
        return wrapped(TOKENS).logits


def test_an_adapter_is_merged_and_gives_the_logits_of_base_and_adapter(tiny_model, tmp_path):
    expected = save_adapter(tiny_model("llama"), tmp_path / "adapter")
    loaded = load_model(EngineSettings(str(tiny_model("llama")), str(tmp_path / "adapter"), CPU))
    assert not any("lora" in name for name, _ in loaded.model.named_modules())
    with torch.inference_mode():
        assert torch.allclose(loaded.model(TOKENS).logits, expected, atol=1e-4)


def test_an_adapter_changes_what_the_engine_says_and_what_it_writes(tiny_model, tmp_path):
    save_adapter(tiny_model("llama"), tmp_path / "adapter")
    base = open_engine("hf", EngineSettings(str(tiny_model("llama")), None, CPU))
    tuned = open_engine("hf", EngineSettings(str(tiny_model("llama")), str(tmp_path / "adapter"), CPU))
    greedy = Sampling(temperature=0, max_new_tokens=12)
    asked = [Prompt("p", Passage("p", "", "file", 0, 0), "qa", 0, 0, text="in the inn")]
    assert base.generate(asked, greedy) != tuned.generate(asked, greedy)
    assert tuned.info.model == "llama + adapter"


def other_layers(folder, tiny_model):
    save_adapter(tiny_model("llama"), folder, layers_to_transform=[0])
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "layers_to_transform": None}))


def other_modules(folder, tiny_model):
    save_adapter(tiny_model("llama"), folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "target_modules": ["c_attn"]}))


def other_rank(folder, tiny_model):
    save_adapter(tiny_model("llama"), folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "r": 8}))


@pytest.mark.parametrize("make", [other_layers, other_modules, other_rank])
def test_an_adapter_of_another_model_is_refused(tiny_model, tmp_path, make):
    make(tmp_path / "adapter", tiny_model)
    with pytest.raises(ModelError, match="adapter"):
        load_model(EngineSettings(str(tiny_model("llama")), str(tmp_path / "adapter"), CPU))


def test_an_adapter_that_is_a_pickle_is_refused(tiny_model, tmp_path):
    save_adapter(tiny_model("llama"), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(EngineSettings(str(tiny_model("llama")), str(tmp_path / "adapter"), CPU))


def test_a_model_that_is_a_pickle_is_refused(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(EngineSettings(str(tmp_path / "model"), None, CPU))


def test_a_pickle_is_not_read_even_beside_safetensors_of_something_else(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "adapter_model.safetensors")
    torch.save(
        AutoModelForCausalLM.from_pretrained(tiny_model("llama")).state_dict(), tmp_path / "model" / "pytorch_model.bin"
    )
    with pytest.raises(ModelError, match="cannot load"):
        load_model(EngineSettings(str(tmp_path / "model"), None, CPU))


def test_a_cut_off_weights_file_is_refused(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        load_model(EngineSettings(str(tmp_path / "model"), None, CPU))


def test_a_model_with_code_of_its_own_is_refused_unless_asked_for(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    settings = json.loads(config.read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    config.write_text(json.dumps(settings))
    (tmp_path / "model" / "own.py").write_text("raise SystemExit('code of the model ran')\n")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(EngineSettings(str(tmp_path / "model"), None, CPU))


def test_an_unknown_device_is_refused():
    with pytest.raises(ModelError, match="no device"):
        choose_device("abacus")


def test_every_end_token_of_the_generation_settings_ends_a_row(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    settings = tmp_path / "model" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [0, 7]}))
    assert load_model(EngineSettings(str(tmp_path / "model"), None, CPU)).end_tokens == {0, 2, 7}


def test_slots_are_for_models_that_agree_with_them(tiny_model):
    assert isinstance(open_memory(load_model(EngineSettings(str(tiny_model("llama")), None, CPU)).model), SlotMemory)
    hybrid = load_model(EngineSettings(str(tiny_model("lfm2")), None, CPU)).model
    assert isinstance(open_memory(hybrid), LockstepMemory)


def test_a_model_that_gives_other_logits_by_slots_falls_back(tiny_model, monkeypatch):
    model = load_model(EngineSettings(str(tiny_model("llama")), None, CPU)).model
    monkeypatch.setattr(
        "katsuo.engines.hf.memory.additive_masks",
        lambda model, positions, visible: additive_masks(model, torch.ones_like(positions), visible),
    )
    assert isinstance(open_memory(model), LockstepMemory)


def test_a_sliding_window_hides_what_is_too_far_back(tiny_model):
    model = load_model(EngineSettings(str(tiny_model("gemma3_text")), None, CPU)).model
    masks = additive_masks(model, torch.tensor([[20], [3]]), 21)
    assert (masks["full_attention"] == 0).sum(-1).flatten().tolist() == [21, 4]
    assert (masks["sliding_attention"] == 0).sum(-1).flatten().tolist() == [12, 4]


@pytest.mark.skipif(not is_packing_available(), reason="this processor has no matrix units for bfloat16")
def test_packed_layers_give_the_same_numbers_and_other_formats_are_left_alone(tiny_model):
    model = load_model(EngineSettings(str(tiny_model("llama")), None, CPU)).model
    assert pack_linears(model) == 0
    model = model.to(torch.bfloat16)
    with torch.inference_mode():
        before = model(TOKENS).logits
        assert pack_linears(model) == 15
        assert torch.equal(model(TOKENS).logits, before)


def test_shared_beginnings_are_counted():
    import numpy

    one, other = numpy.array([1, 2, 3, 4]), numpy.array([1, 2, 9])
    assert shared_length(one, other) == 2
    assert shared_length(one, one[:3]) == 3
    assert shared_length(one, one[:0]) == 0
    assert shared_length(one, other[::-1]) == 0
