"""The engine `hf` on tiny random models: the same words as transformers alone, for every architecture."""

from __future__ import annotations

import dataclasses
import re
import shutil

import pytest
import torch
from jinja2 import TemplateError
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import Choices, EngineSettings, open_engine
from katsuo.engines.chats import pieces, stand_ins
from katsuo.engines.hf.lockstep import LockstepMemory
from katsuo.engines.hf.memory import SlotMemory
from katsuo.errors import EngineError, ModelError
from katsuo.records import Message, Passage, Prompt

GREEDY = Sampling(temperature=0, max_new_tokens=20)
WARM = Sampling(temperature=0.7, top_p=0.95, max_new_tokens=20)
TEXTS = ["In the inn", "a", "the " * 20 + "end", "x" * 45, "the " * 20 + "start", "Q: who? A:", "0123456789" * 3]


def prompt(text: str, *, seed: int = 0, messages: tuple[Message, ...] = ()) -> Prompt:
    passage = Passage("p", "", "file", 0, 0)
    return Prompt("p", passage, "qa", 0, seed, text="" if messages else text, messages=messages)


def prompts(*, seed: int = 0) -> list[Prompt]:
    return [prompt(text, seed=seed + number) for number, text in enumerate(TEXTS)]


def open_hf(folder, **options):
    return open_engine("hf", EngineSettings(model=str(folder), options=EngineOptions(device="cpu", **options)))


@pytest.fixture(scope="module")
def engine(tiny_model):
    return open_hf(tiny_model("llama"), batch_size=3)


@torch.inference_mode()
def by_transformers(folder, text: str, count: int) -> list[int]:
    """Take the likeliest token again and again, with no cache at all."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    start = tokens.shape[1]
    while tokens.shape[1] < start + count and (tokens.shape[1] == start or tokens[0, -1] != 2):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokens[0, start:].tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma2", "gemma3_text", "lfm2"])
def test_greedy_words_are_those_of_the_model_alone(tiny_model, kind):
    engine = open_hf(tiny_model(kind), batch_size=3)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(kind))
    expected_memory = LockstepMemory if kind == "lfm2" else SlotMemory
    assert type(engine._decoder.memory) is expected_memory
    for text, completion in zip(TEXTS, engine.generate(prompts(), GREEDY), strict=True):
        expected = by_transformers(tiny_model(kind), text, GREEDY.max_new_tokens)
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert completion.new_tokens == len(expected)


def test_an_empty_batch_gives_an_empty_list(engine):
    assert engine.generate([], WARM) == []


def test_raw_and_chat_prompts_mix_in_one_batch_and_keep_their_order(engine):
    chat = (Message("system", "Be brief."), Message("user", "In the inn"))
    as_text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIn the inn<|im_end|>\n<|im_start|>assistant\n"
    mixed = [prompt("a", seed=1), prompt("", messages=chat, seed=2), prompt("x" * 45, seed=3)]
    together = engine.generate(mixed, WARM)
    assert together == [engine.generate([one], WARM)[0] for one in mixed]
    assert engine.count_tokens([as_text])[0] > len("Be brief.In the inn")


def test_a_prompt_that_does_not_fit_says_so_alone(engine):
    longest = 512 - WARM.max_new_tokens
    lengths = [5, longest + 1, longest]
    answers = engine.generate([prompt("x" * length) for length in lengths], WARM)
    assert [answer.finish == "too_long" for answer in answers] == [False, True, False]


def test_an_empty_prompt_is_one_error_and_no_crash(engine):
    answers = engine.generate([prompt("x"), prompt("")], WARM)
    assert [answer.finish for answer in answers][1] == "error"
    assert answers[0].new_tokens > 0


def test_max_new_tokens_ends_a_row_with_length(engine):
    for answer in engine.generate(prompts(), WARM):
        assert answer.finish == "stop" or (answer.finish == "length" and answer.new_tokens == WARM.max_new_tokens)


def test_same_seed_same_row_whatever_the_batch_and_the_order(tiny_model):
    asked = [dataclasses.replace(one, seed=number) for number, one in enumerate(prompts() * 3)]
    alone = [open_hf(tiny_model("llama"), batch_size=1).generate([one], WARM)[0] for one in asked[:4]]
    in_eights = open_hf(tiny_model("llama"), batch_size=8).generate(asked, WARM)
    shuffled = list(reversed(asked))
    in_threes = open_hf(tiny_model("llama"), batch_size=3).generate(shuffled, WARM)
    assert in_eights[:4] == alone
    assert list(reversed(in_threes)) == in_eights


def test_another_seed_gives_another_row(engine):
    first, second = engine.generate(prompts(seed=0), WARM), engine.generate(prompts(seed=100), WARM)
    assert all(one.text != other.text for one, other in zip(first, second, strict=True))


def test_the_same_call_twice_gives_the_same_rows_although_slots_are_warm(engine):
    assert engine.generate(prompts(), WARM) == engine.generate(prompts(), WARM)


def test_samples_of_one_prompt_differ_and_read_the_prompt_once(tiny_model):
    engine = open_hf(tiny_model("llama"), batch_size=4)
    before = engine._decoder.memory.prompt_tokens_read
    answers = engine.generate([prompt("z" * 60, seed=seed) for seed in range(4)], WARM)
    assert len({answer.text for answer in answers}) == 4
    assert engine._decoder.memory.prompt_tokens_read - before == 59


def test_a_shared_beginning_is_read_once_and_changes_no_word(tiny_model):
    opening = (Message("system", "the rules of the game are " * 4), Message("user", "Q"), Message("assistant", "A"))
    asked = [
        prompt("", seed=number, messages=(*opening, Message("user", ending)))
        for number, ending in enumerate(("one", "two two", "three", "4"))
    ]
    alone = [open_hf(tiny_model("gemma3_text"), batch_size=1).generate([one], WARM)[0] for one in asked]
    engine = open_hf(tiny_model("gemma3_text"), batch_size=4)
    assert engine.generate(asked, WARM) == alone
    opening_tokens = engine._loaded.tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in opening], return_dict=False
    )
    assert engine._decoder.memory.prompt_tokens_shared == 3 * len(opening_tokens)


def test_control_tokens_inside_a_message_or_a_text_are_plain_text(engine):
    from katsuo.engines.hf.prompts import encode

    tokenizer = engine._loaded.tokenizer
    chat = encode(tokenizer, prompt("", messages=(Message("user", "a<|im_end|>b"),)), end_tokens={2}).tokens
    assert list(chat).count(2) == 1
    assert 2 not in encode(tokenizer, prompt("a<|im_end|>b"), end_tokens={2}).tokens
    plain = encode(tokenizer, prompt("", messages=(Message("user", "ab"),)), end_tokens={2}).tokens
    assert list(plain) == tokenizer("<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n").input_ids


def test_a_control_token_without_a_role_is_plain_text_in_a_message_too(tiny_model):
    from katsuo.engines.hf.prompts import encode

    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True)], special_tokens=False)
    own = tokenizer.convert_tokens_to_ids("<|turn|>")
    assert own in tokenizer("a<|turn|>b").input_ids
    assert own not in encode(tokenizer, prompt("", messages=(Message("user", "a<|turn|>b"),)), end_tokens={2}).tokens


def test_the_messages_of_a_chat_stand_where_its_template_puts_them():
    one, two, three = stand_ins(3)
    rendered = f"<u>{two}</u>{three}<u>{one}: {two}</u>"
    told = list(pieces(rendered, ["first", " second ", "third"]))
    assert [text for text, _ in told] == ["<u>", "second", "</u>", "third", "<u>", "first", ": ", "second", "</u>"]
    assert [is_own for _, is_own in told] == [True, False] * 4 + [True]
    with pytest.raises(TemplateError, match="leaves out message 2 of 3"):
        list(pieces(f"{one}{three}", ["first", "second", "third"]))


def test_a_tokenizer_with_more_tokens_than_the_model_has_logits_can_be_asked(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    tokenizer.add_tokens([f"<extra{number}>" for number in range(100)])
    tokenizer.save_pretrained(tmp_path / "m")
    found = open_hf(tmp_path / "m", batch_size=3).generate(prompts(), WARM)
    usual = open_hf(tiny_model("llama"), batch_size=3).generate(prompts(), WARM)
    # The model has logits for some of the added tokens, which are texts now.
    assert [re.sub("<extra[0-9]+>", "", one.text) for one in found] == [one.text for one in usual]


def test_a_chat_with_a_model_without_a_template_says_what_to_do(tiny_model):
    engine = open_hf(tiny_model("llama"), batch_size=2)
    engine._loaded.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        engine.generate([prompt("", messages=(Message("user", "a"),))], WARM)


def test_a_model_that_keeps_its_past_in_its_own_way_is_refused_by_name(tiny_model):
    with pytest.raises(ModelError, match='models of type "mamba"'):
        open_hf(tiny_model("mamba"), batch_size=2).generate(prompts(), WARM)


def test_logits_that_are_no_numbers_are_an_error_and_no_answer(tiny_model):
    engine = open_hf(tiny_model("llama"), batch_size=2)
    engine._loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(EngineError, match="not numbers") as caught:
        engine.generate(prompts(), WARM)
    assert "bfloat16" in caught.value.hint
    with pytest.raises(EngineError, match="not numbers"):
        engine.score([Choices(prompt("In the inn"), ("yes", "no"), has_end=False)])


def test_tokens_are_counted_without_marks_of_beginning_and_end(engine):
    assert engine.count_tokens([]) == []
    assert engine.count_tokens(["", "xyz", "the the"]) == [0, 3, 3]


def test_the_engine_says_which_model_it_holds(engine, tiny_model):
    info = engine.info
    assert (info.engine, info.model, info.codec, info.context_tokens) == (
        "hf",
        "llama",
        "instruct",
        512,
    )
    assert info.revision


def test_a_chat_that_the_template_refuses_is_one_error(tiny_model):
    engine = open_hf(tiny_model("llama"), batch_size=2)
    engine._loaded.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    )
    refused, taken = (Message("system", "s"), Message("user", "a")), (Message("user", "a"),)
    answers = engine.generate([prompt("", messages=refused), prompt("", messages=taken)], WARM)
    assert answers[0].finish == "error"
    assert "no system" in answers[0].error
    assert answers[1].new_tokens


def test_rows_that_end_early_make_room_and_the_others_keep_their_place(tiny_model, monkeypatch):
    engine = open_hf(tiny_model("llama"), batch_size=4)
    object.__setattr__(engine._decoder, "end_tokens", frozenset(range(0, 320, 9)))
    asked = [dataclasses.replace(one, seed=number) for number, one in enumerate(prompts() * 3)]
    together = engine.generate(asked, WARM)
    assert len({answer.new_tokens for answer in together}) > 5
    assert together == [engine.generate([one], WARM)[0] for one in asked]


def test_a_model_that_says_nothing_of_its_codec_can_still_be_asked(tiny_model, tmp_path):
    shutil.copytree(tiny_model("llama"), tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    engine = open_hf(tmp_path / "base")
    assert engine.info.codec == "unknown"
    assert engine.generate([prompt("a")], WARM)[0].new_tokens


def test_running_out_of_memory_names_the_setting_that_helps(engine, monkeypatch):
    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(engine._decoder.memory, "step", broken)
    with pytest.raises(EngineError, match="batch_size"):
        engine.generate(prompts(), WARM)
    monkeypatch.undo()
    assert len(engine.generate(prompts(), WARM)) == len(TEXTS)


@pytest.mark.engine
def test_same_seed_same_row_with_the_embedded_model(embedded_model, has_matrix_units):
    """In bfloat16 where the processor has matrix units; elsewhere its rounding parts rows, and float32 has to do."""
    dtype = "bfloat16" if has_matrix_units else "float32"
    text = "The bridge over the bay opened in 1932 and is 503 m long. " * 3
    asked = [prompt(text[: 60 + 12 * number], seed=number) for number in range(8)]
    sampling = WARM.model_copy(update={"max_new_tokens": 24})
    alone = open_hf(embedded_model, batch_size=1, dtype=dtype).generate(asked, sampling)
    together = open_hf(embedded_model, batch_size=5, dtype=dtype).generate(asked[::-1], sampling)
    assert together[::-1] == alone


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="safetensors"):
        open_hf(tmp_path)
