"""
Draw figures as SVG for the middle of a page: no script, no font of a server, the same bytes for the same values.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart; marks, hatches and
words say the same, so that a black-and-white print loses nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Line
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, RED, PINK, SKY, YELLOW, BLACK = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00"),
    *("#CC79A7", "#56B4E9", "#F0E442", "#000000"),
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, YELLOW)
_MARKS = "osD^vPX*"
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
_WIDTH = 4.8
"""Inches: on a phone's 360 points the letters are still of nine."""
_LONGEST_LABEL = 34
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.5,
    "text.parse_math": False,
}


def draw(kind: str, values: Any, *, name: str) -> str:
    """Give the SVG element of a figure; `name` keeps its inner ids apart from those of other figures of the page."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = _KINDS[kind](values)
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Inner ids are those of one drawing: on a page of several each needs its own.
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)


def _gains(told: Mapping[str, Any]) -> Canvas:
    """Draw a line with its point for each system."""
    values = told["lines"]
    canvas, axes = _canvas(0.27 * len(values) + 0.7)
    for place, one in enumerate(values):
        _gain_line(axes, -place, one, _look(place))
    axes.axvline(0, color=BLACK, linewidth=1)
    axes.set_yticks([-place for place in range(len(values))], [_short(f"over {one['baseline']}") for one in values])
    low, high = told["ends"]
    room = 0.04 * max(high - low, 1e-9)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(-len(values) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("points gained")
    return canvas


def _gain_line(axes: Axes, place: int, one: Mapping[str, Any], look: tuple[str, str]) -> None:
    """Draw an interval and its point; one that holds zero is hollow."""
    colour, mark = look
    axes.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
    axes.plot(list(one["templates"].values()), [place] * len(one["templates"]), "|", color="#555555", markersize=7)
    is_clear = one["low"] > 0 or one["high"] < 0
    face = colour if is_clear else "white"
    axes.plot([one["difference"]], [place], mark, color=colour, markerfacecolor=face, markersize=7)


def _learning(values: Sequence[Mapping[str, Any]]) -> Canvas:
    canvas, axes = _canvas(2.6 + 0.2 * len(values))
    for place, one in enumerate(values):
        colour, mark = _look(place)
        for key, style in (("loss", "-"), ("held_out_loss", mark + "--")):
            points = [(line["step"], line[key]) for line in one["metrics"] if line.get(key) is not None]
            if points:
                label = one["name"] + (", held out" if key == "held_out_loss" else "")
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, label=_short(label), markersize=5, linewidth=1.4
                )
    axes.set_xlabel("update")
    axes.set_ylabel("loss (nats per token)")
    canvas.legend(loc="outside lower left", ncols=1, frameon=False, fontsize=8)
    return canvas


def _flow(told: Mapping[str, Any]) -> Canvas:
    """Draw a band from the prompts to each task type that was kept and to each reason that was not."""
    kept = sorted(told["kept"].items(), key=lambda one: -one[1])
    rejected = sorted(told["rejected"].items(), key=lambda one: -one[1])
    ends = [(f"kept: {name}", count, BLUE) for name, count in kept]
    ends += [(f"left out: {name}", count, ORANGE) for name, count in rejected]
    to_do = told["prompts"] - sum(count for _, count, _ in ends)
    ends += [("not asked yet", to_do, "#999999")] if to_do > 0 else []
    canvas, axes = _canvas(0.3 * len(ends) + 0.6)
    axes.axis("off")
    total = max(1, told["prompts"])
    gap = 0.06
    height = 1 + gap * (len(ends) - 1)
    left = right = height
    left -= gap * (len(ends) - 1) / 2
    axes.add_patch(_band(0.0, 0.02, (left - 1, left), (left - 1, left), BLACK))
    axes.text(-0.02, left - 0.5, f"{told['prompts']:,}\nprompts", ha="right", va="center")
    for place, (name, count, colour) in enumerate(ends):
        share = count / total
        shown = max(share, 0.004)
        axes.add_patch(
            _band(0.02, 0.45, (left - share, left), (right - shown, right), colour, hatch=_HATCHES[place % 8])
        )
        axes.text(0.47, right - share / 2, f"{name}: {count:,}", va="center", fontsize=8.5)
        left, right = left - share, right - share - gap
    axes.set_xlim(-0.33, 1.35)
    axes.set_ylim(-0.05, height + 0.05)
    return canvas


def _band(
    x0: float, x1: float, start: tuple[float, float], end: tuple[float, float], colour: str, hatch: str = ""
) -> PathPatch:
    middle = (x0 + x1) / 2
    points = [(x0, start[1]), (middle, start[1]), (middle, end[1]), (x1, end[1]), (x1, end[0])]
    points += [(middle, end[0]), (middle, start[0]), (x0, start[0]), (x0, start[1])]
    codes = [Line.MOVETO, *[Line.CURVE4] * 3, Line.LINETO, *[Line.CURVE4] * 3, Line.CLOSEPOLY]
    return PathPatch(Line(points, codes), facecolor=colour, edgecolor="white", linewidth=0.5, alpha=0.8, hatch=hatch)


def _labels(values: Mapping[str, Mapping[str, int]]) -> Canvas:
    rows = [(task, label, count) for task, counts in values.items() for label, count in counts.items()]
    canvas, axes = _canvas(0.28 * len(rows) + 0.8)
    tasks = list(values)
    for place, (task, _, count) in enumerate(reversed(rows)):
        number = tasks.index(task)
        colour, hatch = COLOURS[number % 8], _HATCHES[number % 8]
        axes.barh(place, count, color=colour, hatch=hatch, edgecolor="white")
        axes.text(count, place, f" {count:,}", va="center", fontsize=8)
    names = [(label or "(empty)", task) for task, label, _ in reversed(rows)]
    shown = [label if len(tasks) == 1 else f"{label}  ({task})" for label, task in names]
    axes.set_yticks(range(len(rows)), [_short(one) for one in shown])
    axes.set_xlabel("examples")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return canvas


def _lengths(values: Mapping[str, Any]) -> Canvas:
    canvas, axes = _canvas(2.6)
    kinds = list(values["counts"])
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        at = [number + (place - (len(kinds) - 1) / 2) * width for number in range(len(values["bins"]))]
        axes.bar(
            at,
            values["counts"][kind],
            width,
            color=COLOURS[place],
            hatch=_HATCHES[place],
            edgecolor="white",
            label=kind,
        )
    axes.set_xticks(range(len(values["bins"])), values["bins"], fontsize=7.5)
    axes.set_xlabel("words")
    axes.set_ylabel("examples")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Looking for the emptiest corner takes time, and matplotlib warns of that on a busy machine.
    canvas.legend(loc="outside upper right", ncols=len(kinds), frameon=False, fontsize=8)
    return canvas


def _cost(values: Sequence[Mapping[str, Any]]) -> Canvas:
    canvas, axes = _canvas(0.22 * len(values) + 0.8)
    for place, one in enumerate(reversed(values)):
        axes.barh(place, one["minutes"], color=BLUE)
        axes.text(one["minutes"], place, f" {one['minutes']:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(values)), [_short(one["stage"]) for one in reversed(values)])
    axes.set_xlabel("minutes")
    return canvas


_KINDS: dict[str, Callable[[Any], Canvas]] = {
    "gains": _gains,
    "learning": _learning,
    "flow": _flow,
    "labels": _labels,
    "lengths": _lengths,
    "cost": _cost,
}


def _canvas(height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
    return canvas, canvas.subplots()


def _look(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], _MARKS[place % len(_MARKS)]


def _short(text: str) -> str:
    shown = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
    return shown.replace("\n", " ")
