"""The sections about examples: the ledger as a flow, labels, lengths, some that were kept and some that were not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from katsuo.report.parts import Figure, Section, Table
from katsuo.report.read import RunStory


def tell_run(run: RunStory, bins: Sequence[int], *, is_alone: bool, is_folded: bool = False) -> Iterator[Section]:
    """Tell what became of a run's prompts."""
    summary, title = run.summary, "Examples" if is_alone else f"Examples, {run.name}"
    rows = [["kept", task, str(count)] for task, count in sorted(summary.kept_by_task.items())]
    rows += [
        ["left out", reason, str(count)] for reason, count in sorted(summary.rejected.items(), key=lambda one: -one[1])
    ]
    words = [
        f"{summary.documents:,} documents, {summary.passages:,} passages, {summary.prompts:,} prompts, "
        f"{summary.kept:,} examples kept.",
        *filter(None, [", ".join(f"{key}: {value}" for key, value in run.facts.items())]),
    ]
    left_out = [
        [kind, reason, str(count)]
        for kind, reasons in (("document", summary.documents_rejected), ("passage", summary.passages_rejected))
        for reason, count in reasons.items()
    ]
    figures = []
    if summary.prompts:
        told = {"prompts": summary.prompts, "kept": dict(summary.kept_by_task), "rejected": dict(summary.rejected)}
        data = Table("From prompts to kept examples", ["", "task type or reason", "prompts"], rows)
        figures.append(Figure("flow", f"What became of {summary.prompts:,} prompts", told, data))
    figures += list(_balance(run))
    if summary.kept:
        figures.append(_lengths(run, bins))
    tables = [Table("Left out before anything was asked", ["kind", "reason", "count"], left_out)] if left_out else []
    yield Section(title, words=words, tables=tables, figures=figures, is_folded=is_folded)
    yield Section(f"{title}: some that were kept", examples=run.examples, is_folded=not is_alone)
    yield Section(f"{title}: some that were rejected", examples=run.rejects, is_folded=True)


def _balance(run: RunStory) -> Iterator[Figure]:
    if not run.labels:
        return
    rows = [[task, label, str(count)] for task, counts in run.labels.items() for label, count in counts.items()]
    data = Table("Label balance", ["task type", "answer", "examples"], rows)
    yield Figure("labels", "How often each label is the answer", run.labels, data)


def _lengths(run: RunStory, bins: Sequence[int]) -> Figure:
    names = [f"{low}–{high - 1}" for low, high in pairwise(bins)] + [f"{bins[-1]}+"]
    kinds = list(run.lengths)
    rows = [[name, *(str(run.lengths[kind][place]) for kind in kinds)] for place, name in enumerate(names)]
    data = Table("Lengths", ["words", *kinds], rows)
    values = {"bins": names, "counts": run.lengths}
    return Figure("lengths", "Words of instruction (without its passage), response and passage", values, data)
