"""The recipe of an experiment is checked whole before anything begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from katsuo.config import cache_dir
from katsuo.errors import KatsuoError, RecipeError
from katsuo.evaluate.judge import read_sheet
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import read_suite
from katsuo.experiment.settings import experiment_from, read_experiment
from katsuo.templates.library import open_library

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
REAL_CACHE = cache_dir()
SET = {"documents": ["docs"], "task": "ynqa", "data": "rows.jsonl"}


def made(**settings: object) -> object:
    return experiment_from({"sets": {"mine": SET}, **settings})


@pytest.mark.parametrize("name", ["quick.yaml", "headline.yaml"])
def test_the_experiments_in_examples_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    if name == "headline.yaml":
        monkeypatch.setenv("KATSUO_CACHE", str(REAL_CACHE))
        try:
            open_library()
        except KatsuoError:
            pytest.skip("the templates of promptsource are not on this machine: run `make setup`")
    assert read_experiment(EXAMPLES / name).sets


@pytest.mark.parametrize("path", sorted((EXAMPLES / "headline").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_general_suites_of_the_headline_ask_about_the_rows_that_they_name(path: Path, shared_data: Path) -> None:
    sheet = read_sheet(read_suite(path), shared_data / "data", EvaluateSettings(limit=20))
    assert len(sheet.items) == 20
    assert {sheet.labels[question.gold] for question in sheet.questions.values()} == set(sheet.labels)


def test_every_answer_of_the_quick_example_stands_in_its_passage() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "quick" / "questions.jsonl").read_text().splitlines()]
    assert len(rows) > 30
    assert all(row["answer"] in row["context"] for row in rows)
    assert {row["document"] for row in rows} == {"docs/cache.md", "docs/export.md", "docs/run-folder.md"}
    assert all((EXAMPLES.parent / row["document"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"baseline": ["prompted"]}, "baselines"),
        ({"sets": {"mine": {**SET, "suite": "pubmed_qa"}}}, "either suite or task"),
        ({"sets": {"my/set": SET}}, "cannot be a folder"),
        ({"sets": {"mine": {**SET, "document": "name"}}}, "documents"),
        ({"generate": {"sampling": {"tmperature": 1}}}, "sampling.temperature"),
        ({"generate": {"documents": ["elsewhere"]}}, "sets.NAME.documents"),
        ({"prompted": {"modell": "x"}}, "model"),
        ({"prompted": {"seed": 3}}, r'"prompted.seed" is made by the experiment'),
        ({"sets": {"mine": {**SET, "generate": {"limit": 3}}}}, r"sets\.mine\.generate\.limit"),
        ({"adapt": {"max_step": 3}}, "max_steps"),
        ({"adapt": {"seed": 3}}, r'"adapt.seed" is made by the experiment\nhint: say it with seeds'),
        ({"sets": {"mine": {**SET, "adapt": {"seed": 3}}}}, r'"sets\.mine\.adapt\.seed" is made by the experiment'),
        ({"evaluate": {"templats": 3}}, "templates"),
        ({"baselines": ["guessing"]}, "baselines"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, 1, 0]}, "a seed is given twice"),
        ({"evaluate": {"templates": 0}}, "at least 1"),
        ({"test_share": 0}, "test_share"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(settings: dict[str, object], says: str) -> None:
    with pytest.raises(KatsuoError, match=says):
        made(**settings)


def test_a_recipe_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("- a list")
    with pytest.raises(RecipeError, match="table of settings"):
        read_experiment(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="cannot read"):
        read_experiment(tmp_path / "absent.yaml")


def test_the_prompted_generator_is_the_model_itself_unless_the_recipe_names_another() -> None:
    generate = {"model": "some-generator", "sampling": {"temperature": 0.3}}
    own = experiment_from({"sets": {"mine": SET}, "generate": generate, "model": "target"})
    told = own.generate_recipe("mine", prompted=True)
    assert (told.model, told.codec, told.sampling.temperature) == ("target", "instruct", 0.3)
    server = {"engine": "openai", "model": "large"}
    other = experiment_from({"sets": {"mine": SET}, "generate": generate, "prompted": server})
    assert other.generate_recipe("mine", prompted=True).engine == "openai"


def test_a_generator_of_one_set_does_not_take_the_place_of_the_prompted_one() -> None:
    told = {"mine": {**SET, "generate": {"model": "better", "checks": {"held_out_ngram": 50}}}}
    one = experiment_from({"sets": told, "model": "target"})
    assert one.generate_recipe("mine").model == "better"
    prompted = one.generate_recipe("mine", prompted=True)
    assert (prompted.model, prompted.checks.held_out_ngram) == ("target", 50)


def test_the_task_type_of_a_suite_is_generated_unless_the_set_names_others() -> None:
    assert experiment_from({"sets": {"mine": SET}}).generate_recipe("mine").tasks == ("yes-no question answering",)
    several = experiment_from({"sets": {"mine": {**SET, "tasks": ["exqa", "nli"]}}})
    assert several.generate_recipe("mine").tasks == ("exqa", "nli")


def test_a_set_lays_its_training_over_that_of_all_and_keeps_the_rest_of_a_group() -> None:
    own = {**SET, "adapt": {"data": {"held_out": 3}, "recipe": "paper", "adapter.rank": 8}}
    told = {"data": {"max_tokens": 300, "held_out": 9}, "adapter": {"alpha": 4.0}, "recipe": "laptop"}
    made = experiment_from({"sets": {"mine": own, "other": SET}, "adapt": told})
    recipe, other = made.train_recipe("mine"), made.train_recipe("other")
    assert (recipe.data.max_tokens, recipe.data.held_out) == (300, 3)
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.quantization) == (8, 4.0, "nf4")
    assert (other.data.max_tokens, other.data.held_out, other.quantization) == (300, 9, "none")
