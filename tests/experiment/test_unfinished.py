"""What an experiment has so far can be told at any time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bridges import recipe

from katsuo import api
from katsuo.errors import UsageError
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.system import System
from katsuo.experiment.folder import ZERO_SHOT, ExperimentFolder, open_folder
from katsuo.experiment.forgetting import forgetting_of
from katsuo.experiment.general import measure
from katsuo.experiment.plan import plan
from katsuo.experiment.results import gather, warnings_of
from katsuo.experiment.settings import Forgetting, experiment_from
from katsuo.experiment.split import TEST, split_set

SUITE = """\
name: mine
passage: "{{ passage }}"
gold: "{{ answer }}"
labels: ["yes", "no"]
templates:
- {name: below, jinja: "{{ passage }} Is it so: {{ question }}"}
"""


@pytest.fixture
def folder(bridges: tuple[Path, Path], tmp_path: Path) -> ExperimentFolder:
    told = recipe(*bridges, "model")
    told["sets"]["others"] = told["sets"]["bridges"]
    return open_folder(tmp_path / "out", experiment_from(told))


def judge(folder: ExperimentFolder, system: str, **settings: object) -> None:
    """Leave the scores that a stage would leave."""
    data = folder.split("bridges") / TEST
    place = folder.scores("bridges", 0, system)
    api.evaluate("fake", place, task="ynqa", data=data, engine="fake", templates=2, **settings)


def test_before_anything_is_done_the_report_says_so(folder: ExperimentFolder) -> None:
    page, text, _ = api.report(folder.path)
    count = len(plan(folder))
    assert f"nothing to compare with; not finished: {count} of {count} stages" in text.read_text(encoding="utf-8")
    assert f"nothing to compare with<small>not finished: {count} of {count} stages" in page.read_text(encoding="utf-8")


def test_one_set_of_two_is_told_with_what_is_still_to_do(folder: ExperimentFolder) -> None:
    split_set(folder, "bridges")
    judge(folder, "katsuo")
    judge(folder, ZERO_SHOT, style="chat")
    folder.write_marker("bridges/split", {"seconds": 1.0})
    page, _, numbers = api.report(folder.path)
    told = json.loads(numbers.read_text())["results"]
    assert list(told["sets"]) == ["bridges"]
    assert told["name"].endswith(" adapted to 1 of 2 data sets so far")
    assert set(told["sets"]["bridges"]["gains"]) == {ZERO_SHOT, "majority"}
    assert told["sets"]["bridges"]["gold"] == {"yes": 8, "no": 56}
    assert "over zero-shot (95 %" in told["verdict"]
    assert told["verdict"].endswith(f"not finished: {len(told['to_do'])} of {len(plan(folder))} stages are to do")
    assert "bridges/split" not in told["to_do"]
    assert "others/split" in told["to_do"]
    assert "Not finished" in page.read_text(encoding="utf-8")


def test_systems_that_were_asked_different_things_are_not_compared(folder: ExperimentFolder) -> None:
    split_set(folder, "bridges")
    judge(folder, ZERO_SHOT)
    judge(folder, "katsuo", labels=["no", "yes"])
    with pytest.raises(UsageError, match='"bridges": not all that was asked of katsuo and zero-shot was the same'):
        api.report(folder.path)


def test_rows_left_out_are_added_up_and_other_warnings_stand_with_their_set() -> None:
    sets = {
        "a": {"left_out": {"duplicate": 2}, "warnings": ["only 9 items"]},
        "b": {"left_out": {"duplicate": 3, "empty": 1}, "warnings": []},
    }
    assert warnings_of(sets) == ["5 duplicate test rows left out", "1 empty test rows left out", "a: only 9 items"]


def test_general_abilities_are_measured_set_by_set(folder: ExperimentFolder) -> None:
    names = [stage.name for stage in plan(folder)]
    assert names.index("bridges/seed-0/general-katsuo") < names.index("others/split")
    assert names.count("general-zero-shot") == 1


def test_tokens_of_an_evaluation_are_counted(folder: ExperimentFolder) -> None:
    split_set(folder, "bridges")
    judge(folder, ZERO_SHOT)
    stage = next(stage for stage in plan(folder) if stage.name == "bridges/evaluate-zero-shot")
    amount, unit = stage.spent() or (0, "")
    assert unit == "tokens asked"
    assert amount > 32 * 2 * 20
    measure(System("fake"), folder.general("bridges", 0, ZERO_SHOT), EvaluateSettings(engine="fake"), Forgetting())
    stage = next(stage for stage in plan(folder) if stage.name == "general-zero-shot")
    assert (stage.spent() or (0, ""))[0] > 12 * 30


@pytest.mark.parametrize("what", ["requests", "suites"])
def test_general_abilities_that_were_asked_about_differently_are_not_compared(
    folder: ExperimentFolder, bridges: tuple[Path, Path], tmp_path: Path, what: str
) -> None:
    suite = tmp_path / "general.yaml"
    suite.write_text(SUITE)
    settings = EvaluateSettings(engine="fake")
    for system in (ZERO_SHOT, "katsuo"):
        forgetting = Forgetting(suites=(str(suite),), data=str(bridges[1]), built_in=what == "requests")
        measure(System("fake"), folder.general("bridges", 0, system), settings, forgetting)
        if system == ZERO_SHOT:
            assert "sets" in forgetting_of(folder)
            if what == "suites":
                suite.write_text(SUITE.replace("Is it so", "Say"))
    if what == "requests":
        assert set(forgetting_of(folder)["items"]) == {"perplexity", "requests followed", "mine"}
        held = folder.general("bridges", 0, "katsuo") / "general.json"
        held.write_text(held.read_text().replace("hot", "warm"))
    with pytest.raises(UsageError, match='"bridges": not all that was asked of katsuo and zero-shot about general'):
        forgetting_of(folder)


def test_a_mean_over_sets_of_other_metrics_is_in_points(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model", evaluate={"templates": 2})
    told["sets"]["spans"] = {**told["sets"]["bridges"], "task": "exqa"}
    folder = open_folder(tmp_path / "out", experiment_from(told))
    for name, task in (("bridges", "ynqa"), ("spans", "exqa")):
        split_set(folder, name)
        for system in ("katsuo", ZERO_SHOT):
            place = folder.scores(name, 0, system)
            data = folder.split(name) / TEST
            api.evaluate("fake", place, task=task, data=data, engine="fake", templates=2)
    results = gather(folder)
    assert results["metric"] == "points"
    assert results["verdict"].startswith("0.0 points over zero-shot")
