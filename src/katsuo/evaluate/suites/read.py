"""A suite is a YAML file: where the rows are, what the gold answer is, and templates that ask for it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from pydantic import Field, ValidationError

from katsuo.errors import TemplateError, UnknownNameError, UsageError
from katsuo.registry import unknown_name
from katsuo.settings import Settings
from katsuo.tasks import find_task
from katsuo.templates.library import Template, open_library, parse_templates
from katsuo.templates.lined import LinedYaml
from katsuo.templates.marks import expression_pattern

FOR_LABELS = "labels"
"""The suite for task types that sort one text under one of a few labels."""
_LABELLED = ("sentiment", "topic_class")


class _Template(Settings):
    name: str = Field(min_length=1)
    jinja: str | None = None
    answer_choices: str | None = None


class _Suite(Settings):
    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    task: str = ""
    data: str | None = None
    columns: dict[str, tuple[str, ...] | str] = Field(default_factory=dict)
    id: str | None = None
    passage: str | None = None
    near: str | None = None
    question: str | None = None
    gold: str = Field(min_length=1)
    labels: tuple[str, ...] | None = None
    promptsource: str | None = None
    replace: dict[str, str] = Field(default_factory=dict)
    templates: tuple[_Template, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Suite:
    """
    One data set and how it is asked about.

    `gold`, `passage`, `near`, `question` and `id` are Jinja over the columns of a row. With `labels` (empty: those that
    occur) or templates that have answer choices the set is ranked, else answers are written and compared. `columns`
    maps the names that the Jinja uses to those that the file may have for them.
    """

    name: str
    task_type: str
    gold: str
    templates: tuple[Template, ...]
    data: str | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    id: str | None = None
    passage: str | None = None
    near: str | None = None
    question: str | None = None
    labels: tuple[str, ...] | None = None
    file: str = ""

    @property
    def is_ranked(self) -> bool:
        """True when the answer is chosen among given ones."""
        return self.labels is not None or any(template.answer_choices for template in self.templates)

    @property
    def metric(self) -> str:
        """Name the metric that counts: macro F1 of labels, accuracy where each row has options of its own, else F1."""
        if not self.is_ranked:
            return "f1"
        return "accuracy" if self.labels is None else "macro_f1"

    def narrowed(self, wanted: Sequence[str] | int | None) -> Suite:
        """Give a suite with only the templates of these names, or the first so many."""
        if wanted is None:
            return self
        if isinstance(wanted, int):
            return replace(self, templates=self.templates[:wanted])
        known = {template.name: template for template in self.templates}
        for name in wanted:
            if name not in known:
                raise unknown_name("template", name, known)
        return replace(self, templates=tuple(known[name] for name in wanted))

    def relabelled(self, labels: Sequence[str] | None) -> Suite:
        """Give a suite whose labels are called so in the data, in the order of the suite's own."""
        if not labels:
            return self
        needed = len(self.labels or ())
        is_fixed = needed and any(one.answer_choices for one in self.templates)
        if self.labels is None or (is_fixed and len(labels) != needed):
            wanted = f"{needed} labels, for {', '.join(self.labels)}" if self.labels else "no labels"
            raise UsageError(f'the suite "{self.name}" takes {wanted}', hint="give --labels as many, in that order")
        return replace(self, labels=tuple(labels))

    def renamed(self, columns: Mapping[str, str]) -> Suite:
        """Give a suite whose names stand for these columns of the file."""
        for name in columns:
            if name not in self.columns:
                raise unknown_name("column role", name, self.columns)
        return replace(self, columns={**self.columns, **{name: (column,) for name, column in columns.items()}})


def known_suites() -> list[str]:
    """List the suites that come with katsuo."""
    folder = resources.files(__package__) / "known"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_suite(name_or_path: str) -> Suite:
    """Give a known suite by its name, or read one from a YAML file."""
    if name_or_path.endswith((".yaml", ".yml")):
        return read_suite(Path(name_or_path))
    if name_or_path not in known_suites():
        raise unknown_name("suite", name_or_path, known_suites())
    return read_suite(Path(str(resources.files(__package__) / "known" / f"{name_or_path}.yaml")))


def task_suite(task: str) -> Suite:
    """Give the suite that asks about any test set of a task type; a set of another kind needs a suite of its own."""
    task_type = find_task(task)
    place = Path(str(resources.files(__package__) / "tasks"))
    own = place / f"{task_type.short}.yaml"
    if own.is_file():
        return read_suite(own)
    if task_type.short in _LABELLED:
        return replace(read_suite(place / f"{FOR_LABELS}.yaml"), task_type=task_type.name)
    raise UsageError(
        f'there are no templates for test sets of "{task_type.name}"',
        hint="write a suite with your own: docs/evaluation.md shows one, `--suite my_suite.yaml` takes it",
    )


def read_suite(path: Path) -> Suite:
    """Read a suite; raise `TemplateError` with file and line for what is wrong with it."""
    file = LinedYaml(path, noun="suite")
    try:
        told = _Suite.model_validate(file.values)
    except ValidationError as error:
        raise _explained(file, error) from None
    templates = _templates(file, told)
    return Suite(
        name=told.name,
        task_type=_task_type(file, told.task),
        gold=told.gold,
        templates=templates,
        data=told.data,
        columns={name: (one,) if isinstance(one, str) else one for name, one in told.columns.items()},
        id=told.id,
        passage=told.passage,
        near=told.near,
        question=told.question,
        labels=told.labels,
        file=str(path),
    )


def _task_type(file: LinedYaml, name: str) -> str:
    if not name:
        return ""
    try:
        return find_task(name).name
    except UnknownNameError as error:
        raise TemplateError(f"{file.where('task')}: {error.message}", hint=error.hint) from None


def _templates(file: LinedYaml, told: _Suite) -> tuple[Template, ...]:
    borrowed = _borrowed(told)
    found: list[Template] = []
    for place, entry in enumerate(told.templates):
        where = file.where("templates", place, "name")
        if any(template.name == entry.name for template in found):
            raise TemplateError(f'{where}: "{entry.name}" is the name of two templates', hint="rename one of them")
        if entry.jinja is None and entry.name not in borrowed:
            raise TemplateError(
                f'{where}: template "{entry.name}" has no text',
                hint="add `jinja:`, or `promptsource:` to the suite and a name that stands there",
            )
        jinja = entry.jinja if entry.jinja is not None else borrowed[entry.name].jinja
        choices = entry.answer_choices or (borrowed[entry.name].answer_choices if entry.jinja is None else None)
        template = Template(entry.name, jinja, choices, file.line(("templates", place, "jinja")))
        _check(template, told, where)
        found.append(template)
    return tuple(found)


def _check(template: Template, told: _Suite, where: str) -> None:
    if told.passage and not expression_pattern(told.passage).search(template.jinja):
        raise TemplateError(
            f'{where}: template "{template.name}" never prints the passage',
            hint=f"put {told.passage} where the text is to stand",
        )
    choices = (template.answer_choices or "").count("|||") + 1
    if told.labels and template.answer_choices and "{" not in template.answer_choices and choices != len(told.labels):
        raise TemplateError(
            f'{where}: template "{template.name}" has {choices} answer choices for {len(told.labels)} labels',
            hint="give one for each label, in the same order, parted by |||",
        )


def _borrowed(told: _Suite) -> dict[str, Template]:
    """Give promptsource's templates by name, with the suite's replacements made."""
    if not told.promptsource or all(entry.jinja is not None for entry in told.templates):
        return {}
    dataset, _, config = told.promptsource.partition("/")
    text = open_library().text(dataset, config)
    if text is None:
        raise TemplateError(f'promptsource has no templates for "{told.promptsource}"', hint="write data set/config")
    for old, new in told.replace.items():
        text = text.replace(old, new)
    return {template.name: template for template in parse_templates(text, where=told.promptsource)}


def _explained(file: LinedYaml, error: ValidationError) -> TemplateError:
    """Name the first thing wrong: an unknown key before a missing one, because the one is often meant as the other."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    location = tuple(first["loc"])
    key = ".".join(str(step) for step in location) or "the suite"
    hint = "docs/evaluation.md shows a whole suite"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), [*_Suite.model_fields, *_Template.model_fields], n=1)
        hint = f'did you mean "{near[0]}"?' if near else hint
        return TemplateError(f'{file.where(*location)}: unknown key "{location[-1]}"', hint=hint)
    return TemplateError(f"{file.where(*location)}: {key}: {first['msg'].lower()}", hint=hint)
