"""Docs that are written from code are compared with it, and every recipe in `examples/` is one."""

from __future__ import annotations

import sys
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
    import re

    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
