"""The stages of an experiment that no command of its own has: `python -m katsuo.experiment STAGE FOLDER …`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from katsuo.errors import KatsuoError
from katsuo.experiment.derive import make_supervised, shuffle_passages
from katsuo.experiment.folder import ZERO_SHOT, ExperimentFolder
from katsuo.experiment.lifeline import hold_lifeline
from katsuo.experiment.settings import OURS
from katsuo.experiment.split import LABELLED, labels_of, split_set
from katsuo.store import Run


def _split(folder: ExperimentFolder, name: str) -> None:
    split_set(folder, name)


def _shuffled(folder: ExperimentFolder, name: str, seed: str) -> None:
    run = Run(folder.run(name, int(seed), OURS))
    kept = shuffle_passages(run, folder.run(name, int(seed), "shuffled"), int(seed))
    sys.stderr.write(f"{kept} examples kept their own passage\n")


def _supervised(folder: ExperimentFolder, name: str, seed: str) -> None:
    from katsuo.train.load import token_counter

    experiment = folder.experiment
    rows, output = folder.split(name) / LABELLED, folder.run(name, int(seed), "supervised")
    templates = experiment.evaluate_settings().templates
    data = experiment.train_recipe(name).data
    suite = experiment.sets[name].read_suite().relabelled(labels_of(folder, name))
    count = make_supervised(
        suite, rows, output, templates=templates,
        max_tokens=min(data.max_tokens, data.max_prompt_tokens or data.max_tokens),
        count_tokens=token_counter(experiment.model),
    )  # fmt: skip
    sys.stderr.write(f"{count} labelled examples\n")


def _general(folder: ExperimentFolder, name: str, seed: str, system: str) -> None:
    from katsuo.evaluate.system import find_system
    from katsuo.experiment.general import measure

    experiment = folder.experiment
    adapter = str(folder.adapter(name, int(seed), system))
    one = experiment.model if system == ZERO_SHOT else adapter
    found = find_system(one, base=None if system == ZERO_SHOT else experiment.model)
    assert experiment.forgetting is not None
    measure(found, folder.general(name, int(seed), system), experiment.evaluate_settings(), experiment.forgetting)


STAGES: dict[str, Callable[..., None]] = {
    "split": _split,
    "shuffled": _shuffled,
    "supervised": _supervised,
    "general": _general,
}


def main(words: Sequence[str]) -> int:
    """Do one stage; give the exit status."""
    stage, folder, *rest = words
    try:
        STAGES[stage](ExperimentFolder(Path(folder)), *rest)
    except KatsuoError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    hold_lifeline()
    sys.exit(main(sys.argv[1:]))
