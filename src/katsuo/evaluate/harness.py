"""
Write the questions of a ranked set as a task of lm-evaluation-harness, which scores the same prompts and choices.

    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path DIR --tasks katsuo_SET

A chat is not written out: the harness puts the model's own template around each instruction (`--apply_chat_template`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from katsuo.engines import CanScore
from katsuo.errors import ExportError, RunExistsError, UsageError
from katsuo.evaluate.ask import Examiner
from katsuo.evaluate.suites import Sheet

_METRICS = '''"""Macro F1 as katsuo counts it: the mean of the F1 of every label that occurs, from 0 to 1."""


def macro_f1(pairs):
    """Average the labels' F1."""
    labels = {label for pair in pairs for label in pair}
    total = 0.0
    for label in labels:
        hits = sum(gold == found == label for gold, found in pairs)
        occurring = sum((gold == label) + (found == label) for gold, found in pairs)
        total += 2 * hits / occurring
    return total / len(labels)


def process_results(doc, results):
    """Take the likeliest choice; the harness hands over (log-likelihood, is greedy) for each."""
    values = [result[0] if isinstance(result, (tuple, list)) else result for result in results]
    found = values.index(max(values))
    return {"acc": float(found == doc["gold"]), "macro_f1": (doc["gold"], found)}
'''


def export_harness(sheets: Sequence[Sheet], examiner: Examiner, folder: Path) -> list[str]:
    """Write one task per data set and template, and one group per set; give the names of the groups."""
    if examiner.settings.normalise != "none":
        raise UsageError(
            f"a task of the harness cannot divide by {examiner.settings.normalise} as katsuo does",
            hint="leave out --normalise: the harness adds log-probabilities up",
        )
    if folder.exists() and any(folder.iterdir()):
        raise RunExistsError(f'"{folder}" is not empty', hint="give an empty or a new folder")
    groups = []
    for sheet in sheets:
        if not sheet.suite.is_ranked:
            raise UsageError(
                f'"{sheet.suite.name}" is not ranked, and only ranked sets can be scored the same way there',
                hint="leave it out of the export",
            )
        groups.append(_write_set(sheet, examiner, folder))
    return groups


def _write_set(sheet: Sheet, examiner: Examiner, folder: Path) -> str:
    group = f"katsuo_{sheet.suite.name}"
    place = folder / group
    names = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / "metrics.py").write_text(_METRICS, encoding="utf-8")
        rows_of = _rows(sheet, examiner)
        for number, template in enumerate(sheet.suite.templates):
            names.append(f"{group}_{number}")
            rows = rows_of[template.name]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (place / f"{names[-1]}.jsonl").write_text("".join(lines), encoding="utf-8")
            (place / f"{names[-1]}.yaml").write_text(_task(names[-1], place, template.name), encoding="utf-8")
        told = yaml.safe_dump({"group": group, "task": names}, sort_keys=False)
        (place / f"{group}.yaml").write_text(told, encoding="utf-8")
    except OSError as error:
        raise ExportError(f'cannot write "{place}": {error}', hint="check the space and the rights there") from error
    return group


def _rows(sheet: Sheet, examiner: Examiner) -> dict[str, list[dict[str, object]]]:
    """Give each template's rows; an item's templates are cut together, as they are when it is judged."""
    questions = [question for item in sheet.items for question in sheet.of(item)]
    rows: dict[str, list[dict[str, object]]] = defaultdict(list)
    end = _end(examiner) if any(examiner.has_end(question.choices) for question in questions) else ""
    for question, instruction in zip(questions, examiner.instructions(questions), strict=True):
        asked = examiner.ask(instruction)
        prompt = asked if isinstance(asked, str) else "\n\n".join(message.content for message in asked)
        has_end = examiner.has_end(question.choices)
        choices = [choice + end if has_end else choice for choice in question.choices]
        row = {"id": question.item.id, "prompt": prompt, "choices": choices, "gold": question.gold}
        rows[question.template].append(row)
    return rows


def _end(examiner: Examiner) -> str:
    """Give what is scored after an answer; raise `UsageError` where the engine cannot tell it."""
    end = examiner.engine.end_text(is_chat=examiner.is_chat) if isinstance(examiner.engine, CanScore) else ""
    if not end:
        raise UsageError(
            f'the engine "{examiner.settings.engine}" does not tell what ends an answer', hint="add --eos no"
        )
    return end


def _task(name: str, place: Path, template: str) -> str:
    head = {
        "task": name,
        "task_alias": template,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((place / f"{name}.jsonl").resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "target_delimiter": "",
    }
    metrics = (
        "process_results: !function metrics.process_results\n"
        "metric_list:\n"
        "- {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "- {metric: macro_f1, aggregation: !function metrics.macro_f1, higher_is_better: true}\n"
    )
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + metrics
