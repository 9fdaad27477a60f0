"""What the tests of sources share: a reader and a folder of real files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from document_builders import CAFE, FLAKES, make_docx, make_epub, make_pdf, page

from katsuo.config import Recipe, recipe_from
from katsuo.records import Document, Reject
from katsuo.sources import iter_documents


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    def make(*documents: object, **settings: object) -> Recipe:
        return recipe_from({"documents": [str(document) for document in documents], **settings})

    return make


@pytest.fixture
def read(recipe: Callable[..., Recipe]) -> Callable[..., list[Document | Reject]]:
    def all_of(*documents: object, **settings: object) -> list[Document | Reject]:
        return list(iter_documents(recipe(*documents, **settings)))

    return all_of


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Path]:
    """A folder with the same two paragraphs in every format that `DOCS` takes."""
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "plain.txt").write_text(f"{FLAKES}\n\n{CAFE}\n", encoding="utf-8")
    (folder / "deep" / "er" / "mark.md").write_text(f"# Title\n\n{FLAKES}\n\n{CAFE}\n", encoding="utf-8")
    (folder / "page.html").write_text(page(FLAKES, CAFE), encoding="utf-8")
    make_pdf(folder / "paper.pdf", [[FLAKES, CAFE], [FLAKES]])
    make_docx(folder / "report.docx")
    make_epub(folder / "book.epub")
    pq.write_table(pa.table({"text": [FLAKES, CAFE], "id": [1, 2]}), folder / "rows.parquet")
    (folder / "rows.csv").write_text(f'id,text\n1,"{FLAKES}"\n2,"{CAFE}"\n', encoding="utf-8")
    (folder / "rows.jsonl").write_text(f'{{"text": "{FLAKES}"}}\n{{"text": "{CAFE}"}}\n', encoding="utf-8")
    return folder
