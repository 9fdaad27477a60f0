"""The sections of what a reader has to trust: test rows, labels chosen, general abilities, what is still to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from katsuo.report.parts import NOTHING, Section, Table, number, signed


def tell_rows(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell what was held out, what test rows share with the runs, and how often each label was chosen."""
    sets = results["sets"]
    if sets:
        yield Section("Test rows", tables=[_splits(sets), *_chosen(sets, results["systems"])])


def tell_forgetting(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell what the systems lost beside the task."""
    told, systems = results["forgetting"], results["systems"]
    if not told:
        return
    before = told["zero-shot"]
    keys = list(before)
    rows = [[systems["zero-shot"]["name"], *(number(before[key]) for key in keys)]]
    for name, found in told["sets"].items():
        where = f"{name}: " if len(told["sets"]) > 1 else ""
        for system, one in found.items():
            rows.append([where + systems[system]["name"], *(_changed(one, key) for key in keys)])
    counts = told["items"]
    rows.append(["items", *(str(counts[key]) for key in keys)])
    words = [
        "The same suite before and after: perplexity on general text (less is better), simple requests followed in "
        "form (percent), and tasks of other types where the recipe names some. In brackets the change (of perplexity "
        "in nats per token), * where its 95 % interval excludes zero; intervals of fewer than "
        "thirty items are too narrow. Does not measure knowledge beyond these suites."
    ]
    table = Table("General abilities", ["system", *keys], rows, is_numbers=True)
    yield Section("Forgetting", words=words, tables=[table])


def tell_rest(results: Mapping[str, Any]) -> Iterator[Section]:
    """Tell what an unfinished experiment still has to do."""
    if rest := results.get("to_do"):
        total = len(results["cost"])
        words = [f"{total - len(rest)} of {total} stages are done. The same command goes on with these:"]
        yield Section("Not finished", words=words, code="\n".join(rest))


def _splits(sets: Mapping[str, Any]) -> Table:
    rows = []
    for name, told in sets.items():
        split, overlap = told["split"], told["overlap"] or {}
        counts = [split[key] for key in ("documents", "documents_unread", "documents_held_out")]
        counts += [told["items"], sum(told["left_out"].values()), split["rows_without_document"], told["cut_prompts"]]
        shared = (str(overlap.get(key, NOTHING)) for key in ("passages", "questions"))
        rows.append([name, *(f"{count:,}" for count in counts), *shared])
    columns = [
        *("set", "documents", "unreadable", "held out", "test rows", "left out", "of no document here"),
        *("prompts cut", "passage in the run", "question in the run"),
    ]
    caption = (
        "Split by document before generation; prompts of all templates whose passage was too long for them; test rows "
        "whose words stand in the run (13 in a row)"
    )
    return Table(caption, columns, rows, is_numbers=True)


def _chosen(sets: Mapping[str, Any], systems: Mapping[str, Any]) -> Iterator[Table]:
    for name, told in sets.items():
        chosen = {key: counts for key, counts in told["chosen"].items() if counts}
        if chosen:
            labels = list(next(iter(chosen.values())))
            rows = [
                [systems[key]["name"], *(str(counts.get(label, 0)) for label in labels)]
                for key, counts in chosen.items()
            ]
            if gold := told.get("gold"):
                rows.insert(0, ["right answers", *(str(gold.get(label, 0)) for label in labels)])
            caption = f"{name}: how often each label was chosen, all templates"
            yield Table(caption, ["system", *labels], rows, is_numbers=True)


def _changed(one: Mapping[str, Any], key: str) -> str:
    change = one["changes"].get(key)
    if change is None:
        return number(one.get(key))
    digits = signed(change["difference"], 2 if key == "perplexity" else 1)
    return f"{number(one.get(key))} ({digits}{'*' if change['is_significant'] else ''})"
