"""The sections of an experiment's scores: what it comes to, by data set, by template."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katsuo.report.parts import NOTHING, Figure, Section, Table, number, signed

METRICS = {"macro_f1": "macro F1", "accuracy": "accuracy", "f1": "F1"}
OURS = "katsuo"
_LEGEND = "In brackets the 95 % interval; n. s.: not significant, the interval holds zero."


def tell_scores(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell how each system did, and by how much ours is better."""
    sets = results["sets"]
    if not sets:
        return
    yield _lead(results)
    if len(sets) > 1:
        yield _by_set(results)
    yield Section("Templates", tables=[_by_template(name, told, results["systems"]) for name, told in sets.items()])
    further = [*_beside(sets, results["systems"]), *_by_seed(sets, results["systems"], results["seeds"])]
    if further:
        yield Section("Other scores", tables=further, is_folded=True)


def _lead(results: Mapping[str, Any]) -> Section:
    sets, systems = results["sets"], results["systems"]
    means, gains = results["mean"]["scores"], results["mean"]["gains"]
    shown = [key for key in systems if key in means]
    what = f"mean of {len(sets)} data sets" if len(sets) > 1 else next(iter(sets))
    metric = METRICS.get(results["metric"], results["metric"])
    spreads = {key: f" (± {_spread(one):.1f})" for key, one in next(iter(sets.values()))["scores"].items()}
    rows = [
        [
            f"{systems[key]['name']} ({systems[key]['meaning']})",
            number(means[key]) + (spreads.get(key, "") if len(sets) == 1 else ""),
            NOTHING if key == OURS else _gain(gains.get(key)),
        ]
        for key in shown
    ]
    table = Table(f"Scores: {what}", ["system", metric, "gain of katsuo's data"], rows, is_numbers=True)
    figures = []
    if values := [_point("", systems[key]["name"], gains[key], {}) for key in shown if key in gains]:
        if len(sets) == 1:
            (told,) = sets.values()
            for one, key in zip(values, (key for key in shown if key in gains), strict=True):
                one["templates"] = told["gains"][key]["templates"]
        figures.append(_gain_figure(f"Gain over each system: {what}", values))
    return Section("Scores", words=[*_counts(results), _LEGEND], tables=[table], figures=figures, is_lead=True)


def _counts(results: Mapping[str, Any]) -> Iterator[str]:
    """Say how much was asked."""
    asked: dict[str, list[str]] = defaultdict(list)
    for name, told in results["sets"].items():
        templates = len(told["templates"])
        asked[f"{told['items']:,} rows × {templates} template{'s' if templates != 1 else ''}"].append(name)
    seeds = results["seeds"]
    seeded = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    parts = [f"{amount} ({', '.join(names)})" for amount, names in asked.items()]
    yield f"{'; '.join(parts)}; {seeded}. The score is the mean over templates, ± is their spread."


def _by_set(results: Mapping[str, Any]) -> Section:
    """Tell scores and gains set by set."""
    sets, systems = results["sets"], results["systems"]
    shown = [key for key in systems if any(key in told["scores"] for told in sets.values())]
    header = ["system", *(f"{name} ({METRICS.get(told['metric'], told['metric'])})" for name, told in sets.items())]
    scores = [[systems[key]["name"], *(_score(told, key) for told in sets.values())] for key in shown]
    gains = [
        [systems[key]["name"], *(_gain(told["gains"].get(key)) for told in sets.values())]
        for key in shown
        if key != OURS
    ]
    values = {
        name: [
            _point(name, systems[key]["name"], told["gains"][key], told["gains"][key]["templates"])
            for key in shown
            if key in told["gains"]
        ]
        for name, told in sets.items()
    }
    ends = _ends([one for found in values.values() for one in found])
    return Section(
        "By data set",
        tables=[
            Table("Scores (± spread over templates)", header, scores, is_numbers=True),
            Table("Gain of katsuo's data over each system", header, gains, is_numbers=True),
        ],
        figures=[
            _gain_figure(f"{name}: gain over each system", found, ends) for name, found in values.items() if found
        ],
    )


def _point(name: str, baseline: str, gain: Mapping[str, Any], templates: Mapping[str, float]) -> dict[str, Any]:
    told = {key: gain[key] for key in ("difference", "low", "high", "is_significant")}
    return {"set": name, "baseline": baseline, **told, "templates": dict(templates)}


def _ends(values: Sequence[Mapping[str, Any]]) -> list[float]:
    """Give the ends of an axis that has room for all, so that figures beside each other can be compared."""
    there = [place for one in values for place in (one["low"], one["high"], 0.0, *one["templates"].values())]
    return [min(there, default=0.0), max(there, default=1.0)]


def _gain_figure(caption: str, values: Sequence[Mapping[str, Any]], ends: Sequence[float] = ()) -> Figure:
    rows = [
        [
            one["set"] or "all",
            one["baseline"],
            *(signed(one[key]) for key in ("difference", "low", "high")),
            ", ".join(f"{template} {signed(gain)}" for template, gain in one["templates"].items()) or NOTHING,
        ]
        for one in values
    ]
    has_templates = any(one["templates"] for one in values)
    more = ", small marks are single templates" if has_templates else ""
    data = Table("Gains", ["set", "over", "gain", "from", "to", "by template"], rows)
    told = {"lines": values, "ends": list(ends) or _ends(values)}
    return Figure("gains", f"{caption} (points are the gain, lines its 95 % interval{more})", told, data)


def _by_template(name: str, told: Mapping[str, Any], systems: Mapping[str, Any]) -> Table:
    keys = [key for key in systems if key in told["scores"]]
    rows = [
        [template, *(number(told["scores"][key]["templates"][template]) for key in keys)]
        for template in told["templates"]
    ]
    columns = ["template", *(systems[key]["name"] for key in keys)]
    return Table(f"{name}: scores by template", columns, rows, is_numbers=True)


def _beside(sets: Mapping[str, Any], systems: Mapping[str, Any]) -> Iterator[Table]:
    """Give what was scored beside the metric that counts."""
    for name, told in sets.items():
        found = {key: told["scores"][key]["beside"] for key in systems if told["scores"].get(key, {}).get("beside")}
        if found:
            keys = list(next(iter(found.values())))
            rows = [[systems[system]["name"], *(number(one.get(key)) for key in keys)] for system, one in found.items()]
            columns = ["system", *(METRICS.get(key, key.replace("_", " ")) for key in keys)]
            yield Table(f"{name}: scores beside {METRICS[told['metric']]}", columns, rows, is_numbers=True)


def _by_seed(sets: Mapping[str, Any], systems: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Table]:
    """Give the scores of each seed, where there are several."""
    if len(seeds) < 2:
        return
    for name, told in sets.items():
        found = [(key, told["scores"][key]["seeds"]) for key in systems if key in told["scores"]]
        rows = [[systems[key]["name"], *map(number, scores)] for key, scores in found if len(scores) == len(seeds)]
        yield Table(f"{name}: scores by seed", ["system", *(f"seed {seed}" for seed in seeds)], rows, is_numbers=True)


def _spread(score: Mapping[str, Any]) -> float:
    values = list(score["templates"].values())
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


def _score(told: Mapping[str, Any], key: str) -> str:
    score = told["scores"].get(key)
    return NOTHING if score is None else f"{score['mean']:.1f} (± {_spread(score):.1f})"


def _gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return NOTHING
    doubt = "" if gain["is_significant"] else ", n. s."
    return f"{signed(gain['difference'])} ({signed(gain['low'])} to {signed(gain['high'])}{doubt})"
