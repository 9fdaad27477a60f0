"""Small test sets of our own, as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CLAIMS = [
    ("The ferry to the island leaves at nine and comes back at noon.", "The ferry leaves at nine.", "entailment"),
    ("The ferry to the island leaves at nine and comes back at noon.", "The ferry never comes back.", "contradiction"),
    ("The ferry to the island leaves at nine and comes back at noon.", "The ferry is painted blue.", "neutral"),
    ("Visitors must not feed the goats in the upper meadow.", "Feeding the goats there is allowed.", "contradiction"),
    ("Visitors must not feed the goats in the upper meadow.", "There are goats in the upper meadow.", "entailment"),
    ("The museum opened in 1932 and was rebuilt after a fire.", "The museum has burnt once.", "entailment"),
    ("The museum opened in 1932 and was rebuilt after a fire.", "The museum shows old clocks.", "neutral"),
    ("A licence may be returned within thirty days.", "A licence can never be returned.", "contradiction"),
]


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """Eight premises and hypotheses."""
    rows = [{"premise": text, "hypothesis": claim, "label": label} for text, claim, label in CLAIMS]
    return write_rows(tmp_path / "claims.jsonl", rows)


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
