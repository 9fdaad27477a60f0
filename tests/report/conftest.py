"""A real run without a model, and an experiment's folder with numbers in it as `katsuo run` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def gain(difference: float, low: float, high: float) -> dict[str, object]:
    told = {"difference": difference, "low": low, "high": high, "items": 40}
    return {**told, "is_significant": low > 0 or high < 0}


def results() -> dict[str, object]:
    """Give numbers in the shape of `results.json`."""
    keys = ("katsuo", "majority", "zero-shot", "shuffled")
    scores = {
        key: {
            "mean": 50.0 - place,
            "templates": {"first": 52.0 - place, "second": 48.0 - place},
            "seeds": [50.0 - place],
        }
        for place, key in enumerate(keys)
    }
    gains = {"majority": gain(1.0, -2.0, 4.0), "zero-shot": gain(2.04, 0.5, 3.5), "shuffled": gain(-3.0, -5.0, -1.0)}
    told = {
        "task_type": "yes-no question answering",
        "metric": "macro_f1",
        "items": 40,
        "rows": 42,
        "left_out": {"empty": 1, "duplicate": 1},
        "templates": ["first", "second"],
        "scores": scores,
        "gains": {key: {**one, "templates": {"first": 1.5, "second": 2.5}} for key, one in gains.items()},
        "chosen": {"katsuo": {"yes": 30, "no": 50}},
        "split": {"documents": 9, "documents_held_out": 4, "held_out": []},
        "overlap": {"items": 40, "passages": 1, "questions": 0, "rows": ["3"]},
        "warnings": ["1 empty test rows left out"],
    }
    changes = {"perplexity": gain(0.2, 0.1, 0.3), "requests followed": gain(-4.2, -9.0, 1.0)}
    return {
        "format": "katsuo-results-1",
        "name": "bridges",
        "verdict": "+2.0 macro F1 over zero-shot (95 % 0.5 to 3.5, n = 40)",
        "warnings": [],
        "metric": "macro_f1",
        "systems": {key: {"name": f"name of {key}", "meaning": f"meaning of {key}"} for key in (*keys, "supervised")},
        "sets": {"bridges": told},
        "mean": {"scores": {key: one["mean"] for key, one in scores.items()}, "gains": gains},
        "forgetting": {
            "zero-shot": {"perplexity": 18.0, "requests followed": 50.0},
            "sets": {"bridges": {"katsuo": {"perplexity": 22.0, "requests followed": 45.8, "changes": changes}}},
        },
        "cost": [
            {"stage": "bridges/split", "seconds": 6.0, "cpu_seconds": 3.0, "peak_bytes": 90_000_000, "command": []},
            {
                "stage": "bridges/adapt",
                "seconds": 90.0,
                "cpu_seconds": None,
                "peak_bytes": None,
                "amount": 4096,
                "unit": "tokens",
            },
            {"stage": "bridges/supervised", "left_out": "there are no labelled rows"},
        ],
        "seeds": [0],
        "runs": {"bridges": {"katsuo": "runs/katsuo"}},
        "adapters": {"bridges": {"katsuo": "adapters/katsuo"}},
        "recipe": "model: small\n",
        "machine": {"cores": 2, "system": "Linux x86_64", "python": "3.11.7"},
    }


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
