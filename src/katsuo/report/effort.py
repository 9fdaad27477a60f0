"""The sections about effort: learning curves, and what each stage cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katsuo.report.parts import NOTHING, Figure, Section, Table, number
from katsuo.report.read import Training


def tell_learning(trainings: Sequence[Training]) -> Section:
    """Tell how the losses fell."""
    lines = [one for one in trainings if one.metrics]
    rows = [
        [one.name, str(line["step"]), number(line.get("loss"), 3), number(line.get("held_out_loss"), 3)]
        for one in lines
        for line in one.metrics
    ]
    values = [{"name": one.name, "metrics": one.metrics} for one in lines]
    data = Table("Learning curves", ["training", "update", "loss", "held-out loss"], rows)
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
    figure = Figure("learning", "Loss by update: lines are training, marks are held-out examples", values, data)
    return Section("Learning curves", tables=[Table("Trainings", columns, facts)], figures=[figure] if lines else [])


def tell_cost(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell minutes, tokens and memory by stage."""
    done = [one for one in results["cost"] if "seconds" in one]
    rows = [
        [
            one["stage"],
            *(_minutes(one.get(key)) for key in ("seconds", "cpu_seconds")),
            f"{one['amount']:,} {one['unit']}" if "amount" in one else NOTHING,
            f"{one['peak_bytes'] / 1e6:,.0f}" if one.get("peak_bytes") else NOTHING,
        ]
        for one in done
    ]
    rows += [
        [one["stage"], NOTHING, NOTHING, f"left out: {one['left_out']}", NOTHING]
        for one in results["cost"]
        if "left_out" in one
    ]
    columns = ["stage", "minutes", "processor minutes", "worked through", "peak memory (MB)"]
    total, machine = sum(one["seconds"] for one in done) / 60, results["machine"]
    data = Table("Cost by stage", columns, rows)
    values = [{"stage": one["stage"], "minutes": one["seconds"] / 60} for one in done]
    yield Section(
        "Cost",
        words=[
            f"{total:.1f} minutes in all, on {machine['cores']} cores ({machine['system']}, "
            f"Python {machine['python']})."
        ],
        tables=[data],
        figures=[
            Figure(
                "cost", "Minutes by stage", values, Table("Minutes by stage", columns[:2], [row[:2] for row in rows])
            )
        ]
        if done
        else [],
    )


def _minutes(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds / 60:.1f}"
