"""YAML that people write by hand: every value with its line, for errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from katsuo.errors import TemplateError

Location = tuple[str | int, ...]


class LinedYaml:
    """A YAML file as it was written: the values, and the line of each; `noun` says in errors what it is."""

    def __init__(self, path: Path, *, noun: str) -> None:
        self.path = path
        try:
            text = self.path.read_text(encoding="utf-8")
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.values: Any = yaml.safe_load(text)
        except OSError as error:
            raise TemplateError(
                f'cannot read the {noun} "{self.path}": {error.strerror}', hint="check the path"
            ) from error
        except UnicodeDecodeError as error:
            raise TemplateError(f'the {noun} "{self.path}" is not UTF-8: {error}', hint="save it as UTF-8") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise TemplateError(
                f"{self.path}{line}: not YAML: {getattr(error, 'problem', None) or error}",
                hint="check indentation and quotes; put Jinja under `jinja: |`",
            ) from error

    def line(self, location: Location) -> int:
        """Give the line, counted from 1, of the nearest part of `location` that stands in the file."""
        node, line = self._root, 1
        for step in location:
            if node is None:
                break
            line = node.start_mark.line + 1
            node = _child(node, step)
        return node.start_mark.line + 1 if node is not None else line

    def where(self, *location: str | int) -> str:
        """Give `file:line` for messages."""
        return f"{self.path}:{self.line(location)}"


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        child: yaml.Node = node.value[step]
        return child
    return None
