"""Which labelled data sets and templates there are, and what each template asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from katsuo.errors import UsageError
from katsuo.registry import unknown_name
from katsuo.templates.library import Template

TERMS = ("open", "non-commercial", "not stated")
"""What a licence allows, as far as its source states it."""
_EXCLUDABLE = {"nc": "non-commercial", "unstated": "not stated", **{terms: terms for terms in TERMS}}


@dataclass(frozen=True)
class Source:
    """
    One labelled data set with the expression that prints its text, and its templates by task type.

    `types` maps template name → task type. `templates` holds the templates themselves where a pack brings its own;
    otherwise they are looked up in the template library. `data` is where a pack keeps the rows.
    """

    dataset: str
    config: str
    context: str
    split: str = "train"
    match: str = "spaces"
    licence: str = "none stated"
    terms: str = "not stated"
    language: str = "en"
    types: Mapping[str, str] = field(default_factory=dict, hash=False)
    templates: tuple[Template, ...] = ()
    data: str | None = None
    line: int = 0

    @property
    def name(self) -> str:
        """Give the name people use: `squad`, `super_glue/boolq`."""
        return f"{self.dataset}/{self.config}" if self.config else self.dataset

    @property
    def folder(self) -> str:
        """Give the name as one path part: `squad`, `super_glue__boolq`."""
        return "__".join(part.replace("/", "__") for part in (self.dataset, self.config) if part)


def load_catalog() -> tuple[Source, ...]:
    """Read the catalogue of the package: the 39 sources of CTGA v1 with their 323 templates by name."""
    text = resources.files("katsuo.ctga").joinpath("catalog.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(_source(entry) for entry in yaml.load(text, Loader=loader)["sources"])  # noqa: S506  a safe loader


def _source(entry: dict[str, Any]) -> Source:
    types = {name: task_type for task_type, names in entry.pop("types").items() for name in names}
    return Source(config=entry.pop("config", ""), types=types, **entry)


def select_sources(
    sources: Sequence[Source], names: Iterable[str] = (), *, exclude_terms: Iterable[str] = ()
) -> tuple[Source, ...]:
    """
    Keep the sources called `names` (all when empty) whose licence is not of the terms left out.

    A data set's name stands for all of its configurations. Raise `UnknownNameError` for a name that fits nothing.
    """
    chosen = list(sources)
    if wanted := list(names):
        known = [source.name for source in sources]
        for name in wanted:
            if not any(_answers_to(source, name) for source in sources):
                raise unknown_name("source", name, known)
        chosen = [source for source in sources if any(_answers_to(source, name) for name in wanted)]
    left_out = {_terms(word) for word in exclude_terms}
    kept = tuple(source for source in chosen if source.terms not in left_out)
    if not kept:
        raise UsageError("no source is left after the selection", hint="widen --sources or --exclude-license")
    return kept


def _answers_to(source: Source, name: str) -> bool:
    return name in {source.name, source.dataset, source.folder}


def _terms(word: str) -> str:
    if word not in _EXCLUDABLE:
        raise unknown_name("licence group", word, _EXCLUDABLE)
    return _EXCLUDABLE[word]
