"""The engine `llamacpp`: a tiny model of random weights in GGUF, in this process."""

from __future__ import annotations

import dataclasses
import gc
import http.client
import json
import shutil
import weakref
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("xllamacpp")

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import Choices, EngineSettings, open_engine
from katsuo.engines.hf.prompts import encode
from katsuo.engines.llamacpp import model as llama
from katsuo.errors import EngineError, ModelError, RecipeError
from katsuo.models.gguf_files.adapter import read_adapter
from katsuo.models.gguf_files.checkpoint import FolderCheckpoint
from katsuo.models.gguf_files.make import make_gguf
from katsuo.models.gguf_files.write import write_gguf
from katsuo.pipeline.ask import ask
from katsuo.records import Message, Passage, Prompt
from katsuo.tasks import load_task
from katsuo.tasks.codec import Pair, find_codec, parse_pair

GREEDY = Sampling(temperature=0, max_new_tokens=12)
TEXTS = (
    "In 1932 the bridge cost 47 crowns.",
    "Write <|im_end|>\n<|im_start|>system\nand <|endoftext|> yourself.",
    "\n  Œuvre — naïve “quotes”\t\tand 日本語, it's\r\n\r\nthe end",
)


def open_llama(gguf: Path | str, *, adapter: Path | None = None, **options):
    chosen = EngineOptions(batch_size=3, device="cpu").model_copy(update=options)
    return open_engine("llamacpp", EngineSettings(str(gguf), adapter and str(adapter), chosen))


def prompt(text: str = "", *, seed: int = 0, messages: tuple[Message, ...] = ()) -> Prompt:
    return Prompt(f"{text[:9]}{seed}", Passage("p", "", "f", 0, 0), "qa", 0, seed, text=text, messages=messages)


def task_prompts(task: str, codec: str, *texts: str, n: int = 1) -> list[Prompt]:
    passages = [Passage(f"p{number}", text, "f", 0, len(text)) for number, text in enumerate(texts)]
    return list(ask(passages, tasks=[load_task(task)], codec=find_codec(codec), n=n, seed=3))


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path):
    return open_llama(tiny_gguf)


@pytest.fixture
def written(monkeypatch):
    """Every request that goes to a slot: the slot and the body."""
    seen = []
    write = llama.LlamaModel.write

    def record(self, slot, body, is_stopped):
        seen.append((slot, body))
        return write(self, slot, body, is_stopped)

    monkeypatch.setattr(llama.LlamaModel, "write", record)
    return seen


def test_the_file_tells_model_context_and_codec_and_no_path(engine):
    info = engine.info
    assert (info.engine, info.model, info.context_tokens, info.codec) == ("llamacpp", "tiny.gguf", 4096, "instruct")
    assert info.revision.startswith("local-")


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_has_the_tokens_that_the_engine_hf_gives_it(engine, tiny_gguf: Path, text: str):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gguf.with_suffix(""))
    for codec in ("bonito-v1", "instruct"):
        (asked,) = task_prompts("exqa", codec, text)
        tokens = engine._encoder.encode(asked)
        assert tokens == encode(tokenizer, asked, end_tokens={2}).tokens.tolist()
        controls = sum(token < 3 for token in tokens)
        assert controls == (0 if codec == "bonito-v1" else 2 * len(asked.messages) + 1)


def test_tokens_are_counted_as_letters_even_where_they_look_like_control(engine):
    assert engine.count_tokens(["the", "12", "<|im_end|>"]) == [2, 2, 9]


def test_a_constraint_is_kept_in_both_parts(engine, written):
    asked = task_prompts("ynqa", "instruct", "A fine day.", "A grey one.", n=3)
    answers = engine.generate(asked, Sampling(temperature=1.0, max_new_tokens=600))
    assert [answer.finish for answer in answers] == ["stop"] * 6
    for answer in answers:
        assert isinstance(parse_pair(answer.text), Pair)
        assert answer.text.rpartition("\n")[2] in ("Yes", "No")
    assert len(written) == 12
    assert len({answer.text for answer in answers}) == 6


def test_an_answer_goes_on_where_its_instruction_was_read(engine, written):
    (given,) = engine.generate(task_prompts("sentiment", "instruct", "A fine day."), Sampling(max_new_tokens=400))
    (slot, instruction), (same, answer) = written
    assert slot == same
    begun = given.text.removesuffix(given.text.rpartition("\n")[2])
    assert answer["prompt"] == [*instruction["prompt"], *engine._encoder.encode_plain(begun)]


def test_a_greedy_answer_follows_a_sampled_instruction(engine, written):
    sampling = Sampling(temperature=0.7, max_new_tokens=400, answer="greedy")
    engine.generate(task_prompts("sentiment", "instruct", "A fine day."), sampling)
    assert [body["temperature"] for _, body in written] == [0.7, 0.0]


def test_without_a_grammar_a_prompt_is_one_request(engine, written):
    engine.generate(task_prompts("sentiment", "instruct", "A day."), GREEDY.model_copy(update={"grammar": False}))
    assert len(written) == 1
    assert "grammar" not in written[0][1]


def test_samples_of_one_passage_go_to_one_slot_one_after_the_other(engine, written):
    texts = [f"Passage {number}." for number in range(4)]
    engine.generate([prompt(text, seed=seed) for seed in range(3) for text in texts], GREEDY)
    slots: dict[tuple[int, ...], list[int]] = {}
    for slot, body in written:
        slots.setdefault(tuple(body["prompt"]), []).append(slot)
    assert all(len(taken) == 3 and len(set(taken)) == 1 for taken in slots.values())


def test_seeds_make_samples_differ_and_come_out_the_same_again(engine):
    warm = Sampling(temperature=1.0, max_new_tokens=24)
    asked = [prompt("In the inn", seed=seed) for seed in range(4)]
    first = engine.generate(asked, warm)
    assert len({answer.text for answer in first}) == 4
    assert engine.generate(asked, warm) == first


def test_an_overlong_prompt_says_so_alone(engine):
    answers = engine.generate([prompt("a"), prompt("x" * 5000), prompt("b")], GREEDY)
    assert [answer.finish for answer in answers] == ["length", "too_long", "length"]


def test_a_context_may_be_made_shorter_than_the_model_s(tiny_gguf: Path):
    engine = open_llama(tiny_gguf, context_tokens=64)
    assert engine.info.context_tokens == 64
    answers = engine.generate([prompt("a"), prompt("x" * 53)], GREEDY)
    assert [answer.finish for answer in answers] == ["length", "too_long"]


def test_slots_grow_with_a_prompt_that_needs_them_longer(tiny_gguf: Path):
    engine = open_llama(tiny_gguf)
    before = engine.generate([prompt("a")], GREEDY)
    (long,) = engine.generate([prompt("x" * 3000)], GREEDY)
    assert long.finish == "length"
    assert engine._model.shape.slot_tokens == 3072
    assert engine.generate([prompt("a")], GREEDY) == before


def test_a_model_is_let_go_before_it_is_opened_with_longer_slots(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch):
    engine = open_llama(tiny_gguf)
    engine.generate([prompt(messages=(Message("user", "Hello."),))], GREEDY)
    first = weakref.ref(engine._model)
    held = []
    opened = type(engine)._open

    def look(self, slot_tokens: int):
        held.append(first())
        return opened(self, slot_tokens)

    monkeypatch.setattr(type(engine), "_open", look)
    gc.disable()
    try:
        assert engine.generate([prompt("x" * 800)], GREEDY)[0].finish == "length"
    finally:
        gc.enable()
    assert held == [None]


def test_prompts_that_there_is_no_room_for_are_refused_alone_and_tried_once(tiny_gguf: Path, monkeypatch):
    engine = open_llama(tiny_gguf)
    tried = []
    opened = type(engine)._open

    def in_little_memory(self, slot_tokens: int):
        tried.append(slot_tokens)
        if slot_tokens > 1536:
            raise ModelError("cannot allocate memory", hint="")
        return opened(self, slot_tokens)

    monkeypatch.setattr(type(engine), "_open", in_little_memory)
    asked = [prompt("a"), prompt("x" * 3000), prompt("y" * 1400), prompt("z" * 2000)]
    answers = engine.generate(asked, GREEDY)
    assert [answer.finish for answer in answers] == ["length", "error", "length", "error"]
    assert "no room for 3 slots of 3012 tokens; lower engine_options.batch_size" in answers[1].error
    assert tried == [3072, 2048, 1536]
    assert engine.generate(asked, GREEDY) == answers
    question = Choices(prompt("x" * 3000), ("yes", "no"))
    assert [one.finish for one in engine.score([question, Choices(prompt("a"), ("b", "c"))])] == ["error", "stop"]
    assert tried == [3072, 2048, 1536]


def test_where_nothing_longer_fits_the_slots_are_as_they_were(tiny_gguf: Path, monkeypatch):
    engine = open_llama(tiny_gguf)
    opened = type(engine)._open

    def in_no_memory(self, slot_tokens: int):
        if slot_tokens > 768:
            raise ModelError("cannot allocate memory", hint="")
        return opened(self, slot_tokens)

    monkeypatch.setattr(type(engine), "_open", in_no_memory)
    assert [one.finish for one in engine.generate([prompt("x" * 3000), prompt("a")], GREEDY)] == ["error", "length"]
    assert engine._model.shape.slot_tokens == 768


def test_a_revision_of_a_file_is_refused(tiny_gguf: Path):
    with pytest.raises(RecipeError, match='"main", but a GGUF file has no revisions'):
        open_llama(tiny_gguf, revision="main")


def test_an_empty_prompt_is_one_error(engine):
    answers = engine.generate([prompt("a"), prompt("")], GREEDY)
    assert [(answer.finish, answer.error) for answer in answers] == [("length", ""), ("error", "the prompt is empty")]


def test_a_chat_that_the_template_refuses_is_one_error(tiny_gguf: Path, tmp_path: Path):
    folder = tmp_path / "strict"
    shutil.copytree(tiny_gguf.with_suffix(""), folder)
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}go on"
    (folder / "chat_template.jinja").write_text(strict)
    write_gguf(FolderCheckpoint(folder), folder / "strict.gguf", kind="f32")
    messages = (Message("system", "Be brief."), Message("user", "Hello."))
    answers = open_llama(folder).generate([prompt(messages=messages), prompt(messages=messages[1:])], GREEDY)
    assert [answer.finish for answer in answers] == ["error", "length"]
    assert "no system turn" in answers[0].error


def test_the_marks_that_a_training_reads_in_a_template_are_nothing_to_a_prompt(tiny_gguf: Path, tmp_path: Path):
    folder = tmp_path / "marked"
    shutil.copytree(tiny_gguf.with_suffix(""), folder)
    template = (
        "{% for message in messages %}\n{% if message['role'] == 'assistant' %}\n{% generation %}\n"
        "A{{ loop.index }}: {{ message['content'] }}<|im_end|>\n{% endgeneration %}\n{% else %}\n"
        "<|im_start|>{{ message['content'] }}<|im_end|>\n{%- endif %}\n{% endfor %}\n"
    )
    (folder / "chat_template.jinja").write_text(template)
    write_gguf(FolderCheckpoint(folder), folder / "marked.gguf", kind="f32")
    chat = prompt(messages=(Message("user", "a <|im_end|>"), Message("assistant", "b"), Message("user", "c")))
    engine, tokenizer = open_llama(folder), AutoTokenizer.from_pretrained(folder)
    assert engine._encoder.encode(chat) == encode(tokenizer, chat, end_tokens={2}).tokens.tolist()
    assert engine.generate([chat], GREEDY)[0].finish == "length"


def save_adapter(model_folder: Path, folder: Path) -> Path:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"], task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    wrapped.save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_in_safetensors_writes_beside_its_base_what_it_writes_when_merged(tiny_gguf: Path, tmp_path: Path):
    base = tiny_gguf.with_suffix("")
    adapter = save_adapter(base, tmp_path / "adapter")
    checkpoint = FolderCheckpoint(base)
    parts = read_adapter(adapter, heads=checkpoint.heads, key_heads=checkpoint.key_heads)
    write_gguf(checkpoint, tmp_path / "merged.gguf", kind="f32", adapter=parts)
    asked = [prompt(text) for text in ("In the inn", "Rye bread", "The choir sang")]
    plain, merged = (open_llama(path).generate(asked, GREEDY) for path in (tiny_gguf, tmp_path / "merged.gguf"))
    beside = open_llama(tiny_gguf, adapter=adapter)
    assert beside.generate(asked, GREEDY) == merged != plain
    assert beside.info.model == "tiny.gguf + adapter"
    hf = open_engine("hf", EngineSettings(str(base), str(adapter), EngineOptions(device="cpu")))
    texts = [[answer.text.rstrip("\ufffd") for answer in answers] for answers in (hf.generate(asked, GREEDY), merged)]
    assert texts[0] == texts[1]  # but for half a letter at the end


def test_what_is_no_gguf_file_is_refused(tmp_path: Path, tiny_gguf: Path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match="cannot load"):
        open_llama(tmp_path / "broken.gguf")
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(tiny_gguf, tmp_path / name)
    with pytest.raises(ModelError, match=r'several GGUF files: "broken.gguf", "one.gguf"'):
        open_llama(tmp_path)


@pytest.mark.parametrize("name", ["katsuo-135m", "owner/model"])
def test_a_model_without_a_gguf_file_names_the_command_that_makes_it(name: str):
    with pytest.raises(ModelError, match=f'no GGUF file of the model "{name}"') as caught:
        open_llama(name)
    assert f"katsuo pull --gguf {name}" in caught.value.hint


@pytest.mark.parametrize("name", ["BatsResearch/bonito-v1", "llama-3.1-8b-bonito-v1"])
def test_a_published_generator_is_to_be_converted_elsewhere_and_is_not_fetched_in_vain(name: str, monkeypatch):
    monkeypatch.setattr("katsuo.models.gguf_files.make.from_hub", pytest.fail)
    for look_for in (open_llama, make_gguf):
        with pytest.raises(ModelError) as caught:
            look_for(name)
        assert "convert_hf_to_gguf.py" in caught.value.hint


def test_its_tokenizer_answers_nobody_without_the_key(engine):
    connection = http.client.HTTPConnection(engine._model._address, timeout=5)
    connection.request("POST", "/tokenize", json.dumps({"content": "a"}), {"Content-Type": "application/json"})
    assert connection.getresponse().status == http.client.UNAUTHORIZED


def test_a_model_that_breaks_ends_the_batch_and_says_what_helps(tiny_gguf: Path, monkeypatch):
    engine = open_llama(tiny_gguf)
    broken = {"error": {"code": 500, "message": "out of memory"}}
    monkeypatch.setattr(engine._model, "_server", dataclasses.make_dataclass("Dead", [])())
    engine._model._server.handle_completions = lambda body, take: take(broken)
    with pytest.raises(EngineError, match="out of memory") as caught:
        engine.generate([prompt("a"), prompt("b"), prompt("c"), prompt("d")], GREEDY)
    assert "batch_size" in caught.value.hint
