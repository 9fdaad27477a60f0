"""Find prompt templates in promptsource's layout: in the pinned release, or in a folder."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import yaml

from katsuo.archives import fetch_archive
from katsuo.errors import TemplateError

RELEASE = "0.2.3"
_ARCHIVE = f"promptsource-{RELEASE}.tar.gz"
_SHA256 = "f106c889778a0fe5590e7183904bf964e1a01691c8a29451e44f3df5ddef05f5"
_INSIDE = PurePosixPath(f"promptsource-{RELEASE}/promptsource/templates")
_FILE = "templates.yaml"


@dataclass(frozen=True)
class Template:
    """One prompt template: Jinja with `|||` between instruction and response; `line` is its place in its file."""

    name: str
    jinja: str
    answer_choices: str | None = None
    line: int = 0


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
        return ArchiveLibrary(fetch_archive("promptsource", RELEASE, filename=_ARCHIVE, sha256=_SHA256))
    for root in (folder / "promptsource" / "templates", folder / "templates", folder):
        if any(root.glob(f"*/{_FILE}")) or any(root.glob(f"*/*/{_FILE}")):
            return FolderLibrary(root)
    raise TemplateError(
        f'no templates in "{folder}"',
        hint=f"the layout is <data set>[/<config>]/{_FILE}, as in promptsource's folder `templates`",
    )


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
