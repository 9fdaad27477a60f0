"""One labelled row and the templates drawn for it → training pairs for the task generator, or counted rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from katsuo.ctga.catalog import Source
from katsuo.ctga.templates import meta_template
from katsuo.errors import SourceError
from katsuo.records import Reason
from katsuo.tasks.codec import join_pair, render_bonito
from katsuo.templates.library import Template
from katsuo.templates.marks import HERE, PIPE
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.environment import LONGEST, RenderError
from katsuo.templates.sandbox.pool import Beat, Place
from katsuo.templates.sandbox.render import Compiled, Renderer, absent, compile_context, protect, unprotect
from katsuo.templates.sandbox.watch import Watch

_PLACEHOLDER = "{{context}}"
_MARKERS = ("<|tasktype|>", "<|context|>", "<|task|>", "<|pipe|>")


class Pair(NamedTuple):
    """One training pair; the fields are the columns of the data set."""

    input: str
    output: str
    task_type: str
    dataset: str
    config: str
    template: str
    row: int
    context: str
    task_input: str
    task_output: str


class LostPair(NamedTuple):
    """One drawing that gave no pair, with its reason."""

    reason: str
    dataset: str
    config: str
    template: str
    row: int
    task_type: str
    detail: str


@dataclass(frozen=True)
class Recipe:
    """What decides the pairs of one source: the source, its templates, how many per row, the seed."""

    source: Source
    templates: tuple[Template, ...]
    per_row: int
    """Templates per row; 0 means all."""
    seed: int = 0


class Remixer:
    """
    Turn rows of one source into pairs. Templates are compiled once; each rendering is under the `watch`.

    The drawing depends on (seed, source, row) alone, so the pairs do not depend on shards, workers or order.
    """

    def __init__(
        self,
        recipe: Recipe,
        columns: list[str],
        watch: Watch,
        *,
        longest: int = LONGEST,
        is_strict: bool = False,
    ) -> None:
        self._recipe = recipe
        source = recipe.source
        self._renderer = Renderer(Draws(recipe.seed, source.name), watch, longest=longest, is_strict=is_strict)
        self._context_of, needed = compile_context(self._renderer, source.name, source.context)
        if lacking := absent(needed, columns):
            raise SourceError(
                f'the context of "{source.name}" prints "{lacking[0]}", which is no column of its rows',
                hint=f"columns: {', '.join(columns)}",
            )
        self._compiled = [self._compile(template) for template in recipe.templates]
        self._types = [source.types[template.name] for template in recipe.templates]
        self._absent = [absent(compiled.needed, columns) for compiled in self._compiled]
        read = needed.union(*(compiled.variables for compiled in self._compiled))
        self.columns = [name for name in columns if name in read]
        """The columns that the context or a template reads."""

    def _compile(self, template: Template) -> Compiled:
        jinja = meta_template(template, self._recipe.source)
        return self._renderer.compile(template.name, jinja, template.answer_choices)

    def draw(self, row_number: int) -> list[int]:
        """Give the templates drawn for a row, as indices."""
        size = len(self._compiled)
        return self._renderer.draws.order(row_number, size, self._recipe.per_row or size)

    def remix(
        self, row_number: int, row: Mapping[str, Any], *, skip: frozenset[Place] = frozenset(), beat: Beat | None = None
    ) -> Iterator[Pair | LostPair]:
        """
        Yield one pair or one reject for each template drawn for this row.

        `beat` is told what is being rendered; the places in `skip` are known to end the process and become rejects.
        """
        values = protect(row)
        try:
            context = unprotect(self._context_of(values)).strip()
            if not context:
                raise RenderError(Reason.EMPTY_PASSAGE, "")
            if "<|" in context:
                _refuse(context, _MARKERS)
        except RenderError as error:
            for index in self.draw(row_number):
                yield self._lost(index, row_number, error)
            return
        for index in self.draw(row_number):
            if (row_number, index) in skip:
                yield self._lost(
                    index, row_number, RenderError(Reason.TIME_LIMIT, "its worker process had to be ended")
                )
                continue
            if beat is not None:
                beat[0], beat[1] = row_number, index
            yield self.pair(index, row_number, context, values)

    def pair(self, index: int, row_number: int, context: str, values: Mapping[str, Any]) -> Pair | LostPair:
        """Render one template for one row, whose context and protected values are given."""
        compiled, source, task_type = self._compiled[index], self._recipe.source, self._types[index]
        try:
            if self._absent[index]:
                raise RenderError(Reason.ABSENT_COLUMN, ", ".join(self._absent[index]))
            self._renderer.draws.enter(row_number, compiled.name)
            instruction, response = _parts(self._renderer.render(compiled, values))
        except RenderError as error:
            return self._lost(index, row_number, error)
        return Pair(
            render_bonito(task_type, context), join_pair(instruction, response), task_type,
            source.dataset, source.config, compiled.name, row_number, context, instruction, response,
        )  # fmt: skip

    def _lost(self, index: int, row_number: int, error: RenderError) -> LostPair:
        source, name = self._recipe.source, self._compiled[index].name
        detail = error.detail[:500]
        return LostPair(error.reason.value, source.dataset, source.config, name, row_number, self._types[index], detail)


def _parts(text: str) -> tuple[str, str]:
    """Part a rendering into instruction and response, with the placeholder where the passage stood."""
    parts = text.split(PIPE)
    if len(parts) > 2:
        raise RenderError(Reason.PARSE_FAILURE, f"{len(parts) - 1} separators in one rendering")
    if len(parts) < 2 or not (response := parts[1].strip()):
        raise RenderError(Reason.EMPTY_PART, "no response")
    if not (instruction := parts[0].strip()):
        raise RenderError(Reason.EMPTY_PART, "no instruction")
    if "<|" in text or _PLACEHOLDER in text:
        _refuse(text, (*_MARKERS, _PLACEHOLDER))
    return _show(instruction), _show(response)


def _show(part: str) -> str:
    return unprotect(part.replace(HERE, _PLACEHOLDER) if HERE in part else part)


def _refuse(text: str, markers: tuple[str, ...]) -> None:
    """Refuse a text from a row that holds what has a meaning in the pair: it would be obeyed later."""
    for marker in markers:
        if marker in text:
            raise RenderError(Reason.CONTROL_MARKER, marker)
