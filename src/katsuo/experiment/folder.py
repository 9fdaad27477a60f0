"""
The folder of an experiment: the only code that knows the file names inside it.

    OUT/
    ├── experiment.yaml                 every setting
    ├── stages/SET/seed-0/adapt.json    written last: what a stage cost, and its command; .log beside it
    ├── sets/SET/split/                 documents for the generator, test rows, what was held out
    ├── sets/SET/seed-0/settings/       recipes of the commands
    ├── sets/SET/seed-0/runs/SYSTEM     run folders
    ├── sets/SET/seed-0/adapters/SYSTEM
    ├── sets/SET/seed-0/scores/SYSTEM   evaluations; of the model as it is: sets/SET/scores/zero-shot
    ├── sets/SET/seed-0/general/SYSTEM  general abilities; of the model as it is: general/zero-shot
    ├── results.json                    all numbers
    └── report.html, report.md, report.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from katsuo import places
from katsuo.errors import StoreError
from katsuo.experiment.settings import Experiment
from katsuo.resume import refuse_occupied, refuse_other
from katsuo.settings import build, read_yaml

ZERO_SHOT = "zero-shot"
_HELD = "experiment.yaml"


class ExperimentFolder:
    """An experiment on disk; raise `StoreError` for any other folder, unless `experiment` says what is to be there."""

    def __init__(self, path: Path | str, experiment: Experiment | None = None) -> None:
        self.path = Path(path)
        if experiment is None and not is_experiment(self.path):
            raise StoreError(f'"{self.path}" holds no experiment', hint="make one with `katsuo run recipe.yaml -o OUT`")
        self.experiment = experiment or _read_held(self.path)
        """The settings that the experiment is made with."""

    def split(self, name: str) -> Path:
        """Give the folder of a set's split."""
        return self.path / "sets" / name / "split"

    def settings(self, name: str, seed: int) -> Path:
        """Give the folder of the recipes that the commands read."""
        return self._seed(name, seed) / "settings"

    def run(self, name: str, seed: int, system: str) -> Path:
        """Give a run folder."""
        return self._seed(name, seed) / "runs" / system

    def adapter(self, name: str, seed: int, system: str) -> Path:
        """Give the folder of a training."""
        return self._seed(name, seed) / "adapters" / system

    def scores(self, name: str, seed: int, system: str) -> Path:
        """Give the folder of an evaluation; that of the model as it is does not depend on the seed."""
        place = self.path / "sets" / name if system == ZERO_SHOT else self._seed(name, seed)
        return place / "scores" / system

    def general(self, name: str, seed: int, system: str) -> Path:
        """Give the folder of a system's general abilities; those of the model as it is depend on no set."""
        return (self.path if system == ZERO_SHOT else self._seed(name, seed)) / "general" / system

    def log(self, stage: str) -> Path:
        """Give the file that a stage's output goes to."""
        return self.path / "stages" / f"{stage}.log"

    def marker(self, stage: str) -> dict[str, Any] | None:
        """Give what a finished stage cost, None for one that is not done."""
        path = self.path / "stages" / f"{stage}.json"
        return read_json(path) if path.is_file() else None

    def write_marker(self, stage: str, told: Mapping[str, Any]) -> None:
        """Write that a stage is done."""
        places.write_json(self.path / "stages" / f"{stage}.json", told)

    def write_results(self, told: Mapping[str, Any]) -> None:
        """Write all numbers."""
        places.write_json(self.path / "results.json", told)

    def results(self) -> dict[str, Any]:
        """Read all numbers."""
        return read_json(self.path / "results.json")

    def _seed(self, name: str, seed: int) -> Path:
        return self.path / "sets" / name / f"seed-{seed}"


def is_experiment(path: Path) -> bool:
    """Say whether a folder holds an experiment."""
    return (path / _HELD).is_file()


def open_folder(path: Path, experiment: Experiment) -> ExperimentFolder:
    """Make the folder, or take up the one that is there; raise `RunChangedError` when it holds another experiment."""
    folder = look_at(path, experiment)
    if not is_experiment(path):
        write_text(path / _HELD, experiment.to_yaml())
    return folder


def look_at(path: Path, experiment: Experiment) -> ExperimentFolder:
    """Give the folder that `open_folder` would, and write nothing."""
    path = places.place_here(path, "an experiment")
    if is_experiment(path):
        before, now = (one.model_dump(mode="json") for one in (_read_held(path), experiment))
        refuse_other(path, "experiment", before, now)
    else:
        refuse_occupied(path, "experiment")
    return ExperimentFolder(path, experiment)


def _read_held(path: Path) -> Experiment:
    """Read the settings as they were written: they were checked then, and what they name may be gone since."""
    held = path / _HELD
    return build(Experiment, read_yaml(held), where=f' in "{held}"', listed="docs/run.md")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; raise `StoreError`."""
    return places.read_json(path, hint="remove it and give the same command again")


def write_text(path: Path, text: str) -> None:
    """Write a text, whole; raise `StoreError`."""
    with places.whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


__all__ = [
    "ExperimentFolder",
    "is_experiment",
    "look_at",
    "open_folder",
    "read_json",
    "write_text",
]
