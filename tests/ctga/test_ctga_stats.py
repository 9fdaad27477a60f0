from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from katsuo.ctga.build import build
from katsuo.ctga.card import write_card
from katsuo.ctga.settings import BuildSettings
from katsuo.ctga.stats import choose_counter, estimate_tokens, measure_lengths, pick_pairs, summarize
from katsuo.errors import ModelError, StoreError, UnknownNameError


@pytest.fixture
def built(pack: Path, tmp_path: Path) -> Path:
    build(BuildSettings(pack=str(pack), per_row=0, rows_per_shard=7), tmp_path / "out")
    return tmp_path / "out"


def test_the_card_states_the_licence_of_every_source_and_every_count(built):
    text = (built / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["language"] == ["en"]
    assert head["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert "| animals | 30 | 3 | 75 | CC0-1.0 | open |" in text
    assert "| rhyme finding | 15 | 20.00% |" in text
    assert "| empty part | animals | sometimes | 15 |" in text


def test_lengths_are_measured_over_the_whole_build_and_put_on_the_card(built):
    whole = measure_lengths(built, estimate_tokens)
    assert [length.column for length in whole] == ["input", "output"]
    assert whole[0].pairs == 75
    part = measure_lengths(built, estimate_tokens, sample=25)
    assert part[0].pairs == 25
    card = write_card(built, summarize(built), whole, counted_by="an estimate")
    assert "## Lengths in tokens" in card.read_text(encoding="utf-8")


def test_tokens_are_counted_by_a_tokenizer_where_there_is_one(embedded_model):
    count, name = choose_counter(str(embedded_model))
    assert count(["one two three", ""]) == [3, 0]
    assert str(embedded_model) in name


def test_without_a_tokenizer_tokens_are_estimated_and_it_says_so():
    count, name = choose_counter()
    assert "estimate" in name
    assert count(["12345678"]) == [2]
    with pytest.raises(ModelError):
        choose_counter("no-such-model")


def test_pairs_are_picked_by_type_and_source(built):
    assert {pair.template for pair in pick_pairs(built, task_type="exqa", count=5)} == {"ask"}
    assert len(pick_pairs(built, source="animals", count=4)) == 4
    with pytest.raises(UnknownNameError, match="task type of this build"):
        pick_pairs(built, task_type="nli")
    with pytest.raises(UnknownNameError, match="animals"):
        pick_pairs(built, source="animal")


def test_a_folder_without_a_finished_build_says_what_to_do(built, tmp_path):
    (built / "manifest.json").unlink()
    with pytest.raises(StoreError, match="no finished build") as caught:
        summarize(built)
    assert "again" in caught.value.hint
    with pytest.raises(StoreError):
        summarize(tmp_path / "nothing")
