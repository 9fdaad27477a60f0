"""Find prompt templates in promptsource's layout, and turn each into a meta-template."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import yaml

from katsuo.archives import fetch_archive
from katsuo.ctga.catalog import Source, Template
from katsuo.errors import TemplateError

SEPARATOR = "|||"
"""Parts the instruction from the response in a template."""
PIPE, HERE = "\ufdd0|\ufdd1", "\ufdd0@\ufdd1"
"""What stands for the separator and for the passage while a template is rendered. Unicode keeps these code points out
of exchanged text, so no value of a row can be taken for one of them."""
CUT = "katsuo_cut"
"""The filter that every printed variable passes: cut to 2,048 characters."""

_RELEASE = "0.2.3"
_ARCHIVE = f"promptsource-{_RELEASE}.tar.gz"
_SHA256 = "f106c889778a0fe5590e7183904bf964e1a01691c8a29451e44f3df5ddef05f5"
_INSIDE = PurePosixPath(f"promptsource-{_RELEASE}/promptsource/templates")
_FILE = "templates.yaml"


class TemplateLibrary(Protocol):
    """Where templates are looked up by data set."""

    def text(self, dataset: str, config: str) -> str | None:
        """Give the YAML of one data set, or None."""
        ...


class ArchiveLibrary:
    """The templates of the pinned promptsource release, read out of its source archive; nothing is unpacked or run."""

    def __init__(self, path: Path) -> None:
        self._texts: dict[str, str] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isfile() and name.name == _FILE and name.is_relative_to(_INSIDE):
                    body = archive.extractfile(member)
                    assert body is not None
                    self._texts[str(name.parent.relative_to(_INSIDE))] = body.read().decode("utf-8")

    def text(self, dataset: str, config: str) -> str | None:
        """Give the YAML of one data set, or None."""
        return self._texts.get(str(PurePosixPath(dataset, config)))


@dataclass(frozen=True)
class FolderLibrary:
    """Templates in a folder laid out as promptsource's: `<data set>[/<config>]/templates.yaml`."""

    folder: Path

    def text(self, dataset: str, config: str) -> str | None:
        """Give the YAML of one data set, or None."""
        path = self.folder / dataset / config / _FILE
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f'cannot read "{path}": {error}', hint="check the file") from error


def open_library(folder: Path | None = None) -> TemplateLibrary:
    """Open the templates in `folder`, or the pinned promptsource release from the package index or the cache."""
    if folder is None:
        return ArchiveLibrary(fetch_archive("promptsource", _RELEASE, filename=_ARCHIVE, sha256=_SHA256))
    for root in (folder / "promptsource" / "templates", folder / "templates", folder):
        if any(root.glob(f"*/{_FILE}")) or any(root.glob(f"*/*/{_FILE}")):
            return FolderLibrary(root)
    raise TemplateError(
        f'no templates in "{folder}"',
        hint=f"the layout is <data set>[/<config>]/{_FILE}, as in promptsource's folder `templates`",
    )


def find_templates(source: Source, library: TemplateLibrary) -> tuple[Template, ...]:
    """Give the templates of `source` that print its context and have a task type, in the order of their types."""
    if source.templates:
        return tuple(template for template in source.templates if prints_context(template, source))
    if not source.types:
        return ()
    text = library.text(source.dataset, source.config)
    if text is None:
        raise TemplateError(
            f'there is no {_FILE} for "{source.name}"', hint="check --templates, or leave the source out with --sources"
        )
    found = {template.name: template for template in parse_templates(text, where=source.name)}
    if missing := [name for name in source.types if name not in found]:
        raise TemplateError(
            f'"{source.name}" has no template called "{missing[0]}"',
            hint=f"the catalogue is made for promptsource {_RELEASE}: leave --templates out",
        )
    return tuple(found[name] for name in source.types if prints_context(found[name], source))


def parse_templates(text: str, *, where: str) -> list[Template]:
    """Parse a promptsource `templates.yaml`; no object of it is built, only plain values are read."""
    try:
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader with two harmless tags
        entries = loaded["templates"].values()
        return [Template(str(entry["name"]), entry["jinja"], entry.get("answer_choices") or None) for entry in entries]
    except yaml.YAMLError as error:
        raise TemplateError(f'the templates of "{where}" are not YAML: {error}', hint="check the file") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise TemplateError(
            f'the templates of "{where}" do not have the form of promptsource: {error!r}',
            hint="expected `templates:` with `name`, `jinja` and `answer_choices` per entry",
        ) from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that takes promptsource's two tags for plain mappings."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor("!Template", _mapping)
_Loader.add_constructor("!TemplateMetadata", _mapping)


def context_pattern(source: Source) -> re.Pattern[str]:
    """Match the source's context expression in a template; white space inside `{{ }}` may differ."""
    if source.match == "exact":
        return re.compile(re.escape(source.context))
    parts = re.split(r"(\{\{\s*|\s*\}\})", source.context)
    return re.compile("".join(_SPACED.get(part.strip()) or re.escape(part) for part in parts))


_SPACED = {"{{": r"\{\{\s*", "}}": r"\s*\}\}"}


def prints_context(template: Template, source: Source) -> bool:
    """Tell whether `template` prints the unannotated text of `source`."""
    return bool(context_pattern(source).search(template.jinja))


def meta_template(template: Template, source: Source) -> str:
    """
    Give the Jinja source of the meta-template: the passage becomes a placeholder, every other print is cut.

    The cut is appended to what is printed, so in `{{ a ~ b }}` it binds to `b` alone, as in promptsource's
    `apply(truncate=True)` (paper, section on CTGA: "remix").
    """
    pieces = context_pattern(source).split(template.jinja.replace(SEPARATOR, PIPE))
    return HERE.join(with_cut(piece) for piece in pieces)


def with_cut(jinja: str) -> str:
    """Let every printed variable pass the cut."""
    return jinja.replace("}}", f" | {CUT} }}}}")
