"""Export of a GGUF file, on a tiny Llama that the test itself writes as llama.cpp would."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from katsuo.errors import ModelError
from katsuo.models.export import export_gguf
from katsuo.models.gguf_files.layout import PER_LAYER, WHOLE

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["1 9", "Ġ 1", "h e"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
HEADS, KEY_HEADS = 4, 2


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


@pytest.fixture(scope="module")
def gguf_file(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, model)
    return path


@pytest.fixture(scope="module")
def folder(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    export_gguf(gguf_file, folder)
    return folder


def vocabulary() -> list[str]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*CONTROL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]


def write_gguf(path: Path, model: LlamaForCausalLM, *, architecture: str = "llama", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    tokens = vocabulary()
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {ours: theirs for theirs, ours in {**WHOLE, **PER_LAYER}.items()}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        parts = name.removesuffix(".weight").split(".")
        if parts[1] == "layers":
            target = f"blk.{parts[2]}.{names['.'.join(parts[3:])]}.weight"
        else:
            target = f"{names['.'.join(parts)]}.weight"
        writer.add_tensor(target, interleave(weight.float().numpy(), parts[-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(values: numpy.ndarray, name: str) -> numpy.ndarray:
    """Put rotary pairs side by side, as llama.cpp's converter does for query and key."""
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name)
    if heads is None:
        return values
    rows = values.shape[0]
    halves = values.reshape(heads, 2, rows // heads // 2, -1)
    return numpy.ascontiguousarray(halves.transpose(0, 2, 1, 3).reshape(rows, -1))


def test_the_exported_model_gives_the_logits_of_the_original(model, folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    tokens = torch.tensor([[1, 17, 30, 99, 2, 41]])
    with torch.inference_mode():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_every_exported_weight_is_bfloat16(folder):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}


def test_the_exported_model_carries_no_trace_of_quantization_and_can_be_saved_again(folder, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert "quantization_config" not in (folder / "config.json").read_text()
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").exists()


def test_digits_are_split_one_by_one_although_a_merge_would_join_them(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("he 1932") == ["he", "Ġ", "1", "9", "3", "2"]


def test_text_survives_the_exported_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "In 1932, Œuvre\n\n\tcost 12 € — <|pipe|>  twice"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_control_tokens_are_one_token_each_and_nothing_is_added_to_a_text(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("<|im_start|>!<|im_end|>").input_ids == [1, vocabulary().index("!"), 2]


def test_padding_equals_the_end_token_so_only_the_attention_mask_tells_them_apart(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    batch = tokenizer(["!<|im_end|>", "!!!!"], padding=True)
    assert batch.attention_mask[0] == [1, 1, 0, 0]
    assert batch.input_ids[0][1:] == [2, 2, 2]


def test_the_end_token_and_the_chat_template_are_exported(folder):
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|im_start|>hi<|im_end|>"


@pytest.mark.parametrize("changed", [{"architecture": "qwen2"}, {"pre": "llama-bpe"}])
def test_a_model_of_another_kind_is_refused_and_leaves_nothing_behind(model, tmp_path, changed):
    write_gguf(tmp_path / "other.gguf", model, **changed)
    with pytest.raises(ModelError, match="cannot be exported"):
        export_gguf(tmp_path / "other.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a readable GGUF"):
        export_gguf(tmp_path / "broken.gguf", tmp_path / "out")


def test_a_failed_export_leaves_no_half_folder(gguf_file, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("katsuo.models.export.save_file", broken)
    with pytest.raises(ModelError, match="no space"):
        export_gguf(gguf_file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(gguf_file, folder):
    with pytest.raises(ModelError, match="exists already"):
        export_gguf(gguf_file, folder)
