"""A real run without a model, and an experiment's folder with numbers in it as `katsuo run` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_numbers import results

from katsuo.api import generate

HOSTILE = '<script>alert(1)</script> $x$ | *bold* ``` & "quotes"\n```\n## No title\n'


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run about documents of which one is written to break a page, and one is a duplicate."""
    documents = tmp_path_factory.mktemp("documents")
    for number in range(6):
        (documents / f"{number}.txt").write_text(
            f"Report {number} says that the bridge opened in 19{number}0. {HOSTILE}"
        )
    (documents / "copy.txt").write_text((documents / "0.txt").read_text())
    path = tmp_path_factory.mktemp("runs") / "bridges"
    generate(documents, ["ynqa", "exqa"], path, engine="fake", model="fake")
    return path


@pytest.fixture
def experiment_folder(run_folder: Path, tmp_path: Path) -> Path:
    """An experiment: its numbers, a run and a training."""
    folder = tmp_path / "experiment"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "katsuo").symlink_to(run_folder)
    adapter = folder / "adapters" / "katsuo"
    adapter.mkdir(parents=True)
    lines = [
        {"step": 0, "held_out_loss": 2.5},
        {"step": 2, "loss": 2.0},
        {"step": 4, "loss": 1.5, "held_out_loss": 2.1},
    ]
    (adapter / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fitted = {"steps": 4, "best_step": 4, "first_held_out_loss": 2.5, "held_out_loss": 2.1}
    (adapter / "katsuo.json").write_text(json.dumps({"fitted": fitted}))
    (folder / "results.json").write_text(json.dumps(results()))
    return folder
