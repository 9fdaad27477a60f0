"""A pack of your own: data sets, templates and task types in one `ctga.yaml`, in any language."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from katsuo.ctga.catalog import Source
from katsuo.errors import TemplateError, UnknownNameError
from katsuo.registry import unknown_name
from katsuo.settings import Settings
from katsuo.tasks import known_tasks
from katsuo.templates.library import Template
from katsuo.templates.lined import LinedYaml


class _TaskType(Settings):
    name: str = Field(min_length=1, max_length=100)
    description: str = ""


class _Template(Settings):
    name: str = Field(min_length=1)
    task_type: str
    jinja: str = Field(min_length=1)
    answer_choices: str | None = None


class _Source(Settings):
    dataset: str = Field(min_length=1)
    config: str = ""
    data: str | None = None
    split: str = "train"
    context: str = Field(min_length=1)
    match: Literal["spaces", "exact"] = "spaces"
    licence: str = Field(min_length=1)
    terms: Literal["open", "non-commercial", "not stated"] = "not stated"
    templates: tuple[_Template, ...] = Field(min_length=1)


class _Pack(Settings):
    language: str = "en"
    task_types: tuple[_TaskType, ...] = ()
    sources: tuple[_Source, ...] = Field(min_length=1)


_KEYS = [name for kind in (_Pack, _Source, _Template, _TaskType) for name in kind.model_fields]


def open_pack(path: Path) -> LinedYaml:
    """Open a pack by its file or by the folder that holds `ctga.yaml`."""
    return LinedYaml(path / "ctga.yaml" if path.is_dir() else path, noun="pack")


def read_pack(path: Path) -> tuple[Source, ...]:
    """Read a pack from a file or from `ctga.yaml` in a folder; raise `TemplateError` with file and line."""
    file = open_pack(path)
    try:
        pack = _Pack.model_validate(file.values)
    except ValidationError as error:
        raise _explained(file, error) from None
    return tuple(_to_source(file, pack, number) for number in range(len(pack.sources)))


def _explained(file: LinedYaml, error: ValidationError) -> TemplateError:
    """Name the first thing wrong: an unknown key before a missing one, because the one is often meant as the other."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    location = tuple(first["loc"])
    key = ".".join(str(step) for step in location) or "the pack"
    hint = "docs/ctga.md shows a whole pack"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _KEYS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else hint
        return TemplateError(f'{file.where(*location)}: unknown key "{location[-1]}"', hint=hint)
    return TemplateError(f"{file.where(*location)}: {key}: {first['msg'].lower()}", hint=hint)


def _to_source(file: LinedYaml, pack: _Pack, number: int) -> Source:
    entry = pack.sources[number]
    own = {task_type.name: task_type.name for task_type in pack.task_types}
    types: dict[str, str] = {}
    templates: list[Template] = []
    for place, template in enumerate(entry.templates):
        at = ("sources", number, "templates", place)
        if template.name in types:
            raise TemplateError(
                f'{file.where(*at, "name")}: "{template.name}" is the name of two templates', hint="rename one of them"
            )
        types[template.name] = _task_type(template.task_type, own, file.where(*at, "task_type"))
        line = file.line((*at, "jinja"))
        templates.append(Template(template.name, template.jinja, template.answer_choices, line))
    told = entry.model_dump(exclude={"templates", "data"})
    return Source(
        **told,
        language=pack.language,
        types=types,
        templates=tuple(templates),
        data=_place(entry.data, file.path.parent),
        line=file.line(("sources", number)),
    )


def _task_type(name: str, own: Mapping[str, str], where: str) -> str:
    """Give the full name of a known task type or of one that the pack declares."""
    if name in own:
        return own[name]
    known = known_tasks()
    if name in known:
        return known[name].name
    try:
        raise unknown_name("task type", name, [*own, *known])
    except UnknownNameError as error:
        raise TemplateError(
            f"{where}: {error.message}", hint=f"{error.hint}; a new type is declared under `task_types`"
        ) from None


def _place(data: str | None, folder: Path) -> str | None:
    if data is None or data.startswith("hf://") or Path(data).is_absolute():
        return data
    return str(folder / data)
