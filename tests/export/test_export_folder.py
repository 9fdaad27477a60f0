"""What happens to the output folder when a run, a disk or a text is not as hoped for."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from katsuo.errors import ExportError, StoreError
from katsuo.export import export_run
from katsuo.records import Example
from katsuo.store import Run

MakeRun = Callable[..., Run]
EXAMPLE = Example(
    id="0",
    task_type="extractive question answering",
    instruction="Built in 1932.\n\nWhen?",
    response="1932",
    passage_id="p",
    source="a.txt",
    char_start=0,
    char_end=14,
    context="Built in 1932.",
    model="fake@1",
    engine="fake",
    sampling="{}",
    prompt_hash="h",
    seed=1,
    checks=(),
)


def test_the_folder_lies_in_the_run_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    done = export_run(copy.path, "bonito")
    assert done.path == copy.path / "export" / "bonito"
    assert list(copy.examples()) == list(run.examples())


def test_an_empty_folder_is_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_run(run, "bonito", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "train.jsonl"]


def test_an_unfinished_run_is_refused_unless_asked_for(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / "done" / "00001.json").unlink()
    with pytest.raises(ExportError, match=r"not finished.*\n.*same `katsuo generate`"):
        export_run(copy, "trl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = export_run(copy, "trl", tmp_path / "out", allow_partial=True)
    assert done.examples["train"] == copy.summary().kept < run.summary().kept
    assert "was not finished" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_run_whose_documents_are_not_all_read_is_unfinished(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    shutil.rmtree(copy.path / "done")
    with pytest.raises(ExportError, match=r"0 of \? prompts"):
        export_run(copy, "trl", tmp_path / "out")


def test_a_run_without_examples_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no examples.*\n.*--rejects"):
        export_run(make_run([]), "trl", tmp_path / "out")


def test_a_run_that_holds_less_than_it_counts_is_damaged(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds 1 examples where its markers count 2"):
        export_run(make_run([EXAMPLE], counted=2), "trl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    last = sorted((copy.path / "examples").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(StoreError, match=last.name):
        export_run(copy, "parquet", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_split_without_documents_is_an_error(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match='no document fell into the split "test"'):
        export_run(make_run([EXAMPLE]), "trl", tmp_path / "out", splits={"test": 0.001})


def test_a_folder_that_does_not_take_files_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write"):
        export_run(run, "trl", tmp_path / "file" / "out")


def test_texts_that_look_like_dates_are_kept_or_refused(make_run: MakeRun, tmp_path: Path) -> None:
    dated = make_run(
        [replace(EXAMPLE, response="2020-01-01"), replace(EXAMPLE, id="1", response="2020-01-02T10:00:00+02:00")]
    )
    with pytest.raises(ExportError, match=r'every "output" in train.jsonl is a date(.|\n)*--file-type parquet'):
        export_run(dated, "bonito", tmp_path / "out")
    export_run(dated, "bonito", tmp_path / "out", file_type="parquet")


def test_one_other_text_makes_a_column_of_dates_safe(make_run: MakeRun, tmp_path: Path) -> None:
    export_run(make_run([replace(EXAMPLE, response="2020-01-01"), EXAMPLE]), "bonito", tmp_path / "out")


def test_a_line_break_inside_a_text_never_ends_a_line(run: Run, tmp_path: Path) -> None:
    export_run(run, "bonito", tmp_path / "out")
    lines = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == run.summary().kept
    assert any("Zürich" in line for line in lines)


def test_a_long_run_is_written_batch_by_batch_into_shards(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("katsuo.export.files._BATCH_ROWS", 10)
    monkeypatch.setattr("katsuo.export.files._SHARD_ROWS", 100)
    count = 111
    long = make_run([replace(EXAMPLE, id=str(number)) for number in range(count)])
    done = export_run(long, "bonito", tmp_path / "out", file_type="parquet")
    assert done.examples == {"train": count}
    assert done.files == ("README.md", "train/00000.parquet", "train/00001.parquet")
    shards = [pq.ParquetFile(tmp_path / "out" / name) for name in done.files[1:]]
    assert [(shard.metadata.num_rows, shard.num_row_groups) for shard in shards] == [(100, 10), (11, 2)]


SMALL_DISK = """
mount -t tmpfs -o size=32k tmpfs "$1" && "$2" -m katsuo export "$3" -f parquet -o "$1/out"
echo "status $?"; ls -A "$1"
"""


def test_a_full_disk_is_told_and_leaves_nothing_behind(make_run: MakeRun, tmp_path: Path) -> None:
    texts = [replace(EXAMPLE, id=str(n), response=f"{n * 7919**3 % 10**15}") for n in range(4000)]
    (tmp_path / "small").mkdir()
    run = make_run(texts)
    told = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(tmp_path / "small"), sys.executable, str(run.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in told.stderr or "unshare" in told.stderr:
        pytest.skip(f"no small disk can be made here: {told.stderr.strip()}")
    assert "no space left" in told.stderr
    assert "free some space" in told.stderr
    assert told.stdout == "status 1\n"


def test_a_file_that_may_not_grow_is_told(run: Run, tmp_path: Path) -> None:
    code = f"import katsuo.export; katsuo.export.export_run({str(run.path)!r}, 'messages', {str(tmp_path / 'out')!r})"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert "ExportError: no space left" in told.stderr
    assert not list(tmp_path.iterdir())
