"""Docs that are written from code are compared with it, and every recipe in `examples/` is one."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from katsuo.config import read_recipe
from katsuo.tasks import load_task

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from make_reference import PAGES  # noqa: E402


@pytest.mark.parametrize("page", PAGES)
def test_a_reference_page_is_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == PAGES[page](), "run `make docs`"


def test_the_recipes_and_task_types_in_examples_can_be_read() -> None:
    read_recipe(ROOT / "examples" / "demo.yaml")
    assert load_task(str(ROOT / "examples" / "clause_type.yaml")).short == "clause"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    for test in doctest.DocTestFinder().find(module):
        assert list(unknown_names("".join(example.source for example in test.examples), test.globs)) == []


def test_the_python_in_the_docs_uses_what_it_imports() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            assert list(unknown_names(block, {})) == [], f"{page.name}:\n{block}"


def unknown_names(code: str, known: Mapping[str, object]) -> Iterator[str]:
    """Give the names that `code` uses and that neither it, nor `known`, nor Python has; its imports are made."""
    tree = ast.parse(code)
    there = {*known, *dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            yield from (name.name for name in node.names if not hasattr(module, name.name))
            there |= {name.asname or name.name for name in node.names}
        elif isinstance(node, ast.Import):
            there |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            there.add(node.name)
        elif isinstance(node, ast.arg):
            there.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            there.add(node.id)
    yield from sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - there)
