"""Runs that are made from others: examples with passages of other examples, and examples from labelled rows."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from katsuo.config import Recipe
from katsuo.evaluate.ask import ROOM_FOR_TURNS
from katsuo.evaluate.fit import CountTokens, fit
from katsuo.evaluate.judge import read_sheet
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import Question, Sheet, Suite
from katsuo.pipeline.chunk import passage_id
from katsuo.records import Example, Passage, Summary
from katsuo.store import Run, create_run

_HUMAN = "labels"


def shuffle_passages(run: Run, output: Path, seed: int) -> int:
    """
    Write a run whose questions and answers are those of `run`, each beside the passage of another example.

    What a model learns from it is the form of the task, not what the passages say. Give how many examples kept their
    own passage: those of a type with a single passage.
    """
    examples = list(run.examples())
    others = _exchanged(examples, seed)
    shuffled = [_moved(example, other) for example, other in zip(examples, others, strict=True)]
    kept = sum(one.context == other.context for one, other in zip(examples, others, strict=True))
    _write(output, run.recipe, list(run.passages()), shuffled)
    return kept


def make_supervised(
    suite: Suite,
    rows: Path,
    output: Path,
    *,
    templates: Sequence[str] | int | None,
    max_tokens: int,
    count_tokens: CountTokens,
) -> int:
    """
    Write a run of labelled rows as a person answered them, one template per row in turn; give the number of examples.

    Adapting to it is the upper bound that labels of the same kind would give. Passages are cut as those of test rows
    are, until instruction, answer and the marks of a chat are within `max_tokens`.
    """
    sheet = read_sheet(suite, rows, EvaluateSettings(templates=templates))  # type: ignore[arg-type]
    count = len(sheet.suite.templates)
    questions = [sheet.of(item)[place % count] for place, item in enumerate(sheet.items)]
    longest = max(count_tokens([_answer(question) for question in questions]))
    fitted = fit(questions, max_tokens - ROOM_FOR_TURNS - longest, count_tokens)
    examples = [_labelled(sheet, question, one.passage) for question, one in zip(questions, fitted, strict=True)]
    passages = {
        one.passage_id: Passage(one.passage_id, one.context, one.source, one.char_start, one.char_end)
        for one in examples
    }
    recipe = Recipe(documents=(rows.name,), tasks=tuple(filter(None, [suite.task_type])), engine=_HUMAN, model=_HUMAN)
    _write(output, recipe, list(passages.values()), examples)
    return len(examples)


def _exchanged(examples: Sequence[Example], seed: int) -> list[Example]:
    """Give for each example one of its task type about another passage: in a drawn order, each takes the next one's."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        groups[example.task_type].append(place)
    others = list(examples)
    for places in groups.values():
        by_passage: dict[str, list[int]] = defaultdict(list)
        for place in places:
            by_passage[examples[place].context].append(place)
        passages = list(by_passage)
        random.Random(f"{seed} {len(passages)}").shuffle(passages)  # noqa: S311 - a reproducible order, no secret
        for number, passage in enumerate(passages):
            donor = examples[by_passage[passages[(number + 1) % len(passages)]][0]]
            for place in by_passage[passage]:
                others[place] = donor
    return others


def _moved(example: Example, other: Example) -> Example:
    swap = (example.context, other.context)
    return replace(
        example,
        instruction=example.instruction.replace(*swap) if example.context else example.instruction,
        context=other.context,
        passage_id=other.passage_id,
        source=other.source,
        char_start=other.char_start,
        char_end=other.char_end,
    )


def _answer(question: Question) -> str:
    return question.choices[question.gold] if question.choices else question.item.golds[0]


def _labelled(sheet: Sheet, question: Question, cut: str | None) -> Example:
    """Make an example of a row; one whose question alone is too long stays whole, and training counts it."""
    item, passage = question.item, question.item.passage if cut is None else cut
    start = item.passage.find(passage)
    return Example(
        id=f"{item.id}",
        task_type=sheet.suite.task_type or sheet.suite.name,
        instruction=question.instruction(passage),
        response=_answer(question),
        passage_id=passage_id(sheet.suite.name, start, passage),
        source=f"{sheet.suite.name}#row={item.row}",
        char_start=start,
        char_end=start + len(passage),
        context=passage,
        model=_HUMAN,
        engine=_HUMAN,
        sampling="",
        prompt_hash="",
        seed=0,
        checks=(),
    )


def _write(output: Path, recipe: Recipe, passages: Sequence[Passage], examples: Sequence[Example]) -> None:
    """Write a whole run of one shard, which nothing was asked for and nothing was left out of."""
    run = create_run(output, recipe, resume="if-possible")
    counts: dict[str, int] = defaultdict(int)
    for example in examples:
        counts[example.task_type] += 1
    if not run.is_read():
        run.clear_passages()
        run.write_passages(0, passages, [])
        run.write_documents_done(
            {"documents": 0, "documents_rejected": {}, "passages": len(passages), "passages_rejected": {}}
            | {"prompts": len(examples), "seconds": 0.0}
        )
    ended = {"kept": len(examples), "kept_by_task": dict(counts), "rejected": {}, "new_tokens": 0, "seconds": 0.0}
    run.write_shard_done(0, examples, [], ended)
    summary: Summary = run.summary()
    run.write_manifest(
        {"format": 1, "model": {"model": recipe.model, "engine": recipe.engine}, "summary": asdict(summary)}
    )
