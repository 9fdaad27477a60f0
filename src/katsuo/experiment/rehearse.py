"""Look at everything that an experiment names before its first stage: what is missing is told now, not hours later."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from katsuo.errors import MissingPackageError
from katsuo.evaluate.judge import read_sheet
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import load_suite
from katsuo.experiment.folder import ExperimentFolder
from katsuo.experiment.split import all_labels, named_documents, read_documents, rows_of

_PACKAGES = {"train": ("torch", "peft", "accelerate"), "report": ("matplotlib",)}
_ONE = EvaluateSettings(limit=1)


def rehearse(folder: ExperimentFolder) -> None:
    """
    Read rows, labels, templates and general suites, and find documents; raise a `KatsuoError` for what cannot be.

    A set whose split is done is left alone: its rows were read then, and lie in the folder.
    """
    experiment = folder.experiment
    for extra, packages in _PACKAGES.items():
        for package in packages:
            if find_spec(package) is None:
                raise MissingPackageError(
                    f'an experiment needs the package "{package}", which is not installed',
                    hint=f"pip install 'katsuo[{extra}]'",
                )
    for name, one in experiment.sets.items():
        if folder.marker(f"{name}/split"):
            continue
        suite = one.read_suite().narrowed(experiment.evaluate_settings().templates)
        file, rows = rows_of(one)
        sheet = read_sheet(suite, file, _ONE)
        named_documents(rows, sheet.items, one.document_column, file)
        if one.labelled:
            read_sheet(suite.relabelled(all_labels(one, sheet)), Path(one.labelled), _ONE)
        next(read_documents(one), None)  # what cannot be found is an error of its own
    if experiment.forgetting is not None:
        data = Path(experiment.forgetting.data) if experiment.forgetting.data else None
        for path in experiment.forgetting.suites:
            read_sheet(load_suite(path), data, _ONE)
