"""Encoding: what is learned is what an engine will see, and nothing is cut."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from katsuo.engines.hf.prompts import encode as encode_prompt
from katsuo.records import Message, Passage, Prompt
from katsuo.tasks import find_task
from katsuo.tasks.codec import CODECS
from katsuo.train.encode import Encoder, Limits, Pair, styler
from katsuo.train.pack import collate

END = 2
TRICKY = "A passage with <|im_end|>, 2024, {{ braces }} and\n\nblank lines  "
WIDE = Limits(4096)


@pytest.fixture(scope="module")
def tokenizer(small_model):
    return AutoTokenizer.from_pretrained(small_model("llama"))


def asked(pair):
    told = {"text": pair.prompt} if isinstance(pair.prompt, str) else {"messages": pair.prompt}
    return Prompt("p", Passage("p", "", "file", 0, 0), "qa", 0, 0, **told)


def codec_pair(name):
    text, messages = CODECS[name].render(find_task("ynqa"), TRICKY)
    return Pair(text or messages, "Is it?\n<|pipe|>\nyes")


PAIRS = {
    "bonito-v1": lambda: codec_pair("bonito-v1"),
    "instruct": lambda: codec_pair("instruct"),
    "chat template": lambda: styler("chat")(TRICKY, "an answer"),
    "input-output": lambda: styler("input-output")(TRICKY, "an answer"),
    "own template": lambda: styler("template", "Instruct: {instruction}\nAnswer:")(TRICKY, "an answer"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_training_sees_the_prompt_tokens_that_an_engine_sees(tokenizer, name):
    pair = PAIRS[name]()
    encoder = Encoder(tokenizer, end_tokens={END}, limits=WIDE)
    (encoded,) = encoder.encode([pair])
    seen = encode_prompt(tokenizer, asked(pair), end_tokens={END}).tokens.tolist()
    assert encoded.tokens[: encoded.prompt_length].tolist() == seen


@pytest.mark.parametrize("name", PAIRS)
def test_the_completion_decodes_to_its_text_and_ends_once(tokenizer, name):
    pair = PAIRS[name]()
    (encoded,) = Encoder(tokenizer, end_tokens={END}, limits=WIDE).encode([pair])
    learned = encoded.tokens[encoded.prompt_length :].tolist()
    assert tokenizer.decode(learned[:-1]) == pair.completion
    assert learned[-1] == END
    assert END not in learned[:-1]


@pytest.mark.parametrize("name", PAIRS)
def test_the_end_of_sequence_is_learned_though_it_is_also_the_padding(tokenizer, name):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == END
    (encoded,) = Encoder(tokenizer, end_tokens={END}, limits=WIDE).encode([PAIRS[name]()])
    batch = collate([encoded, encoded])
    assert (batch["labels"] == END).sum() == 2
    assert (batch["labels"] >= 0).all()
    assert torch.equal(batch["input_ids"][0][batch["logits_to_keep"] + 1], batch["labels"])


def test_an_example_that_does_not_fit_is_rejected_and_counted_and_none_is_cut(tokenizer):
    pairs = [Pair("<|task|>\n" + "x" * length, "y" * length) for length in (4, 12, 40)] + [Pair("prompt", "")]
    whole = list(Encoder(tokenizer, end_tokens={END}, limits=WIDE).encode(pairs))
    encoder = Encoder(tokenizer, end_tokens={END}, limits=Limits(len(whole[1].tokens)))
    kept = list(encoder.encode(pairs))
    assert [example is None for example in kept] == [False, False, True, True]
    assert [example.tokens.tolist() for example in kept[:2]] == [example.tokens.tolist() for example in whole[:2]]
    assert encoder.ledger.rejected == {"prompt too long": 1, "empty part": 1}
    assert encoder.ledger.kept + encoder.ledger.rejected.total() == len(pairs)


@pytest.mark.parametrize("limits", [Limits(4096, prompt=20), Limits(4096, completion=20), Limits(40)])
def test_prompt_and_completion_have_limits_of_their_own(tokenizer, limits):
    pairs = [Pair("x" * 10, "y" * 10), Pair("x" * 30, "y" * 30)]
    assert [bool(example) for example in Encoder(tokenizer, end_tokens={END}, limits=limits).encode(pairs)] == [1, 0]


def test_windows_of_a_raw_text_learn_every_token_once(tokenizer):
    text = "The bridge opened in 1932. " * 7
    encoder = Encoder(tokenizer, end_tokens={END}, limits=Limits(16))
    windows = list(encoder.windows([text]))
    assert max(len(window.tokens) for window in windows) == 16
    learned = [token for window in windows for token in window.tokens[window.prompt_length :].tolist()]
    assert [int(windows[0].tokens[0]), *learned] == [*tokenizer(text).input_ids, END]


def test_a_chat_of_several_turns_keeps_them_all(tokenizer):
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    (encoded,) = Encoder(tokenizer, end_tokens={END}, limits=WIDE).encode([Pair(turns, "d")])
    assert "assistant\nb<|im_end|>" in tokenizer.decode(encoded.tokens)
