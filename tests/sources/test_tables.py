"""Rows of tables: each is a document or a reject, and a broken one spoils nothing else."""

from __future__ import annotations

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from document_builders import CAFE

from katsuo.errors import SourceError
from katsuo.records import Document, Reason
from katsuo.sources import open_sources


@pytest.fixture
def table(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def outcome(found):
    """What became of each row: its text, or its reason."""
    return [(item.source.split("#")[1], item.text if isinstance(item, Document) else item.reason) for item in found]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "id,body\n1,x\n"), ("a.tsv", "id\tbody\n1\tx\n"), ("a.jsonl", '{"id": 1, "body": "x"}\n')],
)
def test_a_table_without_the_text_column_is_an_error_that_lists_the_columns(table, recipe, name, content):
    with pytest.raises(SourceError, match='has no column "text"') as caught:
        open_sources(recipe(table(name, content)))
    assert "id, body" in caught.value.hint


def test_a_parquet_file_without_the_text_column_is_an_error_that_lists_the_columns(tmp_path, recipe):
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="--text-column takes one of: id, body"):
        open_sources(recipe(tmp_path))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_an_empty_table_is_an_empty_document(table, read, name):
    [reject] = read(table(name, ""))
    assert reject.reason is Reason.EMPTY_DOCUMENT


def test_a_first_line_of_json_without_the_text_column_spoils_itself_alone(table, read):
    found = outcome(read(table("a.jsonl", '{"id": 0}\n{"id": 1, "text": "x"}\n')))
    assert found == [("row=0", Reason.UNREADABLE), ("row=1", "x")]


def test_the_text_column_is_chosen_by_the_recipe(table, read):
    assert outcome(read(table("a.csv", "id,body\n1,x\n"), text_column="body")) == [("row=0", "x")]


def test_a_broken_json_line_is_counted_and_the_rest_is_read(table, read):
    path = table("a.jsonl", b'{"text": "one"}\n{"text": "tw\n\n[1]\n{"other": 1}\n{"text": "caf\xe9"}\n{"text": "six"}')
    found = read(path)
    assert outcome(found) == [
        ("row=0", "one"),
        ("row=1", Reason.UNREADABLE),
        ("row=3", Reason.UNREADABLE),
        ("row=4", Reason.UNREADABLE),
        ("row=5", Reason.UNREADABLE),
        ("row=6", "six"),
    ]
    assert "line 2 is not a JSON object" in found[1].detail


def test_rows_without_text_are_counted(table, read):
    lines = [{"text": "one"}, {"text": "  "}, {"text": None}, {"text": ["a"]}, {"text": "lone \ud800"}]
    found = read(table("a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [reason for _, reason in outcome(found)[1:]] == [
        Reason.EMPTY_DOCUMENT,
        Reason.EMPTY_DOCUMENT,
        Reason.NOT_TEXT,
        Reason.NOT_TEXT,
    ]


def test_a_byte_that_is_not_utf8_spoils_its_own_csv_row_only(table, read):
    path = table("a.csv", b"text\nfirst\ncaf\xe9\nlast\n")
    assert outcome(read(path)) == [("row=0", "first"), ("row=1", Reason.NOT_TEXT), ("row=2", "last")]


def test_a_csv_row_of_another_length_is_counted_because_its_text_may_be_cut(table, read):
    found = read(table("a.csv", "id,text\n1,one\n2,a comma, unquoted\n3\n\n4,four\n"))
    assert outcome(found) == [
        ("row=0", "one"),
        ("row=1", Reason.UNREADABLE),
        ("row=2", Reason.UNREADABLE),
        ("row=3", "four"),
    ]
    assert "line 3 has 3 fields where the header has 2" in found[1].detail


def test_an_unclosed_quote_is_counted_with_the_lines_it_swallowed(table, read):
    found = read(table("a.csv", 'text\none\n"two\nthree\n'))
    assert outcome(found) == [("row=0", "one"), ("row=1", Reason.UNREADABLE)]
    assert "lines 3 to 4" in found[1].detail


def test_a_quoted_field_may_hold_line_ends_and_ten_megabytes(table, read):
    long = "word " * 2_000_000
    [document] = read(table("a.csv", f'id,text\n1,"{long}\nend"\n'))
    assert document.text == f"{long}\nend"


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", "\t"), ("a.tsv", ",")]
)
def test_the_delimiters_of_other_spreadsheets_are_understood(table, read, name, delimiter):
    assert outcome(read(table(name, f"id{delimiter}text\n1{delimiter}one\n"))) == [("row=0", "one")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_spreadsheet_export_with_a_byte_order_mark_is_read(table, read, encoding):
    assert outcome(read(table("a.csv", f"text\n{CAFE}\n".encode(encoding)), text_column="text")) == [("row=0", CAFE)]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_binary_file_that_is_called_a_table_is_one_reject(table, read, name):
    (found,) = read(table(name, b"\x89PNG\x00\x00\xff\xfe,text\n" * 9))
    assert (found.reason, found.source) == (Reason.UNREADABLE, name)


def test_a_cut_off_parquet_file_is_one_reject(tmp_path, read):
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    (found,) = read(tmp_path / "a.parquet")
    assert found.reason is Reason.UNREADABLE


def test_parquet_rows_of_other_string_types_are_read_and_bad_values_counted(tmp_path, read):
    raw = pa.array([b"one", b"caf\xe9", None], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    assert [value for _, value in outcome(read(tmp_path / "a.parquet"))] == [
        "one",
        Reason.NOT_TEXT,
        Reason.EMPTY_DOCUMENT,
    ]
    pq.write_table(pa.table({"text": pa.array(["one", "one"]).dictionary_encode()}), tmp_path / "b.parquet")
    assert [value for _, value in outcome(read(tmp_path / "b.parquet"))] == ["one", "one"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_table_is_streamed_not_loaded(table, recipe, name):
    row = '{"text": "' + "w" * 990 + '"}\n' if name == "a.jsonl" else "w" * 1000 + "\n"
    path = table(name, ("" if name == "a.jsonl" else "text\n") + row * 20_000)
    [source] = open_sources(recipe(path))
    tracemalloc.start()
    [shard] = source.list_shards()
    count = sum(1 for _ in source.read(shard))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_000_000, "20 MB went by"
