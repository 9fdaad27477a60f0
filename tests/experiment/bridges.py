"""A small experiment: reports about bridges, labelled questions about some of them, a tiny model, no real generator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PLACES = ("Aldern", "Borin", "Cassel", "Dorwick", "Elmet", "Farlow", "Garth", "Hexley")
YEARS = range(1901, 1909)


def small_model_at(folder: Path) -> Path:
    """Write the tiny model that the training tests use."""
    spec = importlib.util.spec_from_file_location("train_conftest", ROOT / "train" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    saved: Path = module.save_small_model(folder, "llama")
    return saved


def write_documents(folder: Path) -> Path:
    """Write a report about each bridge."""
    folder.mkdir()
    for place, year in zip(PLACES, YEARS, strict=True):
        text = f"The bridge at {place} was opened in {year} after {year - 1890} years of work by the {place} company."
        (folder / f"{place}.txt").write_text(
            f"{text} It carries the road from {place} to the sea and is made of stone."
        )
    return folder


def write_rows(path: Path, places: int = 4) -> Path:
    """Write labelled yes-no questions about the first `places` bridges."""
    rows: list[dict[str, Any]] = []
    for place, year in list(zip(PLACES, YEARS, strict=True))[:places]:
        text = f"The bridge at {place} was opened in {year} after {year - 1890} years of work by the {place} company."
        rows += [
            {
                "passage": text,
                "question": f"Was the bridge opened in {asked}?",
                "answer": "yes" if asked == year else "no",
            }
            for asked in range(year - 4, year + 4)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(documents: Path, rows: Path, model: Path | str, **changes: Any) -> dict[str, Any]:
    """Give the settings of the experiment."""
    return {
        "model": str(model),
        "sets": {"bridges": {"documents": [str(documents)], "task": "ynqa", "data": str(rows)}},
        "generate": {"engine": "fake", "model": "fake", "sampling": {"n": 2}},
        "adapt": {"max_steps": 2, "batch_size": 2, "micro_batch_size": 2, "dtype": "float32", "data": {"held_out": 0}},
        "evaluate": {"templates": 2},
        **changes,
    }
