"""Recipes are values: checked when built, whole in YAML, the paper's as the paper says."""

from __future__ import annotations

import pytest
import yaml

from katsuo.errors import RecipeError, UnknownNameError
from katsuo.experiment.settings import Experiment
from katsuo.train.fit import steps_of
from katsuo.train.recipes import LAPTOP, PAPER, RECIPES, TrainRecipe, named_recipe, read_train_recipe


@pytest.mark.parametrize("what", ["generator", "target"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_yaml_with_every_setting(name, what, tmp_path):
    recipe = named_recipe(name, what)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    for other in ("generator", "target"):
        assert read_train_recipe(tmp_path / "recipe.yaml", other) == recipe
    assert set(yaml.safe_load(recipe.to_yaml())) == set(TrainRecipe.model_fields)


def test_the_paper_recipe_is_that_of_the_paper():
    assert (PAPER.quantization, PAPER.adapter.rank, PAPER.adapter.alpha, PAPER.adapter.dropout) == ("nf4", 64, 16, 0)
    assert (PAPER.optimizer, PAPER.learning_rate, PAPER.schedule, PAPER.warmup_steps) == (
        "paged_adamw",
        1e-4,
        "linear",
        0,
    )
    assert (PAPER.max_grad_norm, PAPER.batch_size, PAPER.weight_decay) == (0.3, 16, 0)
    assert (PAPER.data.max_prompt_tokens, PAPER.data.max_completion_tokens, PAPER.max_steps) == (2048, 2048, 100_000)


def test_the_paper_recipe_ends_as_the_paper_does():
    assert steps_of(named_recipe("paper", "generator"), 16_000) == 100_000
    assert steps_of(named_recipe("paper", "target"), 16_000) == 1_000
    assert steps_of(named_recipe("paper", "target"), 1_600_000) == 10_000


def test_the_laptop_recipe_of_a_target_is_the_best_that_was_measured():
    target = named_recipe("laptop", "target")
    changed = {"learning_rate": 5e-4, "data.reword": True, "data.balance": "labels"}
    assert target == LAPTOP.override(changed) != LAPTOP == named_recipe("laptop", "generator")


def test_a_file_and_an_experiment_follow_what_is_trained(tmp_path):
    (tmp_path / "own.yaml").write_text("recipe: paper\n")
    for what in ("generator", "target"):
        assert named_recipe(str(tmp_path / "own.yaml"), what) == RECIPES["paper"][what]
    one = {"documents": ["docs"], "suite": "pubmed_qa"}
    experiment = Experiment(sets={"one": one}, adapt={"recipe": "paper"})
    assert experiment.train_recipe("one") == RECIPES["paper"]["target"]


def test_a_file_may_lay_its_settings_over_a_named_recipe(tmp_path):
    (tmp_path / "own.yaml").write_text("recipe: paper\nadapter: {rank: 8}\nlearning_rate: 2.0e-4\n")
    recipe = named_recipe(str(tmp_path / "own.yaml"), "target")
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.learning_rate) == (8, 16, 2e-4)
    assert recipe.quantization == "nf4"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter.rnak": 8}, 'did you mean "adapter.rank"'),
        ({"learning_rate": 0}, "learning_rate"),
        ({"batch_size": 6, "micro_batch_size": 4}, "no multiple"),
        ({"style": "template"}, "prompt_template"),
        ({"style": "template", "prompt_template": "ask"}, "{instruction} once"),
        ({"method": "full", "quantization": "nf4"}, "method lora"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes, words):
    with pytest.raises(RecipeError) as caught:
        LAPTOP.override(changes)
    assert words in str(caught.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UnknownNameError, match="laptop"):
        named_recipe("labtop", "target")
    with pytest.raises(RecipeError, match="cannot read"):
        named_recipe("nowhere.yaml", "target")
