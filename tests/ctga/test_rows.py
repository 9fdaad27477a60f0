from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from katsuo.ctga.catalog import Source
from katsuo.ctga.rows import HubRows, JsonLinesRows, ParquetRows, open_rows
from katsuo.errors import MissingPackageError, SourceError

ROWS = [{"n": n, "text": f"t{n}", "nested": {"a": [n, n]}} for n in range(23)]


def parquet(folder: Path) -> ParquetRows:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:10]), folder / "train-0.parquet", row_group_size=4)
    pq.write_table(pa.Table.from_pylist(ROWS[10:]), folder / "train-1.parquet", row_group_size=5)
    return ParquetRows((folder / "train-0.parquet", folder / "train-1.parquet"))


def jsonl(folder: Path) -> JsonLinesRows:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    return JsonLinesRows((folder / "train.jsonl",))


def hub(folder: Path) -> HubRows:
    parquet(folder)
    return HubRows(str(folder), "", "train")


@pytest.mark.parametrize("make", [parquet, jsonl, hub])
def test_any_range_gives_its_rows_with_their_numbers(tmp_path: Path, make):
    rows = make(tmp_path / "d")
    assert rows.count() == 23
    assert rows.columns() == ["n", "text", "nested"]
    assert list(rows.read(0, 23, ["n", "text", "nested"])) == list(enumerate(ROWS))
    for start, stop in ((0, 1), (3, 12), (9, 11), (22, 23)):
        assert list(rows.read(start, stop, ["text"])) == [(n, {"text": f"t{n}"}) for n in range(start, stop)]


def test_a_key_that_a_line_lacks_is_none(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    rows = JsonLinesRows((tmp_path / "a.jsonl",))
    assert rows.columns() == ["a", "b"]
    assert [row for _, row in rows.read(0, 2, ["a", "b"])] == [{"a": 1, "b": None}, {"a": None, "b": 2}]


@pytest.mark.parametrize("line", ["{", "[1]", "3"])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' + line)
    with pytest.raises(SourceError, match="row 1"):
        list(JsonLinesRows((tmp_path / "a.jsonl",)).read(0, 2, ["a"]))


def test_a_broken_parquet_file_is_named(tmp_path: Path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(SourceError, match=r"train\.parquet"):
        ParquetRows((tmp_path / "train.parquet",)).count()


def test_a_source_is_found_by_data_set_and_config(tmp_path: Path):
    parquet(tmp_path / "super_glue__boolq")
    assert isinstance(open_rows(Source("super_glue", "boolq", "x"), str(tmp_path)), ParquetRows)
    jsonl(tmp_path / "owner__name")
    assert isinstance(open_rows(Source("owner/name", "", "x"), str(tmp_path)), JsonLinesRows)


def test_a_split_of_a_longer_name_is_found_as_train(tmp_path: Path):
    parquet(tmp_path / "anli")
    found = open_rows(Source("anli", "", "x", split="train_r3"), str(tmp_path))
    assert found is not None
    assert found.count() == 23


def test_a_source_that_the_folder_lacks_is_none_and_a_missing_folder_an_error(tmp_path: Path):
    assert open_rows(Source("squad", "", "x"), str(tmp_path)) is None
    with pytest.raises(SourceError, match="no folder"):
        open_rows(Source("squad", "", "x"), str(tmp_path / "nowhere"))


def test_a_folder_without_the_split_says_what_was_expected(tmp_path: Path):
    (tmp_path / "squad").mkdir()
    with pytest.raises(SourceError, match="squad") as caught:
        open_rows(Source("squad", "", "x"), str(tmp_path))
    assert "train.parquet" in caught.value.hint


def test_without_a_folder_rows_come_from_the_hub(monkeypatch):
    rows = open_rows(Source("squad", "", "x"), None)
    assert rows == HubRows("squad", "", "train")
    named = open_rows(Source("d", "", "x", data="hf://owner/name:config"), None)
    assert named == HubRows("owner/name", "config", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="datasets"):
        rows.count()


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_way_out(tmp_path: Path):
    with pytest.raises(SourceError, match="cannot load") as caught:
        HubRows(str(tmp_path / "nothing"), "", "train").count()
    assert "--data" in caught.value.hint
