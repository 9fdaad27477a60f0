"""The promises of every source: names, order, globs, addresses, and the fingerprint."""

from __future__ import annotations

import os
import shutil

import pytest
from document_builders import FLAKES

from katsuo.errors import SourceError, UnknownNameError, UsageError
from katsuo.records import Document, Reject
from katsuo.sources import SOURCES, fingerprint, open_sources


def names(found):
    return [item.source for item in found]


def test_shards_cover_every_document_once_and_are_the_same_on_every_read(library, recipe, read):
    [source] = open_sources(recipe(library))
    shards = list(source.list_shards())
    assert shards == list(source.list_shards())
    one_by_one = [item for shard in shards for item in source.read(shard)]
    assert one_by_one == read(library)
    assert len(set(names(one_by_one))) == len(one_by_one)


def test_names_and_fingerprint_stay_when_the_tree_is_moved(library, read, recipe, tmp_path):
    before, mark = read(library), fingerprint(recipe(library))
    moved = tmp_path / "elsewhere" / "library"
    shutil.copytree(library, moved)
    assert read(moved) == before
    assert fingerprint(recipe(moved)) == mark


@pytest.mark.parametrize("change", ["edit", "rename", "remove", "add"])
def test_the_fingerprint_sees_every_change(library, recipe, change):
    before = fingerprint(recipe(library))
    file = library / "plain.txt"
    if change == "edit":
        file.write_text(file.read_text()[:-2] + "!\n")
    elif change == "rename":
        file.rename(library / "plain2.txt")
    elif change == "remove":
        file.unlink()
    else:
        (library / "more.txt").write_text("x")
    assert fingerprint(recipe(library)) != before


def test_the_fingerprint_does_not_see_a_touch(library, recipe):
    before = fingerprint(recipe(library))
    os.utime(library / "plain.txt", (0, 0))
    assert fingerprint(recipe(library)) == before


def test_a_run_folder_is_no_document(library, read, recipe):
    before = {item.source for item in read(library)}
    for name in ("passages", "done"):
        (library / "run" / name).mkdir(parents=True)
    (library / "run" / "recipe.yaml").write_text("tasks: [ynqa]")
    hash_before = fingerprint(recipe(library))
    (library / "run" / "passages" / "notes.txt").write_text("A passage.")
    assert {item.source for item in read(library)} == before
    assert fingerprint(recipe(library)) == hash_before


def test_hidden_files_and_folders_are_left_out(library, read):
    (library / ".git").mkdir()
    (library / ".git" / "a.txt").write_text("x")
    (library / ".hidden.txt").write_text("x")
    assert not [name for name in names(read(library)) if "/." in name]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["*.md"], ["library/deep/er/mark.md"]),
        (["deep/*"], ["library/deep/er/mark.md"]),
        (["library/deep/*"], ["library/deep/er/mark.md"]),
        (["*.txt", "*.pdf"], ["library/paper.pdf", "library/plain.txt"]),
    ],
)
def test_include_matches_the_name_or_the_path(library, read, include, expected):
    assert names(read(library, include=include)) == expected


def test_exclude_wins_over_include(library, read):
    assert names(read(library, include=["*.txt", "*.md"], exclude=["deep/*"])) == ["library/plain.txt"]


def test_files_without_an_ending_are_read_when_include_names_them(tmp_path, read):
    package = tmp_path / "site" / "some-1.0.dist-info" / "licenses"
    package.mkdir(parents=True)
    (package / "LICENSE").write_text("Permission is granted.")
    (package / "code.py").write_text("pass")
    assert names(read(tmp_path / "site", include=["*LICENSE*"])) == ["site/some-1.0.dist-info/licenses/LICENSE"]


def test_a_file_that_is_named_is_read_as_text_whatever_its_ending(tmp_path, read):
    (tmp_path / "notes.log").write_text("It rained.")
    [document] = read(tmp_path / "notes.log")
    assert document == Document(source="notes.log", text="It rained.")


def test_a_file_is_read_once_however_often_it_is_reached(library, read):
    (library / "notes.log").write_text("It rained.")
    found = read(library, library / "notes.log", library, library / "deep")
    assert len(names(found)) == len(set(names(found)))
    assert sum(item.text == "It rained." for item in found if isinstance(item, Document)) == 1
    assert not [item for item in found if isinstance(item, Reject)]


def test_two_folders_of_one_name_keep_their_documents_apart(tmp_path, read):
    for parent in ("x", "y"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "a.txt").write_text(FLAKES)
    assert names(read(tmp_path / "x" / "docs", tmp_path / "y" / "docs")) == ["x/docs/a.txt", "y/docs/a.txt"]


def test_the_working_folder_has_a_name_too(library, read, monkeypatch):
    monkeypatch.chdir(library)
    assert names(read(".", include=["*.txt"])) == ["library/plain.txt"]


def test_a_name_that_is_not_utf8_is_made_printable(tmp_path, read):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text(FLAKES)
    [document] = read(folder)
    assert document.source == "docs/caf\\xe9.txt"


def test_an_unknown_scheme_names_the_known_ones(recipe):
    with pytest.raises(UnknownNameError, match='unknown source "gopher"'):
        open_sources(recipe("gopher://somewhere/docs"))
    assert SOURCES.names()[:2] == ["file", "hf"]


def test_a_malformed_hub_address_is_wrong_use(recipe):
    with pytest.raises(UsageError, match="no address of a data set"):
        open_sources(recipe("hf://only-a-name"))


def test_the_hub_is_not_asked_when_it_is_switched_off(recipe, monkeypatch, tmp_path):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="hf://nobody/nothing") as caught:
        open_sources(recipe("hf://nobody/nothing"))
    assert "HF_HUB_OFFLINE" in caught.value.hint


def test_a_data_set_is_read_row_by_row(recipe, read, library, monkeypatch):
    # The library takes a folder `owner/name` below the working folder for the data set of that name.
    pytest.importorskip("datasets")
    folder = library / "owner" / "name"
    folder.mkdir(parents=True)
    (library / "rows.parquet").rename(folder / "train.parquet")
    monkeypatch.chdir(library)
    assert names(read("hf://owner/name")) == ["hf://owner/name#row=0", "hf://owner/name#row=1"]
    assert names(read("hf://owner/name/train"))[0] == "hf://owner/name/train#row=0"
    assert fingerprint(recipe("hf://owner/name")) == fingerprint(recipe("hf://owner/name"))
    with pytest.raises(SourceError, match='no split "test"'):
        open_sources(recipe("hf://owner/name/test"))
    with pytest.raises(SourceError, match='no column "body"'):
        open_sources(recipe("hf://owner/name", text_column="body"))
