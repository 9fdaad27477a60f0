"""Read what a report tells: the numbers of an experiment, its runs and its trainings; or one run by itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from katsuo.errors import StoreError
from katsuo.places import read_json
from katsuo.records import Example, Reject, Summary
from katsuo.store import Run
from katsuo.tasks import known_tasks
from katsuo.tasks.shapes import Labels

_ANEW = "give the command that wrote it again"
_MOST_LABELS = 8
"""A task type of the user's own whose answers are this few different ones has labels."""
_MOST_LABEL_WORDS = 4
_BINS = (0, 5, 10, 20, 40, 80, 160, 320)
_SHOWN_CHARS = 600
_GENERATED = ("katsuo", "prompted")
"""Runs that a generator wrote; those made from others or from labels have no ledger of their own."""


@dataclass(frozen=True)
class RunStory:
    """What is told about one run."""

    name: str
    summary: Summary
    labels: Mapping[str, Mapping[str, int]]
    lengths: Mapping[str, list[int]]
    examples: list[dict[str, str]]
    rejects: list[dict[str, str]]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """A training's lines of metrics, and what came out."""

    name: str
    metrics: list[dict[str, float]]
    fitted: Mapping[str, Any]


@dataclass(frozen=True)
class Story:
    """Everything that a report tells."""

    title: str
    results: Mapping[str, Any]
    runs: list[RunStory]
    trainings: list[Training]
    recipe: str
    bins: tuple[int, ...] = field(default=_BINS)

    def plain(self) -> dict[str, Any]:
        """Give the same as plain values."""
        return asdict(self)


def read_story(path: Path, *, examples: int) -> Story:
    """Read an experiment or a run; raise `StoreError` for any other folder."""
    results_file = path / "results.json"
    if results_file.is_file():
        results = read_json(results_file, hint=_ANEW)
        runs = [
            read_run(path / place, f"{name}: {_name(results, system)}", examples)
            for name, systems in results["runs"].items()
            for system, place in systems.items()
            if system in _GENERATED
        ]
        trainings = [
            read_training(path / place, f"{name}: {_name(results, system)}")
            for name, systems in results["adapters"].items()
            for system, place in systems.items()
        ]
        return Story(results["name"], results, runs, trainings, results["recipe"])
    if (path / "recipe.yaml").is_file():
        told = read_run(path, path.resolve().name, examples)
        return Story(told.name, {}, [told], [], (path / "recipe.yaml").read_text(encoding="utf-8"))
    raise StoreError(
        f'"{path}" holds neither a run nor a finished experiment',
        hint="give the folder of `katsuo generate -o` or `katsuo run -o`",
    )


def read_run(path: Path, name: str, examples: int) -> RunStory:
    """Read a run's ledger, and count and pick from its examples and rejects in one pass."""
    run = Run(path)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    lengths = {"instruction": [0] * len(_BINS), "response": [0] * len(_BINS), "passage": [0] * len(_BINS)}
    shown: dict[str, list[dict[str, str]]] = defaultdict(list)
    for example in run.examples():
        answers[example.task_type][example.response.strip()[:200]] += 1
        question = _question(example)
        for what, text in (("instruction", question), ("response", example.response), ("passage", example.context)):
            lengths[what][_bin(len(text.split()))] += 1
        if len(shown[example.task_type]) < examples:
            shown[example.task_type].append(_example(example, question))
    manifest = run.manifest
    facts = {
        "model": str(manifest.get("model", {}).get("model", "")),
        "adapter": str(manifest.get("adapter") or ""),
        "codec": str(manifest.get("codec", "")),
        "stopped": str(manifest.get("stopped") or ""),
    }
    return RunStory(
        name,
        run.summary(),
        {task: dict(counts.most_common()) for task, counts in answers.items() if _are_labels(task, counts)},
        lengths,
        [one for found in shown.values() for one in found],
        _some_rejects(run.rejects(), examples),
        {key: value for key, value in facts.items() if value},
    )


def read_training(path: Path, name: str) -> Training:
    """Read a training's metrics; raise `StoreError` for a line that is none."""
    file = path / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        metrics = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise StoreError(f'cannot read "{file}": {error}', hint="the training has to be done again") from error
    manifest = path / "katsuo.json"
    return Training(name, metrics, read_json(manifest, hint=_ANEW).get("fitted", {}) if manifest.is_file() else {})


def _name(results: Mapping[str, Any], system: str) -> str:
    return str(results["systems"][system]["name"])


def _question(example: Example) -> str:
    """Give the instruction without the passage."""
    return example.instruction.replace(example.context, " […] ") if example.context else example.instruction


def _are_labels(task: str, counts: Counter[str]) -> bool:
    """Say whether answers are labels: by the task type, or by the looks of them for one of the user's own."""
    if known := known_tasks().get(task):
        return isinstance(known.answer, Labels)
    is_short = all(len(answer.split()) <= _MOST_LABEL_WORDS for answer in counts)
    return is_short and len(counts) <= _MOST_LABELS and counts.total() > len(counts)


def _bin(words: int) -> int:
    return max(place for place, low in enumerate(_BINS) if words >= low)


def _example(example: Example, question: str) -> dict[str, str]:
    return {
        "task type": example.task_type,
        "instruction": _shortened(question.strip()),
        "response": _shortened(example.response),
        "passage": _shortened(example.context),
        "source": f"{example.source} {example.char_start}–{example.char_end}",
    }


def _some_rejects(rejects: Iterable[Reject], count: int) -> list[dict[str, str]]:
    shown: dict[str, list[dict[str, str]]] = defaultdict(list)
    for one in rejects:
        if len(shown[str(one.reason)]) < count:
            told = {"kind": one.kind, "reason": str(one.reason), "task type": one.task_type, "source": one.source}
            shown[str(one.reason)].append({**told, "text": _shortened(one.text or one.detail)})
    return [one for found in shown.values() for one in found]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 100]} […] {text[-90:]}"
