"""Documents and runs behind URLs: fsspec's memory, and a real S3-compatible server on the loopback address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

import katsuo
from katsuo.api import report
from katsuo.errors import RunChangedError, RunExistsError, StoreError, UsageError
from katsuo.places import place, upload
from katsuo.store import Run, create_run


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "letters").mkdir(parents=True)
    kinds = [(age, years) for age in ("old", "new") for years in ("two", "six")]
    lines = [
        f"The {a} harbour opened in {year} after {b} years of work." for a, b in kinds for year in range(1900, 1912)
    ]
    (folder / "harbours.txt").write_text("\n\n".join(lines[:24]))
    (folder / "letters" / "rows.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[24:]))
    (folder / "letters" / "rows.csv").write_text(
        "text\n" + "\n".join(f'"{line} Twice."' for line in lines[24:30]) + "\n"
    )
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 not really")
    return folder


def sent(documents: Path, url: str) -> str:
    for path in sorted(documents.rglob("*.*")):
        upload(path, place(url) / "docs" / path.relative_to(documents).as_posix())
    return f"{url}/docs"


def generate(documents: str | Path, output: str | Path, **settings: object) -> Run:
    settings = {"engine": "fake", "shard_size": 16, "chunk__size": 64, **settings}
    return katsuo.generate(documents, ["exqa", "ynqa"], output, **settings)


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_run_behind_urls_equals_one_on_this_machine(
    store: str, documents: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(store)
    here = generate(documents, tmp_path / "run")
    there = generate(sent(documents, url), f"{url}/runs/one", shard_size=32)
    assert str(there.path) == f"{url}/runs/one"
    assert len(there.shards()) > 1
    # Names, and with them ids and seeds, tell where a document lies; what is written does not.
    written = [[(p.text, p.char_start) for p in sorted(run.passages(), key=lambda p: p.text)] for run in (here, there)]
    assert written[0] == written[1]
    assert {p.source.partition("#")[0] for p in there.passages()} == {
        f"{url}/docs/{name}" for name in ("harbours.txt", "letters/rows.jsonl", "letters/rows.csv")
    }
    assert {reject.source for reject in there.rejects() if reject.kind == "document"} == {f"{url}/docs/broken.pdf"}
    assert there.summary().is_complete
    again = generate(f"{url}/docs", f"{url}/runs/one", resume="always", shard_size=32)
    assert again.summary() == there.summary()
    onto_disk = generate(f"{url}/docs", tmp_path / "other")
    assert list(onto_disk.examples()) == list(there.examples())
    assert list(onto_disk.rejects()) == list(there.rejects())


def test_a_scheme_may_be_written_in_capitals(memory: str, documents: Path, tmp_path: Path) -> None:
    whole = generate(sent(documents, memory), tmp_path / "run")
    capitals = generate(f"{memory}/docs".replace("memory", "MEMORY"), tmp_path / "capitals")
    assert capitals.summary().kept == whole.summary().kept


def test_a_run_behind_a_url_goes_on_where_it_was_stopped(memory: str, documents: Path, tmp_path: Path) -> None:
    whole = list(generate(documents, tmp_path / "run").examples())
    run = generate(documents, f"{memory}/run")
    names = [f"done/{run.shards()[-1]:05d}.json", f"done/{run.shards()[1]:05d}.json"]
    for name in names:
        (run.path / name).unlink()
    (run.path / "examples" / "00001.parquet").write_bytes(b"half a file")
    assert len(list(Run(f"{memory}/run").examples())) < len(whole)
    assert list(generate(documents, f"{memory}/run").examples()) == whole


def test_a_reading_that_was_cut_short_begins_again(memory: str, documents: Path) -> None:
    run = generate(documents, f"{memory}/run")
    before = list(run.passages())
    (run.path / "passages" / "00099.parquet").write_bytes((run.path / "passages" / "00000.parquet").read_bytes())
    for path in (*(run.path / "done").glob("*"), run.path / "passages" / "00000.parquet"):
        path.unlink()
    assert list(generate(documents, f"{memory}/run").passages()) == before


def test_what_lies_behind_the_url_already_is_left_alone(memory: str, documents: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    upload(tmp_path / "mine", place(memory) / "run" / "thesis.txt")
    with pytest.raises(RunExistsError):
        generate(documents, f"{memory}/run")
    generate(documents, f"{memory}/other")
    with pytest.raises(RunChangedError, match=r"sampling\.n"):
        generate(documents, f"{memory}/other", sampling__n=2)


def test_documents_behind_a_url_that_changed_are_refused(memory: str, documents: Path, tmp_path: Path) -> None:
    url = sent(documents, memory)
    generate(url, tmp_path / "run")
    generate(url, tmp_path / "run")
    (tmp_path / "more").write_text("Something else entirely.")
    upload(tmp_path / "more", place(url) / "harbours.txt")
    with pytest.raises(RunChangedError, match="documents have changed"):
        generate(url, tmp_path / "run")


def test_include_takes_files_behind_a_url_by_name_or_path(memory: str, documents: Path, tmp_path: Path) -> None:
    url = sent(documents, memory)
    run = generate(url, tmp_path / "run", include=["*.csv", "letters/*"], exclude=["*.jsonl"])
    assert {p.source.partition("#")[0] for p in run.passages()} == {f"{url}/letters/rows.csv"}
    with pytest.raises(katsuo.KatsuoError, match="no document of"):
        generate(f"{memory}/nothing", tmp_path / "none")


def test_a_write_that_fails_leaves_no_marker_and_says_where(
    memory: str, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = generate(documents, f"{memory}/run")
    (run.path / "done" / "00001.json").unlink()
    put = type(run.path.fs).put_file  # type: ignore[attr-defined]

    def fails(self: object, local: str, there: str, **options: object) -> None:
        if "examples" in there:
            raise RuntimeError("the token has run out")
        put(self, local, there, **options)

    monkeypatch.setattr(type(run.path.fs), "put_file", fails)  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="the token has run out\nhint: check the address"):
        generate(documents, f"{memory}/run")
    assert 1 not in run.done_shards()


@pytest.mark.parametrize("lost", ["info", "glob", "rm", "read", "mkdir"])
def test_a_store_that_cannot_be_reached_is_told_with_a_hint_and_is_no_empty_one(
    lost: str, memory: str, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = generate(documents, f"{memory}/run")
    run.write_shard_part(7, [], [], {})
    half = create_run(f"{memory}/half", run.recipe, resume="never")
    half.write_passages(0, [], [])
    recipe, calls = half.recipe, {"rm": ("rm", "rm_file"), "read": ("open", "cat_file", "read_bytes")}
    asks = {
        "info": [run.is_read, lambda: Run(run.path), lambda: list(run.rejects())],
        "glob": [run.shards, run.done_shards, run.answered_shards, half.clear_passages, run.summary],
        "rm": [half.clear_passages, lambda: run.write_shard_done(7, [], [], {})],
        "read": [lambda: run.recipe, run.summary, lambda: list(run.passages())],
        "mkdir": [lambda: create_run(f"{memory}/new", recipe, resume="never")],
    }

    def no_token(*arguments: object, **options: object) -> None:
        raise RuntimeError("the token has run out")

    with monkeypatch.context() as patch:
        for name in calls.get(lost, (lost,)):
            patch.setattr(type(run.path.fs), name, no_token, raising=False)  # type: ignore[attr-defined]
        for ask in asks[lost]:
            with pytest.raises(StoreError, match="the token has run out\nhint: check the address"):
                ask()


def test_what_is_made_of_a_run_behind_a_url_is_written_to_this_machine(
    memory: str, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = generate(documents, f"{memory}/run")
    makers = [partial(report, str(run.path)), partial(katsuo.export_run, run.path, "trl")]
    makers.append(partial(katsuo.export_run, run.path, "trl", f"{memory}/pages"))
    for make in makers:
        with pytest.raises(UsageError, match=r"memory://bucket/.*\nhint: give a folder of this machine with -o"):
            make()
    assert katsuo.export_run(run.path, "trl", tmp_path / "trl").examples["train"] == run.summary().kept
    assert not (tmp_path / "memory:").exists()
    assert {path.parent for path in report(Path(str(run.path)), tmp_path / "pages")} == {tmp_path / "pages"}
