"""The sections of an experiment's scores: gains, templates, test rows, forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from katsuo.report.parts import NOTHING, Figure, Section, Table, number, signed

METRICS = {"macro_f1": "macro F1", "accuracy": "accuracy", "f1": "F1"}


def tell_scores(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell how each system did, and by how much ours is better."""
    sets, systems = results["sets"], results["systems"]
    shown = [system for system in systems if any(system in told["scores"] for told in sets.values())]
    header = ["system", *(f"{name} ({METRICS.get(told['metric'], told['metric'])})" for name, told in sets.items())]
    rows = [
        [
            systems[key]["name"],
            *(_score(told, key) for told in sets.values()),
            number(results["mean"]["scores"].get(key)),
        ]
        for key in shown
    ]
    gains = [
        [
            systems[key]["name"],
            *(_gain(told["gains"].get(key)) for told in sets.values()),
            _gain(results["mean"]["gains"].get(key)),
        ]
        for key in shown
        if key != "katsuo"
    ]
    counts = ", ".join(
        f"{name}: {told['items']} rows × {len(told['templates'])} templates" for name, told in sets.items()
    )
    yield Section(
        "Scores",
        words=[counts + ".", "Seeds: " + ", ".join(str(seed) for seed in results["seeds"]) + "."],
        tables=[
            Table("Scores: mean over templates and seeds, ± spread over templates", [*header, "mean"], rows),
            Table(
                "Gain of katsuo's data over each, with its 95 % interval (paired bootstrap)", [*header, "mean"], gains
            ),
            Table(
                "What the systems are",
                ["system", "is"],
                [[systems[key]["name"], systems[key]["meaning"]] for key in shown],
            ),
        ],
        figures=[_gain_figure(results, shown)],
    )
    yield Section("Templates", tables=[_by_template(name, told, systems) for name, told in sets.items()])
    yield Section("Test rows", tables=[*_splits(sets), *_chosen(sets, systems)])
    if results["forgetting"]:
        yield _forgetting(results["forgetting"], systems)


def _gain_figure(results: Mapping[str, Any], shown: Sequence[str]) -> Figure:
    systems, values, rows = results["systems"], [], []
    for name, told in results["sets"].items():
        for key in shown:
            if gain := told["gains"].get(key):
                values.append({"set": name, "baseline": systems[key]["name"], **gain})
                dots = ", ".join(f"{template} {signed(one)}" for template, one in gain["templates"].items())
                rows.append(
                    [
                        name,
                        systems[key]["name"],
                        signed(gain["difference"]),
                        signed(gain["low"]),
                        signed(gain["high"]),
                        dots,
                    ]
                )
    data = Table("Gains", ["set", "over", "gain", "from", "to", "by template"], rows)
    return Figure(
        "gains", "Gain over each baseline: point and 95 % interval; small marks are single templates", values, data
    )


def _by_template(name: str, told: Mapping[str, Any], systems: Mapping[str, Any]) -> Table:
    keys = list(told["scores"])
    rows = [
        [template, *(number(told["scores"][key]["templates"][template]) for key in keys)]
        for template in told["templates"]
    ]
    return Table(f"{name}: scores by template", ["template", *(systems[key]["name"] for key in keys)], rows)


def _splits(sets: Mapping[str, Any]) -> Iterator[Table]:
    rows = []
    for name, told in sets.items():
        split, overlap = told["split"], told["overlap"] or {}
        rows.append(
            [
                name,
                *(str(split[key]) for key in ("documents", "documents_held_out")),
                *(str(count) for count in (told["items"], sum(told["left_out"].values()))),
                *(str(overlap.get(key, NOTHING)) for key in ("passages", "questions")),
            ]
        )
    columns = [
        "set",
        "documents",
        "held out",
        "test rows",
        "rows left out",
        "rows whose passage is in the run",
        "whose question is",
    ]
    yield Table("Split by document before generation, and test rows that share words with the run", columns, rows)


def _chosen(sets: Mapping[str, Any], systems: Mapping[str, Any]) -> Iterator[Table]:
    for name, told in sets.items():
        chosen = {key: counts for key, counts in told["chosen"].items() if counts}
        if chosen:
            labels = list(next(iter(chosen.values())))
            rows = [
                [systems[key]["name"], *(str(counts.get(label, 0)) for label in labels)]
                for key, counts in chosen.items()
            ]
            yield Table(f"{name}: how often each label was chosen, all templates", ["system", *labels], rows)


def _score(told: Mapping[str, Any], key: str) -> str:
    score = told["scores"].get(key)
    if score is None:
        return NOTHING
    values = list(score["templates"].values())
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return f"{score['mean']:.1f} ± {spread:.1f}"


def _gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return NOTHING
    doubt = "" if gain["is_significant"] else ", not significant"
    return f"{signed(gain['difference'])} ({signed(gain['low'])} to {signed(gain['high'])}{doubt})"


def _forgetting(told: Mapping[str, Any], systems: Mapping[str, Any]) -> Section:
    before = told["zero-shot"]
    keys = list(before)
    rows = [["", systems["zero-shot"]["name"], *(number(before[key]) for key in keys)]]
    for name, found in told["sets"].items():
        for system, one in found.items():
            rows.append([name, systems[system]["name"], *(_changed(one, key) for key in keys)])
    words = [
        "The same suite before and after: perplexity on general text (less is better), simple requests followed in "
        "form (percent), and tasks of other types where the recipe names some. In brackets the change, * where its 95 "
        "% interval excludes zero. Does not measure knowledge beyond these suites."
    ]
    return Section("Forgetting", words=words, tables=[Table("General abilities", ["set", "system", *keys], rows)])


def _changed(one: Mapping[str, Any], key: str) -> str:
    change = one["changes"].get(key)
    if change is None:
        return number(one.get(key))
    unit = " nats" if key == "perplexity" else ""
    digits = f"{change['difference']:+.2f}" if unit else signed(change["difference"])
    return f"{number(one.get(key))} ({digits}{unit}{'*' if change['is_significant'] else ''})"
