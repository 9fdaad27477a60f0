from __future__ import annotations

from pathlib import Path

import pytest

from katsuo.config import Recipe, cache_dir, read_recipe, recipe_from
from katsuo.errors import RecipeError
from katsuo.settings import known_keys


def test_a_recipe_written_as_yaml_reads_back_equal(tmp_path: Path) -> None:
    recipe = recipe_from({"documents": ["a.txt"], "tasks": ["ynqa"], "sampling": {"n": 3}})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(("key", "near"), [("sed", "seed"), ("sampling.temprature", "sampling.temperature")])
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(key: str, near: str) -> None:
    with pytest.raises(RecipeError, match=f'unknown setting "{key}"\nhint: did you mean "{near}"'):
        recipe_from({}).override({key: 1})


def test_a_setting_of_the_wrong_type_names_the_file_and_the_value(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("sampling:\n  n: many\n")
    with pytest.raises(RecipeError, match=r'setting "sampling.n" in ".*r.yaml" cannot be \'many\''):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n"])
def test_a_recipe_that_is_no_table_of_settings_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        read_recipe(tmp_path / "absent.yaml")


def test_dotted_keys_reach_into_groups_and_leave_the_rest() -> None:
    recipe = recipe_from({"sampling": {"n": 3}}).override({"sampling.top_p": 0.5})
    assert (recipe.sampling.n, recipe.sampling.top_p) == (3, 0.5)


def test_every_setting_says_what_it_is() -> None:
    groups = [Recipe, *(info.annotation for info in Recipe.model_fields.values() if isinstance(info.annotation, type))]
    for group in groups:
        for name, info in getattr(group, "model_fields", {}).items():
            assert info.description or hasattr(info.annotation, "model_fields"), f"{group.__name__}.{name}"
    assert "chunk.size" in known_keys(Recipe)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == Path.home() / ".cache" / "katsuo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "katsuo"
    monkeypatch.setenv("KATSUO_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_an_overlap_of_more_than_half_a_passage_is_refused() -> None:
    with pytest.raises(RecipeError, match=r'setting "chunk".*overlap 60 is more than half of size 100'):
        recipe_from({"chunk": {"size": 100, "overlap": 60}})
