"""The sections about effort: learning curves, and what each stage cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katsuo.report.parts import NOTHING, Figure, Section, Table, number
from katsuo.report.read import Training


def tell_learning(trainings: Sequence[Training]) -> Section:
    """Tell how the losses fell, a figure for each data set."""
    by_set: dict[str, list[Training]] = defaultdict(list)
    for one in trainings:
        if one.metrics:
            by_set[one.name.partition(": ")[0]].append(one)
    facts = [
        [
            one.name,
            *(str(one.fitted.get(key, "")) for key in ("steps", "best_step")),
            *(number(one.fitted.get(key), 3) for key in ("first_held_out_loss", "held_out_loss")),
        ]
        for one in trainings
        if one.fitted
    ]
    columns = ["training", "updates", "weights of update", "held-out loss before", "after"]
    figures = [_curves(name, lines) for name, lines in by_set.items()]
    return Section("Learning curves", figures=figures, tables=[Table("Trainings", columns, facts, is_numbers=True)])


def _curves(name: str, trainings: Sequence[Training]) -> Figure:
    shown = [one.name.partition(": ")[2] or one.name for one in trainings]
    rows = [
        [label, str(line["step"]), number(line.get("loss"), 3), number(line.get("held_out_loss"), 3)]
        for label, one in zip(shown, trainings, strict=True)
        for line in one.metrics
    ]
    values = [{"name": label, "metrics": one.metrics} for label, one in zip(shown, trainings, strict=True)]
    data = Table("Learning curves", ["training", "update", "loss", "held-out loss"], rows, is_numbers=True)
    return Figure("learning", f"{name}: loss by update (lines are training, marks are held-out examples)", values, data)


def tell_cost(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell minutes, tokens and memory by kind of stage, and by stage."""
    done = [one for one in results["cost"] if "seconds" in one]
    if not done:
        return
    total = sum(one["seconds"] for one in done) / 60
    words = [
        f"{total:.1f} minutes in all, of the commands that finished a stage: what a stage that was killed had used "
        "before is not in it, and answers out of the cache took no time. The memory of a GPU is not counted.",
        *(f"On {machine}." for machine in results["machines"]),
    ]
    kinds = _by_kind(done)
    kind_rows = [_row(kind, stages) for kind, stages in kinds.items()]
    columns = ["minutes", "processor minutes", "worked through", "peak memory (MB)"]
    every = [_row(one["stage"], [one]) for one in done]
    every += [
        [one["stage"], NOTHING, NOTHING, f"left out: {one['left_out']}", NOTHING]
        for one in results["cost"]
        if "left_out" in one
    ]
    values = [{"stage": kind, "minutes": sum(one["seconds"] for one in stages) / 60} for kind, stages in kinds.items()]
    data = Table("Minutes by kind of stage", ["stages", *columns], kind_rows, is_numbers=True)
    table = Table("Cost by stage", ["stage", *columns], every, is_numbers=True, is_folded=True)
    yield Section("Cost", words=words, tables=[table], figures=[Figure("cost", "Minutes by stage", values, data)])


def _by_kind(done: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Put together what is the same stage of several data sets and seeds."""
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in done:
        kinds[one["stage"].rpartition("/")[2]].append(one)
    return kinds


def _row(name: str, stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Add up time and work; of memory the most."""
    cpu = [one["cpu_seconds"] for one in stages if one.get("cpu_seconds") is not None]
    work: dict[str, int] = defaultdict(int)
    for one in stages:
        if "amount" in one:
            work[one["unit"]] += one["amount"]
    peaks = [one["peak_bytes"] for one in stages if one.get("peak_bytes")]
    return [
        name,
        f"{sum(one['seconds'] for one in stages) / 60:.1f}",
        f"{sum(cpu) / 60:.1f}" if cpu else NOTHING,
        ", ".join(f"{amount:,} {unit}" for unit, amount in work.items()) or NOTHING,
        f"{max(peaks) / 1e6:,.0f}" if peaks else NOTHING,
    ]
