"""One command from documents to a report, with a tiny model: numbers, markers, and taking it up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bridges import recipe, small_model_at, write_rows

from katsuo import api
from katsuo.experiment.conduct import Step
from katsuo.experiment.settings import experiment_from
from katsuo.store import Run

pytestmark = [pytest.mark.end_to_end, pytest.mark.engine]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model_at(tmp_path / "small")


def quick(bridges: tuple[Path, Path], model: Path, **changes: Any) -> dict[str, Any]:
    """Give an experiment whose questions are answered without a model: only its trainings load one."""
    told = {
        "baselines": ["zero-shot", "shuffled", "prompted", "supervised"],
        "evaluate": {"templates": 2, "engine": "fake"},
    }
    same = {"engine": "fake", "model": "fake", "codec": "auto"}
    return recipe(*bridges, model, **told, prompted=same, **changes)


def test_one_command_goes_from_documents_to_a_report(bridges: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    out = tmp_path / "out"
    experiment = experiment_from(quick(bridges, model))
    results = api.run(experiment, out, on_step=steps.append)

    ended = {step.stage.removeprefix("bridges/seed-0/"): step for step in steps if step.state in ("done", "left out")}
    assert len({step.stage for step in steps}) == len(ended) == steps[0].total
    left_out = {name: step.line for name, step in ended.items() if step.state == "left out"}
    assert left_out["adapt-prompted"] == "the generator is the prompted model itself"
    assert left_out["adapt-supervised"] == "there are no labelled rows beside the test rows"

    assert results["verdict"].startswith(("+", "−", "0"))
    assert "over zero-shot" in results["verdict"]
    assert "general instruction following" in results["verdict"]
    told = results["sets"]["bridges"]
    assert set(told["scores"]) == {"katsuo", "zero-shot", "shuffled", "majority"}
    assert told["items"] == 32
    assert told["scores"]["majority"]["mean"] == pytest.approx(100 * 28 / 60, abs=0.01)
    assert told["overlap"]["passages"] == 0
    gain = told["gains"]["shuffled"]
    assert gain["low"] <= gain["difference"] <= gain["high"]
    assert gain["difference"] == pytest.approx(told["scores"]["katsuo"]["mean"] - told["scores"]["shuffled"]["mean"])

    run = Run(out / "sets" / "bridges" / "seed-0" / "runs" / "katsuo")
    sources = {passage.text.split(" at ")[1].split()[0] for passage in run.passages()}
    assert sources == {"Elmet", "Farlow", "Garth", "Hexley"}, "no test document reached the generator"
    costs = {one["stage"]: one for one in results["cost"]}
    assert all(one["peak_bytes"] > 0 for one in costs.values() if "left_out" not in one)
    assert costs["bridges/seed-0/adapt-katsuo"]["unit"] == "tokens trained on"
    assert costs["bridges/seed-0/generate-katsuo"]["amount"] > 0
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert results["verdict"].split("(")[0].strip() in (out / "report.html").read_text(encoding="utf-8")

    steps.clear()
    again = api.run(experiment, out, on_step=steps.append)
    assert {step.state for step in steps} == {"was done", "left out"}
    assert again == results


@pytest.mark.slow
def test_every_baseline_is_had_with_a_real_model(bridges: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    write_rows(bridges[1], places=5)
    prompted = {"engine": "fake", "model": "fake", "codec": "bonito-v1", "sampling": {"n": 1}}
    told = recipe(*bridges, model, test_share=0.8, prompted=prompted, seeds=[0, 1])
    del told["adapt"]["max_steps"]  # one pass: each would take as many updates as it has examples
    results = api.run(experiment_from(told), tmp_path / "out")
    scores = results["sets"]["bridges"]["scores"]
    systems = {"katsuo", "majority", "zero-shot", "self-supervised", "prompted", "shuffled", "supervised"}
    assert set(scores) == systems
    assert {name: len(one["seeds"]) for name, one in scores.items()} == {
        **dict.fromkeys(systems, 2), "zero-shot": 1, "majority": 1,
    }  # fmt: skip
    manifests = [
        json.loads((tmp_path / "out" / place / "katsuo.json").read_text())
        for place in results["adapters"]["bridges"].values()
    ]
    assert {one["examples"] for one in manifests} != {manifests[0]["examples"]}
    assert {one["fitted"]["steps"] for one in manifests} == {4}, "all trainings take as many updates"
    assert set(results["forgetting"]["sets"]["bridges"]) == systems - {"majority", "zero-shot"}
    assert results["forgetting"]["zero-shot"]["perplexity"] > 1


@pytest.mark.slow
def test_a_killed_experiment_goes_on_and_ends_like_one_that_was_left_alone(
    bridges: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(quick(bridges, model, forgetting=None)))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "katsuo", "run", str(path), "-o", str(out), "--quiet"]
    process = subprocess.Popen(command, start_new_session=True)
    marker = out / "stages" / "bridges" / "seed-0" / "generate-katsuo.json"
    while not marker.is_file():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = marker.stat().st_mtime_ns
    subprocess.run(command, check=True)
    assert marker.stat().st_mtime_ns == before
    alone = api.run(path, tmp_path / "alone")
    killed = json.loads((out / "results.json").read_text())
    assert killed["sets"] == json.loads(json.dumps(alone["sets"]))
