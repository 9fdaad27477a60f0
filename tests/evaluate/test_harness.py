"""What lm-evaluation-harness 0.4.13 said about the same questions; benchmarks/harness_parity.py kept it here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from katsuo.api import read_sheets
from katsuo.engines import Choices
from katsuo.engines.fake import FakeEngine
from katsuo.errors import UsageError
from katsuo.evaluate.harness import export_harness
from katsuo.evaluate.judge import judge
from katsuo.evaluate.settings import make_settings
from katsuo.evaluate.system import find_system, open_examiner

KEPT = json.loads((Path(__file__).parent / "lm_eval.json").read_text(encoding="utf-8"))


@pytest.mark.engine
@pytest.mark.parametrize("style", ["chat", "input-output"])
def test_log_likelihoods_and_macro_f1_are_those_of_the_harness(embedded_model, claims, tmp_path, style):
    told = {"style": style, "templates": 3, "engine_options.dtype": "float32", "engine_options.device": "cpu"}
    settings = make_settings(told)
    (sheet,) = read_sheets((), settings, task="nli", data=claims)
    system = find_system(str(embedded_model))
    done = judge(system, [sheet], tmp_path / "s", settings)
    found = {(one.template, one.item): one for one in done.predictions("nli")}
    spaces = white_space(sheet, system, settings) if style != "chat" else {}
    said = KEPT[style]
    assert len(found) == len(said["samples"]) == 24
    for sample in said["samples"]:
        place = (sample["template"], sample["item"])
        ours = [value + spaces.get(place, 0.0) for value in found[place].log_probabilities]
        assert ours == pytest.approx(sample["log_likelihoods"], abs=1e-3)
    for template, macro_f1 in said["macro_f1"].items():
        assert done.scores["sets"]["nli"]["templates"][template]["macro_f1"] == pytest.approx(macro_f1)


def test_a_long_passage_is_exported_as_it_is_scored(tmp_path):
    row = {"premise": "The ferry leaves at nine. " * 60, "hypothesis": "It leaves late.", "label": "contradiction"}
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps(row))
    settings = make_settings({"engine": "fake", "style": "input-output", "templates": 3, "max_prompt_tokens": 64})
    (sheet,) = read_sheets((), settings, task="nli", data=long)
    examiner, _ = open_examiner(find_system("fake"), settings)
    export_harness([sheet], examiner, tmp_path / "export")
    asked = examiner.instructions(sheet.of(sheet.items[0]))
    lines = [file.read_text() for file in sorted((tmp_path / "export").rglob("katsuo_nli_*.jsonl"))]
    assert [json.loads(line)["prompt"] for line in lines] == [examiner.ask(text) for text in asked]
    with pytest.raises(UsageError, match="cannot divide by bytes"):
        export_harness(
            [sheet], open_examiner(find_system("fake"), make_settings({"engine": "fake", "normalise": "bytes"}))[0],
            tmp_path / "other",
        )  # fmt: skip


@pytest.mark.parametrize(("style", "end"), [("chat", "<turn>"), ("input-output", "</s>")])
def test_what_ends_an_answer_is_that_of_the_style(tmp_path, claims, monkeypatch, style, end):
    settings = make_settings({"engine": "fake", "style": style, "eos": "yes", "templates": 1})
    (sheet,) = read_sheets((), settings, task="nli", data=claims)
    examiner, _ = open_examiner(find_system("fake"), settings)
    monkeypatch.setattr(FakeEngine, "end_text", lambda _, *, is_chat: "<turn>" if is_chat else "</s>")
    export_harness([sheet], examiner, tmp_path / "export")
    (file,) = (tmp_path / "export").rglob("katsuo_nli_*.jsonl")
    assert all(choice.endswith(end) for line in file.read_text().splitlines() for choice in json.loads(line)["choices"])
    monkeypatch.setattr(FakeEngine, "end_text", lambda _, *, is_chat: "")
    with pytest.raises(UsageError, match="does not tell what ends an answer\nhint: add --eos no"):
        export_harness([sheet], examiner, tmp_path / "other")


def white_space(sheet, system, settings) -> dict[tuple[str, str], float]:
    """Score the line break that ends each prompt: the harness counts it to the answer."""
    examiner, _ = open_examiner(system, settings)
    questions = [question for item in sheet.items for question in sheet.of(item)]
    prompts = [
        examiner.choices(question, text).prompt
        for question, text in zip(questions, examiner.instructions(questions), strict=True)
    ]
    asked = [Choices(replace(prompt, text=prompt.text.rstrip()), ("\n",), has_end=False) for prompt in prompts]
    scores = zip(questions, examiner.engine.score(asked), strict=True)
    return {(question.template, question.item.id): one.log_probabilities[0] for question, one in scores}
