"""A user's own task type, from a YAML file and no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from katsuo.errors import UsageError
from katsuo.settings import Settings
from katsuo.tasks import checks
from katsuo.tasks.catalog import find_task
from katsuo.tasks.codec import require_marker_free
from katsuo.tasks.shapes import PLACEHOLDER, AnswerShape, Labels, Options, Span, Text, Whole
from katsuo.tasks.task_type import Check, Draft, TaskType, Worked


class _Example(Settings):
    passage: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    response: str = Field(min_length=1)


class _TaskFile(Settings):
    name: str = Field(min_length=1, max_length=100)
    short: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    description: str = Field(min_length=1)
    answer: Literal["span", "options", "labels", "text", "whole"]
    labels: tuple[str, ...] = ()
    examples: tuple[_Example, ...] = Field(min_length=1)


_SHAPE_CHECKS: dict[str, tuple[Check, ...]] = {
    "span": (checks.about_passage, checks.answer_in_passage, checks.not_given_away),
    "options": (checks.about_passage, checks.answer_an_option),
    "labels": (checks.answer_in_labels,),
    "text": (),
    "whole": (checks.about_passage, checks.is_whole_passage),
}


def load_task(name_or_path: str) -> TaskType:
    """Give a task type by name, or from a .yaml or .yml file; raise `UsageError` for what is wrong in it."""
    if name_or_path.endswith((".yaml", ".yml")):
        return read_task(Path(name_or_path))
    return find_task(name_or_path)


def read_task(path: Path) -> TaskType:
    """Read a task type from YAML: name, description, answer (one of the five shapes), labels, examples."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = _TaskFile.model_validate(values)
    except OSError as error:
        raise UsageError(f'cannot read the task type "{path}": {error.strerror}', hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f'the task type "{path}" is not YAML: {error}', hint="check the indentation") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "file"
        raise UsageError(
            f'the task type "{path}" is not complete: {key}: {first["msg"].lower()}',
            hint="docs/tasks.md shows a whole file; `examples/clause_type.yaml` is one",
        ) from None
    examples = (text for one in file.examples for text in (one.passage, one.instruction, one.response))
    for text in (file.name, file.description, *file.labels, *examples):
        require_marker_free(text, where=f'the task type "{path}"')
    task = _build(file, path)
    _check_examples(task, path)
    return task


def _build(file: _TaskFile, path: Path) -> TaskType:
    shapes: dict[str, AnswerShape] = {"span": Span(), "options": Options(), "text": Text(), "whole": Whole()}
    if file.answer == "labels":
        if len(set(file.labels)) < 2:
            raise UsageError(f'the task type "{path}" needs two labels or more', hint="add `labels: [one, two]`")
        shapes["labels"] = Labels((file.labels,))
    elif file.labels:
        raise UsageError(f'the task type "{path}" has labels but answer: {file.answer}', hint="set `answer: labels`")
    return TaskType(
        name=file.name,
        short=file.short or path.stem,
        description=file.description,
        answer=shapes[file.answer],
        checks=(checks.refers_to_passage, checks.not_copied, *_SHAPE_CHECKS[file.answer]),
        examples=tuple(Worked(e.passage, e.instruction, e.response) for e in file.examples),
    )


def _check_examples(task: TaskType, path: Path) -> None:
    for number, example in enumerate(task.examples, 1):
        draft = Draft(task, example.passage, example.instruction, example.response)
        reason = checks.first_failure(draft)
        if reason:
            raise UsageError(
                f'example {number} of the task type "{path}" fails its own check: {reason}',
                hint=f"put {PLACEHOLDER} into the instruction, and let the response fit the kind of `answer`",
            )
