"""Scoring on tiny random models: the numbers of the model alone, whatever is shared, padded or batched."""

from __future__ import annotations

import shutil

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from katsuo.config import EngineOptions
from katsuo.engines import CanScore, Choices, EngineSettings, open_engine
from katsuo.engines.hf.tree import Path, grow, part
from katsuo.records import Message, Passage, Prompt

NOWHERE = Passage("", "", "", 0, 0)
PASSAGE = "the inn on the hill " * 4
TEXTS = [
    PASSAGE + "Q: who?",
    PASSAGE + "Q: where is the inn?",
    PASSAGE,
    "x",
    "In the inn",
    "z" * 70,
    PASSAGE + "Q: who?",
]
ANSWERS = [
    ("yes", "no", "may be"),
    ("here", "here and there"),
    ("a",),
    ("yes", "no"),
    ("in", "in the", "out"),
    ("b", "c"),
]


def ask(text: str, answers: tuple[str, ...], *, has_end: bool = True, is_chat: bool = False) -> Choices:
    messages = (Message("user", text),) if is_chat else ()
    return Choices(Prompt("", NOWHERE, "", 0, 0, text="" if is_chat else text, messages=messages), answers, has_end)


def questions(**how) -> list[Choices]:
    return [ask(text, ANSWERS[place % len(ANSWERS)], **how) for place, text in enumerate(TEXTS)]


def open_hf(folder, **options):
    return open_engine("hf", EngineSettings(str(folder), options=EngineOptions(device="cpu", **options)))


@torch.inference_mode()
def by_transformers(folder, question: Choices, *, dtype=torch.float32) -> list[float]:
    """Read every prompt with every answer alone, from the first token to the last."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, found = question.prompt, []
    if prompt.messages:
        chat = [{"role": message.role, "content": message.content} for message in prompt.messages]
        start = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)).input_ids
    else:
        start = tokenizer(prompt.text).input_ids
    for answer in question.answers:
        end = [2] if question.has_end else []
        tokens = start + tokenizer(answer, add_special_tokens=False).input_ids + end
        logs = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        found.append(sum(float(logs[step - 1, tokens[step]]) for step in range(len(start), len(tokens))))
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma2", "gemma3_text", "lfm2", "gpt_neo", "mpt"])
@pytest.mark.parametrize("has_end", [True, False])
def test_scores_are_those_of_the_model_alone(tiny_model, kind, has_end):
    engine = open_hf(tiny_model(kind))
    assert isinstance(engine, CanScore)
    asked = questions(has_end=has_end)
    for question, scores in zip(asked, engine.score(asked), strict=True):
        assert scores.finish == "stop"
        assert scores.log_probabilities == pytest.approx(by_transformers(tiny_model(kind), question), abs=2e-4)
    assert engine._scorer.scorer.is_sharing == (kind not in ("lfm2", "gpt_neo", "mpt"))


def test_logits_that_are_scaled_after_the_last_layer_are_scored_as_the_model_gives_them(tiny_model):
    engine = open_hf(tiny_model("llama"))
    model, question = engine._loaded.model, ask("In the inn", ("yes", "no"))
    plain = engine.score([question])[0].log_probabilities
    forward = model.forward

    def scaled(**told):
        output = forward(**told)
        output.logits = output.logits * 0.1
        return output

    model.forward, engine._scorer = scaled, None
    found = engine.score([question])[0].log_probabilities
    tokenizer, expected = engine._loaded.tokenizer, []
    start = tokenizer(question.prompt.text).input_ids
    for answer in question.answers:
        tokens = [*start, *tokenizer(answer, add_special_tokens=False).input_ids, 2]
        with torch.inference_mode():
            logs = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected.append(sum(float(logs[step - 1, tokens[step]]) for step in range(len(start), len(tokens))))
    assert found == pytest.approx(expected, abs=2e-4)
    assert found != pytest.approx(plain, abs=0.1)


def test_a_chat_is_scored_up_to_the_end_of_its_turn(tiny_model):
    engine = open_hf(tiny_model("llama"))
    asked = questions(is_chat=True)
    for question, scores in zip(asked, engine.score(asked), strict=True):
        assert scores.log_probabilities == pytest.approx(by_transformers(tiny_model("llama"), question), abs=2e-4)


@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_scores_do_not_move_with_batch_size_or_order(tiny_model, kind):
    asked = questions()
    alone = [open_hf(tiny_model(kind), batch_size=1).score([question])[0] for question in asked]
    for size in (1, 2, 7, 32):
        engine = open_hf(tiny_model(kind), batch_size=size)
        together = engine.score(asked[::-1])[::-1]
        assert engine._scorer.scorer.is_sharing == (kind == "llama")
        for one, other in zip(alone, together, strict=True):
            assert one.tokens == other.tokens
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


def test_what_answers_and_templates_share_is_read_once(tiny_model):
    engine = open_hf(tiny_model("llama"))
    engine.score(questions()[:2])
    read = engine._scorer.scorer.tokens_read
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    shared = len(tokenizer(PASSAGE).input_ids)
    assert shared < read < 2 * shared


def test_a_question_that_cannot_be_scored_says_so_alone(tiny_model):
    engine = open_hf(tiny_model("llama"))
    asked = [ask("x" * 511, ("a" * 9,)), ask("x", ("",)), ask("x", ()), ask("x", ("a", "b"))]
    assert [scores.finish for scores in engine.score(asked)] == ["too_long", "error", "error", "stop"]
    assert engine.score([]) == []


def test_a_text_without_a_prompt_is_scored_from_its_first_token(tiny_model):
    (scores,) = open_hf(tiny_model("llama")).score([ask("", ("the inn",), has_end=False)])
    expected = by_transformers(tiny_model("llama"), ask("<|im_end|>", ("the inn",), has_end=False))
    assert scores.log_probabilities == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_answers_do_not_tie_for_want_of_bits(tiny_model, kind):
    letters = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    asked = ask("the inn on the hill", letters, has_end=False)
    (ours,) = open_hf(tiny_model(kind), dtype="bfloat16").score([asked])
    alone = by_transformers(tiny_model(kind), asked, dtype=torch.bfloat16)
    assert len(set(alone)) < len(letters)
    assert len(set(ours.log_probabilities)) == len(letters)
    (exact,) = open_hf(tiny_model(kind)).score([asked])
    gaps = numpy.abs(numpy.subtract(ours.log_probabilities, exact.log_probabilities))
    assert gaps.max() < 0.3


def test_a_control_token_in_an_answer_is_plain_text(tiny_model):
    engine = open_hf(tiny_model("llama"))
    plain, control = engine.score([ask("x", ("a<|im_end|>",), has_end=False), ask("x", ("a",), has_end=True)])
    assert plain.tokens > control.tokens
    assert engine.end_text(is_chat=False) == "<|im_end|>"


def test_a_chat_may_end_otherwise_than_a_raw_answer(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }} over<|im_end|>\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    engine = open_hf(folder)
    assert engine.end_text(is_chat=False) == "<|im_end|>"
    assert engine.end_text(is_chat=True) == " over<|im_end|>"


def path(*tokens: int, start: int = 1, place: int = 0) -> Path:
    return Path(numpy.array(tokens, dtype=numpy.int64), start, place)


def test_a_tree_holds_each_shared_token_once_and_scoring_ones_last():
    tree = grow(
        [path(1, 2, 3, 4, start=2, place=0), path(1, 2, 3, 5, start=2, place=1), path(1, 2, 6, start=2, place=2)]
    )
    assert sorted(tree.tokens.tolist()) == [1, 2, 3]
    assert tree.scoring == 2
    assert tree.tokens.tolist() == [1, 2, 3]
    assert tree.sees.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert sorted(map(tuple, tree.marks.tolist())) == [(1, 3, 0), (1, 3, 1), (1, 6, 2), (2, 4, 0), (2, 5, 1)]


def test_answers_of_one_question_stay_in_one_tree_and_strangers_do_not():
    prompt = tuple(range(10, 40))
    answers = [path(*prompt, 1, place=0, start=30), path(*prompt, 2, 3, place=1, start=30)]
    stranger = path(*range(50, 90), start=39, place=2)
    assert sorted(len(group) for group in part([*answers, stranger], largest=8)) == [1, 2]
    near = path(*prompt[:25], 5, 5, start=26, place=3)
    assert [len(group) for group in part([*answers, near], largest=64)] == [3]
    assert sorted(len(group) for group in part([*answers, near], largest=30)) == [1, 2]
