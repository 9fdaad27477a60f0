"""Tiny models with random weights, saved as real folders: every architecture the engine meets, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos import ChaosProxy
from servers import RunningServer, start_llama, write_tiny_gguf
from vllm_environment import find_or_install

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
WINDOW = 12
OWN_SETTINGS = {
    "llama with wide heads": {"hidden_size": 128, "head_dim": 32},
    "qwen2": {"use_sliding_window": False},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "gpt_neo": {"attention_types": [[["local"], 2]], "window_size": 24},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2},
    "mamba": {"intermediate_size": 128, "state_size": 8},
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def has_matrix_units() -> bool:
    """Say whether the processor multiplies in tiles (AMX), where a row is rounded the same beside any others."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "amx_tile" in cpuinfo.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny model of a type such as "llama", float32, the same one each time."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama") -> Path:
        if kind not in made:
            made[kind] = save_tiny_model(tmp_path_factory.mktemp("models") / kind, kind)
        return made[kind]

    return make


def save_tiny_model(folder: Path, kind: str) -> Path:
    """Write a random model and a byte-level tokenizer to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(kind.partition(" ")[0], **{**SIZES, **OWN_SETTINGS.get(kind, {})})
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            # Larger than the library's start, so that what stands in the prompt matters for what comes next.
            torch.nn.init.normal_(weight, std=0.4 if "embed" in name or "lm_head" in name else 0.15)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer of 3 control tokens, 256 bytes and a few merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = [
        ("Ċ", "e"),
        ("Ġ", "t"),
        ("h", "e"),
        ("Ġt", "he"),
        ("i", "n"),
        (">", "Ċ"),
        ("Ċ", "<"),
        ("|", ">"),
        ("|>", "Ċ"),
    ]
    tokens = [*control, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_gguf(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a tiny model, of 4096 tokens."""
    return write_tiny_gguf(tiny_model("llama"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def llama_server(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """llama.cpp's own server with a tiny model."""
    pytest.importorskip("xllamacpp")
    server = start_llama(tiny_gguf, tmp_path_factory.mktemp("server") / "log.txt")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def vllm_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that has vLLM, named by `KATSUO_TEST_VLLM_PYTHON` or made here."""
    return find_or_install(tmp_path_factory.mktemp("vllm") / "environment")


@pytest.fixture
def chaos(llama_server: RunningServer) -> Iterator[ChaosProxy]:
    """A proxy before that server, which does no harm until it is told to."""
    proxy = ChaosProxy(llama_server.address)
    yield proxy
    proxy.close()
