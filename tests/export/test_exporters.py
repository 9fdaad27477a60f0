"""Every registered format: written, read back with `datasets`, equal to the run; nothing is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from katsuo.errors import RunExistsError, UnknownNameError, UsageError
from katsuo.export import EXPORTERS, export_run
from katsuo.store import Run

OWN_OPTIONS: dict[str, dict[str, Any]] = {"hub": {"repo_id": "me/bridges"}}
FILE_TYPES = ("jsonl", "parquet")
ROW_FORMATS = ("trl", "messages", "alpaca", "sharegpt", "bonito")


def read_back(folder: Path, cache: Path) -> dict[str, list[dict[str, Any]]]:
    loaded = datasets.load_dataset(str(folder), cache_dir=str(cache))
    return {split: list(rows) for split, rows in loaded.items()}


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


@pytest.fixture(params=EXPORTERS.names())
def format_name(request: pytest.FixtureRequest) -> str:
    if request.param == "hub":
        request.getfixturevalue("hub")
    return str(request.param)


@pytest.mark.contract
def test_every_format_reads_back_equal_to_the_run(format_name: str, run: Run, tmp_path: Path) -> None:
    done = export_run(run, format_name, tmp_path / "out", **OWN_OPTIONS.get(format_name, {}))
    rows = read_back(tmp_path / "out", tmp_path / "cache")["train"]
    examples = list(run.examples())
    assert [row["id"] for row in rows] == [example.id for example in examples]
    for row, example in zip(rows, examples, strict=True):
        texts = list(texts_in(row))
        assert any(text.rstrip("\n") == example.instruction for text in texts)
        assert example.response in texts
    assert done.examples == {"train": len(examples)}
    assert set(done.files) == {p.relative_to(done.path).as_posix() for p in done.path.rglob("*") if p.is_file()}


@pytest.mark.contract
def test_no_format_overwrites_anything(format_name: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(RunExistsError, match="not empty"):
        export_run(run, format_name, tmp_path / "out", **OWN_OPTIONS.get(format_name, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"


@pytest.mark.contract
def test_every_format_keeps_the_documents_of_its_splits_apart(format_name: str, run: Run, tmp_path: Path) -> None:
    options = {**OWN_OPTIONS.get(format_name, {}), "splits": {"test": 0.3, "validation": 0.2}}
    done = export_run(run, format_name, tmp_path / "out", **options)
    splits = read_back(tmp_path / "out", tmp_path / "cache")
    source_of = {example.id: example.source for example in run.examples()}
    sources = {split: {source_of[row["id"]] for row in rows} for split, rows in splits.items()}
    assert {split: len(rows) for split, rows in splits.items()} == done.examples
    assert sum(done.examples.values()) == run.summary().kept
    assert set(sources) == {"train", "test", "validation"}
    assert sum(len(names) for names in sources.values()) == len(set(source_of.values()))


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("name", ROW_FORMATS)
def test_provenance_leads_from_a_row_to_its_place(name: str, file_type: str, run: Run, tmp_path: Path) -> None:
    export_run(run, name, tmp_path / "out", with_provenance=True, file_type=file_type)
    rows = read_back(tmp_path / "out", tmp_path / "cache")["train"]
    for row, example in zip(rows, run.examples(), strict=True):
        for column in ("source", "char_start", "char_end", "passage_id", "task_type", "model", "seed"):
            assert row[column] == getattr(example, column)


def only(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return rows["train"][0]


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_each_format_has_the_columns_that_its_readers_expect(file_type: str, run: Run, tmp_path: Path) -> None:
    example = next(run.examples())
    asked, answered = example.instruction, example.response
    expected: dict[str, dict[str, Any]] = {
        "trl": {
            "prompt": [{"role": "user", "content": asked}],
            "completion": [{"role": "assistant", "content": answered}],
        },
        "messages": {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]},
        "alpaca": {"instruction": asked, "input": "", "output": answered},
        "sharegpt": {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]},
        "bonito": {"input": asked, "output": answered},
    }
    for name, columns in expected.items():
        export_run(run, name, tmp_path / name, file_type=file_type)
        assert only(read_back(tmp_path / name, tmp_path / "cache")) == {"id": example.id, **columns}


def test_plain_trl_rows_are_strings_parted_at_the_end_of_the_prompt(run: Run, tmp_path: Path) -> None:
    export_run(run, "trl", tmp_path / "out", plain=True)
    row, example = only(read_back(tmp_path / "out", tmp_path / "cache")), next(run.examples())
    assert (row["prompt"], row["completion"]) == (f"{example.instruction}\n", example.response)


def test_parquet_holds_every_column_of_the_store(run: Run, tmp_path: Path) -> None:
    export_run(run, "parquet", tmp_path / "out")
    stored = [row for path in sorted((run.path / "examples").iterdir()) for row in pq.read_table(path).to_pylist()]
    assert pq.read_table(tmp_path / "out" / "train").to_pylist() == stored


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("name", ["alpaca", "sharegpt"])
def test_llama_factory_finds_every_split(name: str, file_type: str, run: Run, tmp_path: Path) -> None:
    export_run(run, name, tmp_path / "out", splits={"test": 0.4}, file_type=file_type)
    told = json.loads((tmp_path / "out" / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(told) == {"bridges", "bridges_test"}
    for split, entry in (("train", told["bridges"]), ("test", told["bridges_test"])):
        place = tmp_path / "out" / entry["file_name"]
        assert place.exists()
        files = [str(path) for path in (place.iterdir() if place.is_dir() else [place])]
        rows = list(
            datasets.load_dataset(
                "json" if file_type == "jsonl" else "parquet", data_files=files, cache_dir=str(tmp_path / "cache")
            )["train"]
        )
        assert rows == read_back(tmp_path / "out", tmp_path / "cache")[split]
        columns = entry["columns"].values()
        assert entry["formatting"] == name
        assert set(columns) <= set(rows[0])
    if name == "sharegpt":
        tags, turns = told["bridges"]["tags"], rows[0]["conversations"]
        assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
        assert all(tags["content_tag"] in turn for turn in turns)


def test_an_unknown_format_is_answered_with_the_nearest(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match='did you mean "alpaca"'):
        export_run(run, "alpacca", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alpaca", {"plain": True}),
        ("trl", {"repo_id": "me/bridges"}),
        ("trl", {"public": True}),
        ("trl", {"file_type": "csv"}),
        ("parquet", {"file_type": "jsonl"}),
        ("hub", {"file_type": "jsonl", "repo_id": "me/bridges"}),
        ("hub", {}),
        ("hub", {"repo_id": "bridges"}),
        ("trl", {"splits": {"test": 1.0}}),
        ("trl", {"splits": {"test": 0.0}}),
        ("trl", {"splits": {"test": 0.5, "more": 0.5}}),
        ("trl", {"splits": {"train": 0.5}}),
        ("trl", {"splits": {"../test": 0.5}}),
    ],
)
def test_settings_that_mean_nothing_are_wrong_use(name: str, options: dict[str, Any], run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        export_run(run, name, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_the_head_of_the_card_names_licence_and_languages_only_as_given(run: Run, tmp_path: Path) -> None:
    def head(folder: Path) -> dict[str, Any]:
        return dict(yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]))

    export_run(run, "trl", tmp_path / "plain")
    export_run(run, "trl", tmp_path / "told", license="cc-by-4.0", languages=["en", "de"])
    bare, told = head(tmp_path / "plain"), head(tmp_path / "told")
    assert bare["license"] == "other"
    assert "language" not in bare
    assert (told["license"], told["language"]) == ("cc-by-4.0", ["en", "de"])
    assert bare["size_categories"] == ["n<1K"]
    assert {"synthetic", "katsuo", "conditional-task-generation"} <= set(bare["tags"])
