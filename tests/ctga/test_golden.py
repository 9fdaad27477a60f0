from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from katsuo.ctga.catalog import load_catalog
from katsuo.ctga.remix import Pair, Recipe, Remixer
from katsuo.ctga.rows import open_rows
from katsuo.ctga.templates import find_templates
from katsuo.records import Reason
from katsuo.templates.sandbox.watch import Watch

_COMPARED = ("task_type", "context", "task_input", "task_output")


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> list[dict[str, Any]]:
    return pq.read_table(shared_data / "golden" / "ctga.parquet").to_pylist()


@pytest.fixture(scope="module")
def rendered(shared_data: Path, library, golden) -> dict[tuple[str, str, str, int], Any]:
    wanted = {(row["dataset"], row["config"], row["row"]) for row in golden}
    found = {}
    with Watch(10) as watch:
        for source in load_catalog():
            numbers = {row for dataset, config, row in wanted if (dataset, config) == (source.dataset, source.config)}
            rows = open_rows(source, str(shared_data / "data" / "p3")) if numbers else None
            if rows is None:
                continue
            remixer = Remixer(Recipe(source, find_templates(source, library), per_row=0), rows.columns(), watch)
            for number, row in rows.read(0, max(numbers) + 1, remixer.columns):
                if number in numbers:
                    for item in remixer.remix(number, row):
                        found[source.dataset, source.config, item.template, number] = item
    return found


def different(golden: list[dict[str, Any]], rendered: dict[tuple[str, str, str, int], Any]) -> Iterator[str]:
    for row in golden:
        item = rendered[row["dataset"], row["config"], row["template"], row["row"]]
        if isinstance(item, Pair):
            for name in _COMPARED:
                if getattr(item, name) != row[name]:
                    yield f"{row['dataset']} {row['template']} {row['row']} {name}: {getattr(item, name)!r}"
        elif row["task_output"] or item.reason != Reason.EMPTY_PART.value:
            yield f"{row['dataset']} {row['template']} {row['row']}: {item}"


def test_every_golden_row_is_given_to_the_character(golden, rendered):
    assert len(golden) == 986
    assert list(different(golden, rendered)) == []


@pytest.mark.parametrize("name", _COMPARED)
def test_one_changed_character_in_the_golden_rows_is_seen(golden, rendered, name):
    changed = {**golden[500], name: golden[500][name][:-1] + "\u00a0"}
    assert len(list(different([changed], rendered))) == 1


def test_a_golden_row_without_a_response_gives_no_pair(golden, rendered):
    empty = [row for row in golden if not row["task_output"]]
    assert len(empty) == 4
    assert not any(isinstance(rendered[r["dataset"], r["config"], r["template"], r["row"]], Pair) for r in empty)
