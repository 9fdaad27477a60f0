"""Go through the stages of an experiment: what is done is left alone, the rest is done, each in its own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from katsuo.experiment.folder import ExperimentFolder
from katsuo.experiment.plan import Stage, plan
from katsuo.experiment.process import machine, run_process


@dataclass(frozen=True)
class Step:
    """
    Where an experiment is: at stage `number` of `total`.

    `state` is "begins", "done", "was done" or "left out", with the reason in `line`; a line of the stage's own progress
    comes with "says".
    """

    stage: str
    number: int
    total: int
    state: str
    line: str = ""


OnStep = Callable[[Step], None]


def conduct(folder: ExperimentFolder, on_step: OnStep) -> None:
    """Do every stage that is not done yet; raise `RunnerError` for the first that fails."""
    stages = plan(folder)
    for number, stage in enumerate(stages, 1):
        do_stage(
            folder, stage, lambda state, line="", n=number, s=stage: on_step(Step(s.name, n, len(stages), state, line))
        )


def do_stage(folder: ExperimentFolder, stage: Stage, tell: Callable[..., None]) -> None:
    """Do one stage, and write its marker last."""
    if marker := folder.marker(stage.name):
        tell("left out" if marker.get("left_out") else "was done", marker.get("left_out", ""))
        return
    if reason := stage.skip():
        folder.write_marker(stage.name, {"left_out": reason})
        tell("left out", reason)
        return
    tell("begins")
    command = list(stage.command())
    cost = run_process(command, folder.log(stage.name), lambda line: tell("says", line))
    told: dict[str, Any] = {**asdict(cost), "command": ["python", *command[1:]], "machine": machine()}
    if spent := stage.spent():
        told |= {"amount": spent[0], "unit": spent[1]}
    folder.write_marker(stage.name, told)
    tell("done", f"{cost.seconds / 60:.1f} min")


def states(folder: ExperimentFolder) -> list[tuple[str, str]]:
    """List every stage with "done", "left out: …" or "to do"."""
    found = []
    for stage in plan(folder):
        marker = folder.marker(stage.name)
        state = "to do" if marker is None else f"left out: {marker['left_out']}" if "left_out" in marker else "done"
        found.append((stage.name, state))
    return found
