from __future__ import annotations

import pytest

from katsuo.ctga.settings import BuildSettings
from katsuo.errors import RecipeError
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.experiment.settings import Experiment
from katsuo.settings import build, flat, lay_over, read_pairs
from katsuo.train.recipes import TrainRecipe

SET = {"documents": ["a.txt"], "suite": "vitaminc"}


@pytest.mark.parametrize(
    ("group", "values", "near"),
    [
        (TrainRecipe, {"adapter": {"rnak": 4}}, "adapter.rank"),
        (TrainRecipe, {"learning_rte": 4}, "learning_rate"),
        (EvaluateSettings, {"engine_options": {"base_ulr": ""}}, "engine_options.base_url"),
        (BuildSettings, {"perrow": 4}, "per_row"),
        (Experiment, {"sets": {"mine": {**SET, "labeled": "b"}}}, "sets.mine.labelled"),
        (Experiment, {"sets": {"mine": SET}, "forgetting": {"suits": []}}, "forgetting.suites"),
    ],
)
def test_the_nearest_setting_is_named_wherever_it_stands(group, values, near):
    with pytest.raises(RecipeError, match=rf'unknown setting "[\w.]+" in "x"\nhint: did you mean "{near}"\?'):
        build(group, values, where=' in "x"', listed="docs/cli.md")


def test_a_setting_that_is_like_no_other_gets_the_list():
    with pytest.raises(RecipeError, match=r"hint: known: method, adapter\.rank, .*, seed$"):
        build(TrainRecipe, {"zzzzzz": 1}, listed="docs/training.md")


def test_a_value_is_shown_and_a_whole_group_is_not():
    with pytest.raises(RecipeError, match=r'"data.max_tokens" cannot be 3: .*\nhint: docs/training.md lists every'):
        build(TrainRecipe, {"data": {"max_tokens": 3}}, listed="docs/training.md")
    with pytest.raises(RecipeError, match=r'^setting "recipe": value error, batch_size 7 is no multiple of 2'):
        build(TrainRecipe, {"batch_size": 7, "micro_batch_size": 2}, listed="docs/training.md")


def test_changes_reach_into_groups_by_dots_and_by_tables():
    base = {"seed": 0, "data": {"reword": False, "held_out": 8}}
    assert lay_over(base, {"data.reword": True}) == lay_over(base, {"data": {"reword": True}})
    assert lay_over(base, {"data.reword": True})["data"] == {"reword": True, "held_out": 8}
    assert lay_over({}, {"data.reword": True}) == {"data": {"reword": True}}
    assert flat(base) == {"seed": 0, "data.reword": False, "data.held_out": 8}


def test_pairs_of_a_command_line_are_read_as_yaml():
    assert read_pairs(["max-steps=2", "tasks=[a, b]", "x="], such_as="a=1") == {
        "max_steps": 2,
        "tasks": ["a", "b"],
        "x": None,
    }


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("max_steps", '"max_steps" is not a setting\nhint: write `--set key=value`, such as `--set a=1`'),
        ("tasks=[a", 'the value of "tasks=\\[a" is not YAML\nhint: quote'),
    ],
)
def test_a_pair_that_is_none_is_refused(pair, said):
    with pytest.raises(RecipeError, match=said):
        read_pairs([pair], such_as="a=1")
