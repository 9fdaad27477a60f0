"""`examples/preference_training.py`: what the grammar changes is preferred, from the token on where the two part."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from katsuo.tasks.codec import join_pair, render_bonito
from katsuo.train.encode import Encoder, Limits
from katsuo.train.pack import ATTENTION
from katsuo.train.recipes import Adapter
from katsuo.train.weights import lora

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSAGE = "The ferry leaves at nine. Dogs travel free."
PROMPT = render_bonito("extractive question answering", PASSAGE)
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import preference_training

    yield preference_training
    for name in ("preference_training", "self_training"):
        sys.modules.pop(name)


@pytest.fixture
def encoder(small_model):
    return Encoder(AutoTokenizer.from_pretrained(small_model()), end_tokens={2}, limits=Limits(400))


def answer(response):
    return join_pair("{{context}}\nWhen does the ferry leave?", response)


def listed(*options):
    lines = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=False))
    return join_pair(f"{{{{context}}}}\nWhen does it leave?\n{lines}", "A")


def test_rows_are_right_or_preferred_or_left_out_with_a_reason(script, encoder):
    def row(short, free, fault="", forced=None, forced_fault="", *, is_whole=True):
        return script.Asked(short, PROMPT, free, is_whole, fault, forced, forced_fault)

    rows = [
        row("exqa", answer("nine")),
        row("exqa", answer("ten"), "span not in passage", answer("at nine")),
        row("exqa", answer("ten"), "span not in passage", answer("leave"), "answer stands in instruction"),
        row("mcqa", listed("at nine", "at ten in the morning", "at ten in the morning .")),
        row("mcqa", listed("nine", "nine"), "no options in instruction", listed("nine", "ten")),
        row("exqa", "x" * 500, "finished by length", answer("nine"), is_whole=False),
        row("exqa", "x" * 500),
    ]
    preferences, right, left_out = script.sort_rows(rows, encoder)
    assert (len(preferences), len(right)) == (3, 1)
    reasons = ["answer stands in instruction", "options that say nearly the same", "too long"]
    assert left_out == dict.fromkeys(reasons, 1)
    for one in preferences:
        preferred, refused = one.preferred.tokens.tolist(), one.refused.tokens.tolist()
        assert preferred[: one.parting] == refused[: one.parting]
        assert preferred[one.parting] != refused[one.parting]
        assert one.parting >= one.preferred.prompt_length
        assert len(refused) <= one.parting + script.WINDOW
        # Both ends of sequence are learned, but where the refused one had none.
        assert preferred[-1] == 2
    assert [one.refused.tokens[-1] == 2 for one in preferences] == [True, True, False]


def test_right_pairs_of_few_labels_are_level_and_nothing_else_is_left_out(script):
    def row(short, label, fault=""):
        return script.Asked(short, PROMPT, answer(label), True, fault, None)

    yes, no = [row("ynqa", label) for label in ("Yes", "True", "yes")], [row("ynqa", "False")]
    nli = [row("nli", label) for label in ("Never", "Always", "Maybe", "Inconclusive")]
    others = [
        row("ynqa", "Yes", "answer not in choices"),
        row("ynqa", "Yes", "answer not in choices"),
        row("exqa", "Yes"),
    ]
    kept = script.level([*yes, row("ynqa", "Maybe"), *no, *nli, *others])
    assert kept == [*others, yes[0], no[0], *nli[:3]]


def test_the_loss_is_that_of_the_paper_over_the_window(script, encoder, small_model, monkeypatch):
    monkeypatch.setattr(script, "WINDOW", 3)
    model = AutoModelForCausalLM.from_pretrained(small_model(), attn_implementation=ATTENTION)
    rows = [script.Asked("exqa", PROMPT, answer("ten"), True, "span not in passage", answer("at nine"))]
    ((one,), _, _) = script.sort_rows(rows, encoder)
    script.look_back(model, [one])
    reference = dict(model.state_dict())
    with torch.no_grad():
        changed = {name: weight * 1.05 for name, weight in reference.items()}

    @torch.no_grad()
    def summed(tokens):
        ids = torch.from_numpy(tokens.astype("int64"))[None]
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
        each = logs[:-1].gather(1, ids[0, 1:, None])[:, 0]
        window, learned = each[one.parting - 1 : one.parting + 2], each[one.preferred.prompt_length - 1 :]
        return float(window.sum()), float(learned.mean())

    (before, _), (refused_before, _) = summed(one.preferred.tokens), summed(one.refused.tokens)
    assert one.before == pytest.approx((before, refused_before), rel=1e-4)
    model.load_state_dict(changed)
    (after, mean), (refused_after, _) = summed(one.preferred.tokens), summed(one.refused.tokens)
    margin = torch.tensor(script.BETA * ((after - before) - (refused_after - refused_before)))
    expected = -float(torch.nn.functional.logsigmoid(margin)) - script.BESIDE * mean
    assert script._backward(model, [one], 1) == pytest.approx(expected, rel=1e-4)
    assert abs(float(margin)) > 1e-3


def test_training_makes_what_is_preferred_likelier(script, encoder, small_model, monkeypatch):
    monkeypatch.setattr(script, "LEARNING_RATE", 5e-3)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(small_model(), attn_implementation=ATTENTION)
    model = lora.add_adapter(base, Adapter(rank=4))
    rows = [
        script.Asked("exqa", PROMPT, answer(f"{word} ten"), True, "span not in passage", answer(f"{word} nine"))
        for word in ("leaves", "goes", "by", "about")
    ]
    rows += [script.Asked("exqa", PROMPT, answer("nine"), True, "")]
    preferences, right, _ = script.sort_rows(rows, encoder)
    script.look_back(model, preferences)
    log = io.StringIO()
    learned = [*preferences[1:], *right] * 4
    steps = script.optimise(model, learned, preferences[:1], random.Random(0), log)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert steps == told[-1]["step"] == 4
    assert told[0] == {"step": 0, "held_out_right": told[0]["held_out_right"], "held_out_margin": 0.0}
    assert told[-1]["held_out_margin"] > 0.1
