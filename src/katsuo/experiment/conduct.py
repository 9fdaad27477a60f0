"""Go through the stages of an experiment: what is done is left alone, the rest is done, each in its own process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from katsuo.errors import KatsuoError, RunnerError
from katsuo.experiment.folder import ExperimentFolder
from katsuo.experiment.plan import Stage, plan
from katsuo.experiment.process import machine, run_process


@dataclass(frozen=True)
class Step:
    """
    Where an experiment is: at stage `number` of `total`.

    `state` is "begins", "done", "was done", "left out", "failed" or "waits" for one that failed, with the reason in
    `line`; a line of the stage's own progress comes with "says".
    """

    stage: str
    number: int
    total: int
    state: str
    line: str = ""


OnStep = Callable[[Step], None]


def conduct(folder: ExperimentFolder, on_step: OnStep) -> None:
    """
    Do every stage that is not done yet.

    Where one fails, those that need it wait and all others are done. Then raise `RunnerError` for those that failed.
    """
    stages = plan(folder)
    failed: dict[str, KatsuoError] = {}
    waiting: set[str] = set()
    for number, stage in enumerate(stages, 1):

        def tell(state: str, line: str = "", number: int = number, stage: Stage = stage) -> None:
            on_step(Step(stage.name, number, len(stages), state, line))

        if missing := next((name for name in stage.needs if name in failed or name in waiting), ""):
            waiting.add(stage.name)
            tell("waits", f"for {missing}")
            continue
        try:
            do_stage(folder, stage, tell)
        except KatsuoError as error:
            failed[stage.name] = error
            tell("failed", str(error.message))
    if failed:
        raise _one_of(failed, waiting)


def _one_of(failed: Mapping[str, KatsuoError], waiting: Collection[str]) -> RunnerError:
    """Put what failed into one error: the first in full, the others by name."""
    (_, first), *others = failed.items()
    also = [f"{name} failed, too" for name, _ in others]
    also += [f"{len(waiting)} stages wait for them"] if waiting else []
    return RunnerError("\n".join([first.message, *also]), hint=first.hint)


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
