"""Score one system on one or more data sets: ask, keep every prediction, add up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy

from katsuo.errors import UsageError
from katsuo.evaluate.ask import Examiner, Prediction
from katsuo.evaluate.folder import Draft, Evaluation, open_draft
from katsuo.evaluate.metrics import majority, score_labels
from katsuo.evaluate.overlap import Overlap, find_overlap, texts_of
from katsuo.evaluate.settings import EvaluateSettings, identity
from katsuo.evaluate.suites import Sheet, Suite, make_sheet
from katsuo.evaluate.suites.items import gold_labels, portions
from katsuo.evaluate.suites.rows import find_data, read_rows, rename
from katsuo.evaluate.system import System, open_examiner
from katsuo.places import place_here
from katsuo.store import Run

_ITEMS_PER_PART = 32
FEWEST_ITEMS = 30
"""With fewer items an interval by percentiles is too narrow to be trusted."""


@dataclass(frozen=True)
class Progress:
    """How far an evaluation has come."""

    set: str
    done: int
    total: int
    per_s: float = 0.0


OnProgress = Callable[[Progress], None]


def read_sheet(suite: Suite, data: Path | None, settings: EvaluateSettings) -> Sheet:
    """Read a suite's rows and write its questions."""
    place = find_data(suite.data, data, suite_file=Path(suite.file))
    rows = rename(read_rows(place), suite.columns, where=place)
    narrowed = suite.narrowed(settings.templates)
    return make_sheet(narrowed, rows, limit=settings.limit, seed=settings.seed)


def read_labels(suite: Suite, data: Path) -> list[str]:
    """Read the labels that occur in a file of a suite's rows; one is enough there."""
    return gold_labels(suite, rename(read_rows(data), suite.columns, where=data))


def judge(
    system: System,
    sheets: Sequence[Sheet],
    output: Path,
    settings: EvaluateSettings,
    *,
    run: Path | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Evaluation:
    """
    Score a system on data sets, and leave a folder with the scores and every prediction.

    The same call goes on where a stopped one ended, some items with all their templates at a time. With `run`, the
    run's passages and examples are searched for the test rows.
    """
    output = place_here(output, "an evaluation")
    names = [sheet.suite.name for sheet in sheets]
    if len(set(names)) < len(names):
        raise UsageError("a data set is given twice", hint="give each suite once")
    examiner, told = open_examiner(system, settings)
    for sheet in sheets:
        examiner.check(is_ranked=sheet.suite.is_ranked)
    asked = {"format": "katsuo-evaluation-1", "system": system.name, **told, "settings": identity(settings)}
    asked["sets"] = {sheet.suite.name: hash_of(sheet) for sheet in sheets}
    draft = open_draft(output, asked)
    if finished := draft.finished():
        return finished if run is None else draft.amend(_with_overlaps(finished.scores, sheets, run))
    started = time.monotonic()
    for sheet in sheets:
        _answer(sheet, examiner, draft, on_progress)
    seconds = time.monotonic() - started
    scores = {sheet.suite.name: summary(sheet, draft.read(sheet.suite.name)) for sheet in sheets}
    mean = float(numpy.mean([one["mean"] for one in scores.values()]))
    told = {**asked, "sets": scores, "mean": mean, "seconds": round(seconds, 3)}
    return draft.finish(names, told if run is None else _with_overlaps(told, sheets, run))


def summary(sheet: Sheet, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Give a set's scores by template, their mean and spread, and what a reader has to be warned of."""
    suite = sheet.suite
    by_template = {
        template.name: _scores(suite, sheet.labels, [one for one in predictions if one.template == template.name])
        for template in suite.templates
    }
    counted = [scores[suite.metric] for scores in by_template.values()]
    told: dict[str, Any] = {
        "task_type": suite.task_type,
        "metric": suite.metric,
        "asked": hash_of(sheet),
        "items": len(sheet.items),
        "rows": sheet.rows,
        "left_out": dict(sheet.left_out),
        "mean": float(numpy.mean(counted)),
        "spread": float(numpy.std(counted)),
        "templates": by_template,
        "cut_prompts": sum(one.cut_chars > 0 for one in predictions),
        "prompt_tokens": sum(one.prompt_tokens for one in predictions),
        "warnings": _warnings(sheet),
    }
    if suite.is_ranked and sheet.labels:
        golds = [_label(sheet.labels, item.golds[0]) for item in sheet.items]
        told["majority"] = majority(golds)
    return told


def _answer(sheet: Sheet, examiner: Examiner, draft: Draft, on_progress: OnProgress) -> None:
    name, done, fresh, started = sheet.suite.name, 0, 0, time.monotonic()
    for part, items in portions(sheet.items, _ITEMS_PER_PART):
        if not draft.has(name, part):
            draft.write_part(name, part, examiner.examine([one for item in items for one in sheet.of(item)]))
            fresh += len(items)
        done += len(items)
        on_progress(Progress(name, done, len(sheet.items), fresh / max(time.monotonic() - started, 1e-9)))


def _scores(suite: Suite, labels: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, Any]:
    mean_score = _mean([one.score for one in predictions])
    if not suite.is_ranked:
        return {
            "f1": mean_score,
            "exact_match": _mean([one.exact for one in predictions]),
            "words": _mean([_words(one.prediction) for one in predictions]),
            "gold_words": _mean([_mean([_words(gold) for gold in one.golds]) for one in predictions]),
        }
    if suite.metric != "macro_f1":
        return {"accuracy": mean_score}
    golds = [labels[one.gold_choice] for one in predictions]
    chosen = [labels[one.choice] for one in predictions]
    return {**score_labels(golds, chosen), "chosen": {label: chosen.count(label) for label in labels}}


def left_out_words(count: int, reason: str) -> str:
    """Say that so many test rows are not asked about."""
    return f"{count} {reason} test rows left out"


def _warnings(sheet: Sheet) -> list[str]:
    told = [left_out_words(count, reason) for reason, count in sheet.left_out.items()]
    if len(sheet.items) < FEWEST_ITEMS:
        told.append(f"only {len(sheet.items)} items: too few for a verdict")
    return told


def _with_overlaps(told: Mapping[str, Any], sheets: Sequence[Sheet], run: Path) -> dict[str, Any]:
    """Give scores with what the test rows share with a run, in place of what they shared with one before."""
    opened, sets = Run(run), dict(told["sets"])
    for sheet in sheets:
        overlap, one = find_overlap(sheet.items, texts_of(opened)), sets[sheet.suite.name]
        before = Overlap(**one["overlap"]).warning if "overlap" in one else ""
        warnings = [text for text in one["warnings"] if text != before]
        warnings += [overlap.warning] if overlap.warning else []
        sets[sheet.suite.name] = {**one, "overlap": asdict(overlap), "warnings": warnings}
    return {**told, "sets": sets}


def hash_of(sheet: Sheet) -> str:
    """Give a hash of all that is asked, of where it may be cut, of what the answers should be and of what counts."""
    digest = blake2b("\0".join([sheet.suite.metric, *sheet.labels]).encode("utf-8", "surrogatepass"), digest_size=8)
    for item in sheet.items:
        for question in sheet.of(item):
            asked = [item.id, question.template, question.instruction(), *question.choices, *item.golds]
            asked += [str(question.gold), item.near, *question.parts]
            digest.update("\0".join(asked).encode("utf-8", "surrogatepass") + b"\1")
    return digest.hexdigest()


def _label(labels: Sequence[str], gold: str) -> str:
    return next(label for label in labels if label.casefold() == gold.casefold())


def _words(text: str) -> int:
    return len(text.split())


def _mean(values: Sequence[float]) -> float:
    return float(numpy.mean(values)) if values else 0.0
