"""What is planned is not begun: nothing is written, nothing is left out for no reason, and a report needs no plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from bridges import recipe
from typer.testing import CliRunner

from katsuo import api
from katsuo.cli.main import build
from katsuo.config import recipe_from
from katsuo.errors import UsageError
from katsuo.evaluate.settings import make_settings
from katsuo.experiment.folder import ExperimentFolder, open_folder
from katsuo.experiment.plan import plan
from katsuo.experiment.results import gather
from katsuo.experiment.settings import OURS, experiment_from
from katsuo.places import write_json
from katsuo.settings import read_pairs
from katsuo.store import create_run

SUITE = """\
name: mine
task: ynqa
passage: "{{ passage }}"
gold: "{{ answer }}"
labels: ["yes", "no"]
templates:
- {name: below, jinja: "{{ passage }} {{ question }}"}
"""


@pytest.fixture
def folder(bridges: tuple[Path, Path], tmp_path: Path) -> ExperimentFolder:
    return open_folder(tmp_path / "out", experiment_from(recipe(*bridges, "model")))


def test_without_a_kept_example_the_set_is_left_out_and_the_others_go_on(folder: ExperimentFolder) -> None:
    run = create_run(folder.run("bridges", 0, OURS), recipe_from({"tasks": ["ynqa"], "engine": "fake"}), resume="never")
    run.write_manifest({"summary": {}})
    write_json(folder.split("bridges") / "split.json", {"labelled_rows": 8})
    stages = {stage.name.removeprefix("bridges/seed-0/"): stage for stage in plan(folder)}
    reasons = {name: stage.skip() for name, stage in stages.items() if not name.startswith("general-")}
    assert {name for name, reason in reasons.items() if reason == "no example was kept"} == {
        *("adapt-katsuo", "evaluate-katsuo", "data-shuffled", "adapt-shuffled", "evaluate-shuffled"),
    }
    assert not any(reasons[name] for name in ("generate-katsuo", "pretrain", "generate-prompted", "adapt-supervised"))
    assert "pretrain" in stages["pretrain"].command()
    folder.write_marker("bridges/seed-0/adapt-katsuo", {"left_out": "no example was kept"})
    assert "bridges: no example was kept" in gather(folder)["verdict"]


def test_labelled_rows_are_trained_on_as_they_stand_and_all_of_them(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model", adapt={"data": {"min_response_words": 4, "reword": True}})
    folder = open_folder(tmp_path / "out", experiment_from(told))
    made = {}
    for stage in plan(folder):
        _, system = stage.name.rpartition("/adapt-")[1:]
        if system in ("katsuo", "supervised"):
            stage.command()
            made[system] = yaml.safe_load((folder.settings("bridges", 0) / f"train-{system}.yaml").read_text())["data"]
    assert (made["katsuo"]["min_response_words"], made["katsuo"]["reword"]) == (4, True)
    assert (made["supervised"]["min_response_words"], made["supervised"]["reword"]) == (0, False)


def test_a_plan_is_shown_without_writing_anything(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = yaml.safe_dump(recipe(*bridges, "model"))
    (tmp_path / "recipe.yaml").write_text(told)
    words = ["run", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "out"), "--plan"]
    done = CliRunner().invoke(build(words), words)
    assert "to do     bridges/split" in done.output
    assert not (tmp_path / "out").exists()


def test_a_report_needs_nothing_that_the_recipe_named(
    bridges: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    told = recipe(*bridges, "model")
    told["sets"]["bridges"] = {"documents": [str(bridges[0])], "suite": "mine.yaml", "data": str(bridges[1])}
    monkeypatch.chdir(tmp_path)
    open_folder(tmp_path / "out", experiment_from(told))
    (tmp_path / "mine.yaml").unlink()
    bridges[1].unlink()
    page, *_ = api.report(tmp_path / "out")
    assert "nothing to compare with" in page.read_text(encoding="utf-8")


def test_settings_of_the_evaluation_reach_it_as_they_are(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    template = "Frage 😀:\t{instruction}\u2028\x7f«Antwort»:\n"
    told = {"templates": 2, "prompt_template": template, "style": "template", "engine_options": {"dtype": "float32"}}
    folder = open_folder(tmp_path / "out", experiment_from(recipe(*bridges, "model", evaluate=told)))
    stage = next(stage for stage in plan(folder) if stage.name == "bridges/evaluate-zero-shot")
    command = list(stage.command())
    pairs = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    assert make_settings(read_pairs(pairs, such_as="x=1")) == folder.experiment.evaluate_settings()


def test_an_experiment_is_not_planned_behind_a_url(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(*bridges, "model")))
    words = ["run", str(tmp_path / "recipe.yaml"), "-o", "memory://out", "--plan"]
    done = CliRunner().invoke(build(words), words)
    assert isinstance(done.exception, UsageError)
    assert 'an experiment is not written to "memory://out"' in str(done.exception)
