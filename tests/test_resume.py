from __future__ import annotations

from pathlib import Path

import pytest

from katsuo.errors import RunChangedError, RunExistsError
from katsuo.resume import refuse_occupied, refuse_other


def test_what_differs_is_listed_with_old_and_new_values(tmp_path: Path) -> None:
    before, now = {"seed": 1, "sampling": {"n": 1}}, {"seed": 2, "sampling": {"n": 2}}
    with pytest.raises(RunChangedError, match=r"another run:\n  sampling\.n: 1 → 2\n  seed: 1 → 2\nhint: give another"):
        refuse_other(tmp_path, "run", before, now)


def test_what_may_change_is_not_looked_at(tmp_path: Path) -> None:
    before, now = {"seed": 1, "sampling": {"n": 1}}, {"seed": 2, "sampling": {"n": 2}}
    refuse_other(tmp_path, "run", before, now, ignoring=["seed", "sampling.n"])
    with pytest.raises(RunChangedError) as refused:
        refuse_other(tmp_path, "run", before, now, ignoring=["seed"])
    assert "seed" not in str(refused.value)


def test_a_setting_that_only_one_of_both_has_differs(tmp_path: Path) -> None:
    with pytest.raises(RunChangedError, match="epochs: None → 3"):
        refuse_other(tmp_path, "training", {}, {"epochs": 3})


def test_a_place_is_free_if_nothing_whole_lies_there(tmp_path: Path) -> None:
    refuse_occupied(tmp_path / "absent", "run")
    refuse_occupied(tmp_path, "run")
    (tmp_path / "recipe.yaml.partial").write_text("half")
    refuse_occupied(tmp_path, "run")


def test_a_file_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(RunExistsError, match="exists and holds no run\nhint: give an empty"):
            refuse_occupied(taken, "run")
