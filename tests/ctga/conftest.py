"""A small pack with rows of its own, the pinned templates, and the cache that is really there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from katsuo.config import cache_dir
from katsuo.errors import SourceError
from katsuo.templates.library import ArchiveLibrary, open_library
from katsuo.templates.sandbox.watch import Watch

_REAL_CACHE = cache_dir()
PACK = """\
language: en
task_types:
- name: rhyme finding
sources:
- dataset: animals
  data: train.jsonl
  context: "{{ text }}"
  licence: CC0-1.0
  terms: open
  templates:
  - name: ask
    task_type: exqa
    jinja: "{{ text }} Who is it about? ||| {{ who }}"
  - name: shout
    task_type: text generation
    jinja: "Say {{ ['loudly', 'softly', 'twice'] | choice }}: {{text}} ||| {{ text | upper }}"
  - name: sometimes
    task_type: rhyme finding
    jinja: "{% if number % 2 %}Rhyme on {{ who }} in {{ text }} ||| {{ who }}-{{ who }}{% endif %}"
"""


@pytest.fixture(scope="session")
def library() -> ArchiveLibrary:
    """The pinned promptsource templates, from the cache or the package index."""
    try:
        found = open_library()
    except SourceError as error:
        pytest.skip(f"the pinned templates are not here and cannot be fetched: {error}")
    assert isinstance(found, ArchiveLibrary)
    return found


@pytest.fixture
def real_cache(library: ArchiveLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let katsuo find the pinned templates in the cache of the user who runs the tests."""
    monkeypatch.setenv("KATSUO_CACHE", str(_REAL_CACHE))


@pytest.fixture
def watch():
    with Watch(0.5) as watch:
        yield watch


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack of one source with 30 rows and three templates."""
    return write_pack(tmp_path / "pack", PACK)


def write_pack(folder: Path, text: str, rows: int = 30) -> Path:
    folder.mkdir(parents=True)
    (folder / "ctga.yaml").write_text(text, encoding="utf-8")
    lines = ({"text": f"The cat number {n} sleeps.", "who": f"cat {n}", "number": n} for n in range(rows))
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder
