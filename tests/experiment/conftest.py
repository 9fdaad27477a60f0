"""What every test of an experiment begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
from bridges import write_documents, write_rows


@pytest.fixture
def bridges(tmp_path: Path) -> tuple[Path, Path]:
    """The documents and the labelled rows."""
    return write_documents(tmp_path / "documents"), write_rows(tmp_path / "rows.jsonl")
