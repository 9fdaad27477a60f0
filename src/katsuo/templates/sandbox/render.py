"""Render templates from strangers: sandboxed, compiled once, limited in time and output, drawing by a given hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from katsuo.errors import TemplateError
from katsuo.records import Reason
from katsuo.templates.marks import PIPE, SEPARATOR, with_cut
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.environment import LONGEST, RenderError, Sandbox, cut
from katsuo.templates.sandbox.watch import OverTimeError, Watch

T = TypeVar("T")
_PROTECTED = "\ufdd2" * 32  # as long as promptsource's own stand-in, so that a cut falls in the same place


_OWN_NAMES = {"answer_choices", "loop", "self", "super", "caller", "varargs", "kwargs"}


class _Loud(jinja2.Undefined):
    """A name that gives nothing, and says so when it is printed."""

    def __str__(self) -> str:
        return str(self._fail_with_undefined_error())


class _Program:
    """One compiled Jinja source with a context that is filled anew for each row: making one costs as much as a row."""

    def __init__(self, sandbox: Sandbox, tree: nodes.Template) -> None:
        template = sandbox.from_string(tree)
        self._stream = template.root_render_func
        self._context = template.new_context()
        self._globals = dict(sandbox.globals)

    def render(self, values: Mapping[str, Any], longest: int) -> str:
        """Render for one row, and keep nothing of it; raise `RenderError` beyond `longest` characters."""
        context = self._context
        context.parent = {**self._globals, **values}
        pieces: list[str] = []
        left = longest
        try:
            for piece in self._stream(context):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise RenderError(Reason.OUTPUT_LIMIT, f"more than {longest:,} characters")
        finally:
            if context.vars:  # what the template has set: the next row must not see it, nor should it fill the memory
                context.vars.clear()
                context.exported_vars.clear()
        return "".join(pieces)


@dataclass(frozen=True)
class Compiled:
    """
    A template ready to render, with its answer choices, which may be the same for all rows.

    `variables` are the names that it may look up in a row, `needed` those of them that it does not set itself.
    """

    name: str
    template: _Program
    variables: frozenset[str]
    needed: frozenset[str]
    choices: _Program | None
    fixed_choices: tuple[str, ...] | None


class Renderer:
    """
    Compile templates once and render them for many rows, in the thread that made `watch`.

    A rendering of more than `longest` characters, or longer than the watch allows, is ended. Where `is_strict`, a name
    that gives nothing fails when it is printed; otherwise it prints nothing, as in Jinja.
    """

    def __init__(self, draws: Draws, watch: Watch, *, longest: int = LONGEST, is_strict: bool = False) -> None:
        self.draws = draws
        self._watch, self._longest = watch, longest
        self._sandbox = Sandbox(longest, draws.choose)
        if is_strict:
            self._sandbox.undefined = _Loud

    def compile(self, name: str, jinja: str, answer_choices: str | None = None) -> Compiled:
        """Compile one template; raise `TemplateError` with the line for what is not Jinja."""
        template, variables, needed = self._parse(name, jinja)
        if answer_choices is None:
            return Compiled(name, template, variables, needed, None, None)
        choices, also, also_needed = self._parse(f"{name} (answer_choices)", answer_choices.replace(SEPARATOR, PIPE))
        fixed = None
        if "{" not in answer_choices:
            fixed = tuple(self._choices(choices, {}))
        return Compiled(name, template, variables | also, needed | also_needed, choices, fixed)

    def _parse(self, name: str, jinja: str) -> tuple[_Program, frozenset[str], frozenset[str]]:
        try:
            tree = self._sandbox.parse(jinja)
            names = list(tree.find_all(nodes.Name))
            variables = {found.name for found in names if found.ctx == "load"} - _OWN_NAMES - set(self._sandbox.globals)
            needed = variables - {found.name for found in names if found.ctx != "load"}
            return _Program(self._sandbox, tree), frozenset(variables), frozenset(needed)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f'template "{name}" is not Jinja: {error.message} (line {error.lineno} of the template)',
                hint="a `}}` inside an expression has to be written `} }`",
            ) from error

    def render(self, compiled: Compiled, row: Mapping[str, Any]) -> str:
        """Render a template for a row that went through `protect`; raise `RenderError` with the reason."""
        return self._run(self._render, compiled, row)

    def choices(self, compiled: Compiled, row: Mapping[str, Any]) -> list[str]:
        """Give the answer choices of a template for a row; none for a template without."""
        return self._run(self._choices_of, compiled, row) or []

    def _run(self, call: Callable[[Compiled, Mapping[str, Any]], T], compiled: Compiled, row: Mapping[str, Any]) -> T:
        try:
            return self._watch.run(call, compiled, row)
        except RenderError:
            raise
        except OverTimeError as error:
            raise RenderError(Reason.TIME_LIMIT, str(error)) from None
        except SecurityError as error:
            raise RenderError(Reason.FORBIDDEN, str(error)) from error
        except MemoryError as error:
            raise RenderError(Reason.OUTPUT_LIMIT, "out of memory") from error
        except Exception as error:  # whatever a stranger's program raises is that program's failure, and is counted
            raise RenderError(Reason.TEMPLATE_ERROR, f"{type(error).__name__}: {error}") from error

    def _render(self, compiled: Compiled, row: Mapping[str, Any]) -> str:
        choices = self._choices_of(compiled, row)
        return compiled.template.render({**row, "answer_choices": choices}, self._longest)

    def _choices_of(self, compiled: Compiled, row: Mapping[str, Any]) -> list[str] | None:
        if compiled.fixed_choices is not None:
            return list(compiled.fixed_choices)
        if compiled.choices is not None:
            return [unprotect(choice) for choice in self._choices(compiled.choices, row)]
        return None

    def _choices(self, template: _Program, values: Mapping[str, Any]) -> list[str]:
        return [choice.strip() for choice in template.render(values, self._longest).split(PIPE)]


def protect(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Hide the separator where it stands in a value, so that it parts nothing."""
    hidden = [name for name, value in row.items() if isinstance(value, str) and SEPARATOR in value]
    return {**row, **{name: row[name].replace(SEPARATOR, _PROTECTED) for name in hidden}} if hidden else row


def unprotect(text: str) -> str:
    """Show a hidden separator again."""
    return text.replace(_PROTECTED, SEPARATOR)


ContextOf = Callable[[Mapping[str, Any]], str]


def compile_context(renderer: Renderer, name: str, expression: str) -> tuple[ContextOf, frozenset[str]]:
    """Give a function from a row to its unannotated text, and the columns it reads."""
    if column := re.fullmatch(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}", expression):
        read = column[1]
        return (lambda row: cut(row[read])), frozenset({read})
    compiled = renderer.compile(f"context of {name}", with_cut(expression))
    return (lambda row: renderer.render(compiled, row)), compiled.needed


def absent(variables: Iterable[str], columns: Iterable[str]) -> list[str]:
    """List the variables that no column gives."""
    return sorted(set(variables) - set(columns))
