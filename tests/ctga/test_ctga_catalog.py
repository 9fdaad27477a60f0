from __future__ import annotations

import csv
from pathlib import Path

import pytest

from katsuo.ctga.catalog import TERMS, load_catalog, select_sources
from katsuo.ctga.templates import find_templates
from katsuo.errors import UnknownNameError, UsageError
from katsuo.tasks import CATALOG


def test_the_catalogue_names_39_sources_of_which_38_have_323_templates():
    sources = load_catalog()
    assert len(sources) == 39
    assert sum(len(source.types) for source in sources) == 323
    assert [source.name for source in sources if not source.types] == ["multi_news"]


def test_every_task_type_of_the_catalogue_is_one_of_the_sixteen_and_all_are_used():
    used = {task_type for source in load_catalog() for task_type in source.types.values()}
    assert used == {task.name for task in CATALOG}


def test_every_source_states_its_licence_and_terms():
    for source in load_catalog():
        assert source.licence
        assert source.terms in TERMS


def test_the_catalogue_agrees_with_the_published_set(shared_data: Path):
    with (shared_data / "golden" / "ctga_task_types.csv").open(encoding="utf-8") as file:
        published = {tuple(row.values()) for row in csv.DictReader(file)}
    ours = {(s.dataset, s.config, name, kind) for s in load_catalog() for name, kind in s.types.items()}
    assert ours == published


def test_every_template_of_the_catalogue_is_found_and_prints_its_context(library):
    assert sum(len(find_templates(source, library)) for source in load_catalog()) == 323


def test_a_data_set_stands_for_all_of_its_configurations():
    chosen = select_sources(load_catalog(), ["super_glue", "squad"])
    assert [source.name for source in chosen if source.dataset == "super_glue"] == [
        "super_glue/boolq", "super_glue/record", "super_glue/wsc.fixed", "super_glue/wic", "super_glue/copa",
        "super_glue/rte", "super_glue/cb",
    ]  # fmt: skip
    assert len(chosen) == 8


def test_non_commercial_sources_can_be_left_out():
    kept = select_sources(load_catalog(), exclude_terms=["nc"])
    assert {"anli", "quail", "samsum"}.isdisjoint(source.name for source in kept)
    assert "squad" in {source.name for source in kept}


def test_an_unknown_source_is_named_with_the_nearest_known_one():
    with pytest.raises(UnknownNameError, match="super_glue/boolq"):
        select_sources(load_catalog(), ["super_glue/bolq"])


def test_an_unknown_licence_group_is_refused():
    with pytest.raises(UnknownNameError, match="licence group"):
        select_sources(load_catalog(), exclude_terms=["gpl"])


def test_a_selection_that_leaves_nothing_is_refused():
    with pytest.raises(UsageError, match="no source is left"):
        select_sources(load_catalog(), ["anli"], exclude_terms=["nc"])
