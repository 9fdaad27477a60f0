"""From a suite and its rows to questions: what each template asks about each row, and what the answer should be."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from katsuo.errors import SourceError, TemplateError
from katsuo.evaluate.suites.read import Suite
from katsuo.evaluate.suites.rows import nearest_column
from katsuo.records import Reason
from katsuo.templates.library import Template
from katsuo.templates.marks import HERE, PIPE, SEPARATOR, expression_pattern
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.environment import RenderError
from katsuo.templates.sandbox.render import Compiled, Renderer, absent, protect, unprotect
from katsuo.templates.sandbox.watch import Watch

_TIME_LIMIT_S = 2.0
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Item:
    """One row: its passage, what it asks (for the search for overlaps), what to cut near, and its gold answers."""

    id: str
    row: int
    passage: str
    question: str
    near: str
    golds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One item as one template asks it: `parts` stand around the passage; `gold` is the place of the right choice."""

    item: Item
    template: str
    parts: tuple[str, ...]
    choices: tuple[str, ...] = ()
    gold: int = -1

    def instruction(self, passage: str | None = None) -> str:
        """Write the instruction with the passage, or with what is left of it."""
        return (self.item.passage if passage is None else passage).join(self.parts).strip()


@dataclass(frozen=True)
class Sheet:
    """All questions of a suite, item by item, and what became of the rows that gave none."""

    suite: Suite
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    questions: Mapping[tuple[int, str], Question]
    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def of(self, item: Item) -> list[Question]:
        """Give an item's questions, in the order of the templates."""
        return [self.questions[item.row, template.name] for template in self.suite.templates]


def make_sheet(suite: Suite, rows: Sequence[Mapping[str, Any]], *, limit: int | None = None, seed: int = 0) -> Sheet:
    """
    Ask about every row with every template, or about `limit` rows drawn by hash.

    Rows without a passage, a question or a gold answer and repeated rows are left out and counted. Raise `SourceError`
    for a label outside the set, `TemplateError` for a template that fails on a row or reads an unknown column.
    """
    labels = suite.labels
    with Watch(_TIME_LIMIT_S) as watch:
        writer = _Writer(suite, watch, _columns(rows))
        items, left_out = _items(writer, rows)
        if labels is not None:
            labels = _labels(suite, items)
        if not items:
            raise SourceError(f'"{suite.name}" has no usable test row', hint="every row needs a passage and an answer")
        if limit is not None:
            chosen = sorted(items, key=lambda item: _hash(f"{seed} {item.row}"))[:limit]
            items = sorted(chosen, key=lambda item: item.row)
        questions = {
            (item.row, template.name): writer.question(item, template, rows[item.row], labels)
            for item in items
            for template in suite.templates
        }
    return Sheet(suite, labels or (), tuple(items), questions, len(rows), left_out)


def gold_labels(suite: Suite, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give the labels that occur in rows that could be asked about, in order."""
    with Watch(_TIME_LIMIT_S) as watch:
        items, _ = _items(_Writer(suite, watch, _columns(rows)), rows)
    return sorted({item.golds[0] for item in items})


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({key for row in rows[:1000] for key in row})


def _items(writer: _Writer, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Item], dict[str, int]]:
    found: list[Item] = []
    seen: set[tuple[str, ...]] = set()
    left_out = {"empty": 0, "duplicate": 0}
    for number, row in enumerate(rows):
        item = writer.item(number, row)
        if item is None:
            left_out["empty"] += 1
            continue
        key = (item.passage, *writer.asked(item, row), *item.golds)
        if key in seen:
            left_out["duplicate"] += 1
            continue
        seen.add(key)
        found.append(item)
    ids = {item.id for item in found}
    if len(ids) < len(found):
        raise SourceError(
            f'the ids of "{writer.suite.name}" are not unique: {len(found) - len(ids)} occur again',
            hint="leave `id:` out of the suite to number the rows",
        )
    return found, {reason: count for reason, count in left_out.items() if count}


def _labels(suite: Suite, items: Sequence[Item]) -> tuple[str, ...]:
    """Give the set of labels; raise `SourceError` for a gold label outside it."""
    there = sorted({item.golds[0] for item in items})
    if not suite.labels:
        return labels_in(suite, there)
    folded = {label.casefold() for label in suite.labels}
    odd = [label for label in there if label.casefold() not in folded]
    if odd:
        raise SourceError(
            f'"{suite.name}" has the label "{odd[0]}", which is not among: {", ".join(suite.labels)}',
            hint="give with --labels what stands in the data for each of those, in that order; "
            f"in the data stand: {', '.join(there[:_MOST_NAMED])}{', …' * (len(there) > _MOST_NAMED)}",
        )
    return suite.labels


def labels_in(suite: Suite, golds: Iterable[str]) -> tuple[str, ...]:
    """Give the labels that occur, in order; raise `SourceError` for two that differ only by case."""
    found = sorted(set(golds))
    by_word: dict[str, str] = {}
    for label in found:
        if (other := by_word.setdefault(label.casefold(), label)) != label:
            raise SourceError(
                f'"{suite.name}" has the labels "{other}" and "{label}", which differ only by case',
                hint="write each label one way in the data",
            )
    return tuple(found)


class _Writer:
    """The suite's Jinja, compiled once."""

    def __init__(self, suite: Suite, watch: Watch, columns: Sequence[str]) -> None:
        self.suite = suite
        self._columns = columns
        self._renderer = Renderer(Draws(0, suite.name), watch)
        fields = ("passage", "question", "near", "id")
        self._fields = {name: self._compile(name, getattr(suite, name)) for name in fields}
        self._gold = self._renderer.compile("gold", "", suite.gold)
        self._known(self._gold, "gold")
        self._templates = {template.name: self._template(template) for template in suite.templates}

    def item(self, number: int, row: Mapping[str, Any]) -> Item | None:
        """Give what is known about a row, None for one that cannot be asked about."""
        values = protect({name: "" if value is None else value for name, value in row.items()})
        told = {name: self._render(compiled, values, number) for name, compiled in self._fields.items()}
        golds = tuple(gold for gold in self._choices(self._gold, values, number) if gold)
        if not golds or any(getattr(self.suite, name) and not told[name] for name in ("passage", "question")):
            return None
        return Item(told["id"] or str(number), number, told["passage"], told["question"], told["near"], golds)

    def asked(self, item: Item, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Write what a row asks in the first template, the choices with it: rows that differ in it are not the same."""
        template = self.suite.templates[0]
        compiled = self._templates[template.name]
        values = protect({**row, "labels": list(self.suite.labels or ())})
        self._renderer.draws.enter(item.row, template.name)
        prompt = self._render(compiled, values, item.row).split(PIPE)[0]
        return prompt, *(self._choices(compiled, values, item.row) if template.answer_choices else ())

    def question(
        self, item: Item, template: Template, row: Mapping[str, Any], labels: tuple[str, ...] | None
    ) -> Question:
        """Ask about an item with a template."""
        compiled = self._templates[template.name]
        values = protect({**row, "labels": list(labels or ())})
        self._renderer.draws.enter(item.row, template.name)
        prompt = self._render(compiled, values, item.row).split(PIPE)[0]
        parts = tuple(unprotect(part) for part in prompt.split(HERE))
        if not "".join(parts).strip() and not item.passage:
            raise TemplateError(
                f'template "{template.name}" asks nothing for row {item.row}', hint="check the condition around it"
            )
        if not self.suite.is_ranked:
            return Question(item, template.name, parts)
        choices = tuple(self._choices(compiled, values, item.row)) if template.answer_choices else labels or ()
        return Question(item, template.name, parts, choices, self._place(item, template, choices, labels, row))

    def _place(
        self, item: Item, template: Template, choices: tuple[str, ...], labels: tuple[str, ...] | None,
        row: Mapping[str, Any],
    ) -> int:  # fmt: skip
        """Find the right choice: that of the gold label, else the option of that text, letter or number."""
        gold = item.golds[0].casefold()
        if len(choices) < 2 or len({choice.casefold() for choice in choices}) < len(choices):
            raise SourceError(
                f'template "{template.name}" gives no two different choices for row {item.row}: {list(choices)}',
                hint="check answer_choices and the row",
            )
        if labels is not None:
            if len(choices) != len(labels):
                raise TemplateError(
                    f'template "{template.name}" gives {len(choices)} answer choices for row {item.row}, '
                    f"and there are {len(labels)} labels: {', '.join(labels)}",
                    hint="give one choice for each label, in the same order, parted by |||",
                )
            return [label.casefold() for label in labels].index(gold)
        return self._option(item, choices, row)

    def _option(self, item: Item, choices: tuple[str, ...], row: Mapping[str, Any]) -> int:
        gold = item.golds[0].casefold()
        folded = [choice.casefold() for choice in choices]
        if gold in folded:
            place = folded.index(gold)
            if self._is_number(gold, row) and place != int(gold):
                raise SourceError(
                    f'the answer {gold} of row {item.row} may be the option "{gold}" or the option at place {gold}, '
                    f"counted from 0: {list(choices)}",
                    hint="give the answer as a text where an option's text is meant, else its letter",
                )
            return place
        number = int(gold) if gold.isdecimal() else string.ascii_lowercase.find(gold) if len(gold) == 1 else -1
        if not 0 <= number < len(choices):
            raise SourceError(
                f'the answer "{item.golds[0]}" of row {item.row} is none of its options: {list(choices)}',
                hint="give an option's text, its letter, or its number counted from 0",
            )
        return number

    def _is_number(self, gold: str, row: Mapping[str, Any]) -> bool:
        """Say whether the gold answer stands in the row as a number, and not as a text."""
        values = (row.get(name) for name in self._gold.needed)
        return any(isinstance(value, int) and str(value) == gold for value in values)

    def _template(self, template: Template) -> Compiled:
        text = template.jinja.replace(SEPARATOR, PIPE)
        if self.suite.passage:
            text = HERE.join(expression_pattern(self.suite.passage).split(text))
        compiled = self._renderer.compile(template.name, text, template.answer_choices)
        self._known(compiled, f'template "{template.name}"')
        return compiled

    def _compile(self, name: str, jinja: str | None) -> Compiled:
        compiled = self._renderer.compile(name, jinja or "")
        self._known(compiled, name)
        return compiled

    def _known(self, compiled: Compiled, who: str) -> None:
        for name in absent(compiled.needed, [*self._columns, "labels"]):
            where = f" ({self.suite.file})" if self.suite.file else ""
            raise TemplateError(
                f'{who} of "{self.suite.name}"{where} reads "{name}", which is no column',
                hint=nearest_column(name, self._columns),
            )

    def _render(self, compiled: Compiled, values: Mapping[str, Any], row: int) -> str:
        try:
            return unprotect(self._renderer.render(compiled, values)).strip()
        except RenderError as error:
            raise self._failed(compiled, row, error) from error

    def _choices(self, compiled: Compiled, values: Mapping[str, Any], row: int) -> list[str]:
        try:
            return self._renderer.choices(compiled, values)
        except RenderError as error:
            raise self._failed(compiled, row, error) from error

    def _failed(self, compiled: Compiled, row: int, error: RenderError) -> TemplateError:
        where = f" ({self.suite.file})" if self.suite.file else ""
        return TemplateError(
            f'"{compiled.name}" of "{self.suite.name}"{where} fails on row {row}: {error.reason} ({error.detail})',
            hint=_CURES.get(error.reason, "check the template and that row"),
        )


_CURES = {
    Reason.FORBIDDEN: "a template may read the columns of its row, and nothing else",
    Reason.TIME_LIMIT: "take the loop out of the template",
    Reason.OUTPUT_LIMIT: "print less",
}


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def portions(items: Sequence[Item], size: int) -> Iterator[tuple[int, Sequence[Item]]]:
    """Part items into numbered portions."""
    for number, start in enumerate(range(0, len(items), size)):
        yield number, items[start : start + size]
