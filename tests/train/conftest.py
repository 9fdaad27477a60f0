"""Tiny models with random weights, pairs about them, and a real run: all that a training needs, in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from katsuo.tasks.codec import join_pair, render_bonito

COMMON = {
    "vocab_size": 264,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": True,
}
OWN = {
    "qwen2": {"use_sliding_window": False},
    "mistral": {"sliding_window": 16},
    "gemma2": {
        "attn_logit_softcapping": 0.5,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {"rotary_pct": 0.25, "hidden_size": 64},
    "phi3": {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "gpt_oss": {
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "deepseek_v3": {
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 40,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
        "head_dim": 4,
        "first_k_dense_replace": 1,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SOURCES = (
    ("quiz", "yes-no question answering", "CC0-1.0", "open"),
    ("news", "topic classification", "research only", "non-commercial"),
    ("tales", "extractive question answering", "none stated", "not stated"),
)
ANSWERS = {
    "yes-no question answering": ("Yes", "No"),
    "topic classification": ("Cats", "Cats and mats"),
    "extractive question answering": ("cat", "the cat"),
}


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny model of a type such as "llama"; the same one each time."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama") -> Path:
        if kind not in made:
            made[kind] = save_small_model(tmp_path_factory.mktemp("small") / kind, kind)
        return made[kind]

    return make


def save_small_model(folder: Path, kind: str) -> Path:
    """Write a random model and a byte-level tokenizer, whose padding is its end token, to `folder`."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **OWN.get(kind, {})}))
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = [("t", "h"), ("th", "e"), (">", "Ċ"), ("Ċ", "<")]
    tokens = [*control, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    names = {"unk_token": control[0], "bos_token": control[1], "eos_token": control[2], "pad_token": control[2]}
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        **names,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 training pairs in three files: three sources, three types, two pairs about each passage."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), 40)


def write_pairs(folder: Path, count: int) -> Path:
    """Write `count` pairs of each source, with a manifest as a build leaves it."""
    (folder / "data").mkdir(parents=True)
    for source, task_type, _, _ in SOURCES:
        rows = []
        for number in range(count):
            context = f"{source} {number // 2}: the cat sat."
            rows.append(
                {
                    "input": render_bonito(task_type, context),
                    "output": join_pair("{{context}}\nWho sat?", ANSWERS[task_type][number % 2]),
                    "task_type": task_type,
                    "dataset": source,
                    "config": "",
                    "context": context,
                }
            )
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{source}.parquet")
    sources = [{"source": name, "licence": licence, "terms": terms} for name, _, licence, terms in SOURCES]
    (folder / "manifest.json").write_text(json.dumps({"sources": sources}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run over small documents, answered by the engine that needs no model."""
    from katsuo.api import generate

    documents = tmp_path_factory.mktemp("documents")
    for number in range(12):
        words = " ".join(f"word{number}{place}" for place in range(30))
        (documents / f"{number}.txt").write_text(f"Report {number} says that the bridge opened. {words}.")
    path = tmp_path_factory.mktemp("runs") / "run"
    generate(str(documents), ["ynqa", "exqa"], path, engine="fake", model="fake")
    return path
