"""The generator that comes with the package: whole, small, described, and the default."""

from __future__ import annotations

import json

import pytest

from katsuo.config import EngineOptions, Recipe, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.models import KNOWN, codec_of, is_adapter, locate
from katsuo.models.known import EMBEDDED, GENERATOR
from katsuo.pipeline.ask import ask
from katsuo.records import Passage
from katsuo.tasks import find_task
from katsuo.tasks.codec import Pair, find_codec, parse_pair

MAX_BYTES = 20_000_000


@pytest.fixture
def manifest():
    return json.loads((locate(GENERATOR) / "katsuo.json").read_text(encoding="utf-8"))


def test_it_is_the_default_and_speaks_its_own_format():
    assert Recipe().model == GENERATOR
    assert codec_of(GENERATOR) == "bonito-v1"


def test_it_is_an_adapter_of_the_embedded_model_and_small(manifest):
    folder = locate(GENERATOR)
    assert is_adapter(folder)
    assert manifest["base_model"] == KNOWN[EMBEDDED].hub
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= MAX_BYTES


def test_its_card_names_every_source_with_its_licence_and_how_it_was_made(manifest):
    card = (locate(GENERATOR) / "README.md").read_text(encoding="utf-8")
    assert len(manifest["from"]["sources"]) > 20
    for source in (*manifest["from"]["sources"], *manifest["data"]["sources"]):
        assert f"| {source['source']} | {source['licence']} | {source['terms']} |" in card
    assert "research" in card
    assert "katsuo train-generator" in card
    assert "examples/self_training.py" in card
    assert "examples/preference_training.py" in card
    assert "examples/average_adapters.py" in card
    for rate in (0.001, manifest["recipe"]["learning_rate"]):
        assert f"learning_rate: {rate}\n" in card


@pytest.mark.parametrize(
    ("log", "steps"),
    [
        ("first.jsonl", 1200),
        ("round-1.jsonl", 424),
        ("round-2.jsonl", 285),
        ("round-3.jsonl", 90),
        ("round-4.jsonl", 66),
        ("round-5.jsonl", 78),
    ],
)
def test_its_logs_are_those_of_all_whole_trainings(log, steps, manifest):
    lines = (locate(GENERATOR) / log).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == steps
    assert manifest["fitted"]["steps"] == 78


@pytest.mark.engine
def test_it_writes_in_form_without_a_grammar(embedded_model):
    settings = EngineSettings(str(embedded_model), str(locate(GENERATOR)), EngineOptions(device="cpu", dtype="float32"))
    engine = open_engine("hf", settings)
    text = "The ferry to Ven leaves Landskrona at nine in the morning and takes half an hour. Dogs travel free."
    passages = [Passage("p", text, "a.txt", 0, len(text))]
    tasks = [find_task(name) for name in ("ynqa", "exqa", "nli")]
    prompts = list(ask(passages, tasks=tasks, codec=find_codec("bonito-v1"), n=1, seed=0))
    for completion in engine.generate(prompts, Sampling(grammar=False, max_new_tokens=128)):
        assert completion.finish == "stop"
        assert isinstance(parse_pair(completion.text), Pair)
