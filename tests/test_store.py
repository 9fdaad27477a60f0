from __future__ import annotations

import errno
from pathlib import Path

import pytest

from katsuo.config import recipe_from
from katsuo.errors import RunExistsError, StoreError
from katsuo.records import Example, Passage, Reason, Reject
from katsuo.store import Run, create_run

RECIPE = recipe_from({"documents": ["a.txt"], "tasks": ["ynqa"]})
EXAMPLE = Example(
    id="e1",
    task_type="yes-no question answering",
    instruction="Is it?\nA passage.",
    response="Yes",
    passage_id="p1",
    source="a.txt",
    char_start=0,
    char_end=10,
    context="A passage.",
    model="m@1",
    engine="fake",
    sampling="{}",
    prompt_hash="h",
    seed=2**62,
    checks=("refers_to_passage",),
)
REJECT = Reject("prompt", Reason.NOT_IN_PASSAGE, "a.txt", id="e2", detail="x", text="y\n<|pipe|>\nx")
COUNTS = {
    "prompts": 2,
    "kept": 1,
    "kept_by_task": {"t": 1},
    "rejected": {"span not in passage": 1},
    "new_tokens": 9,
    "seconds": 1.5,
}
READ = {
    "fingerprint": "f",
    "documents": 1,
    "documents_rejected": {},
    "passages": 1,
    "passages_rejected": {},
    "prompts": 2,
    "seconds": 0.5,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run", RECIPE, resume="if-possible")


def test_what_is_written_reads_back_equal(run: Run) -> None:
    passage = Passage("p1", "A passage.", "a.txt", 0, 10)
    run.write_passages(0, [passage], [Reject("document", Reason.NOT_TEXT, "b.txt")])
    run.write_documents_done(READ)
    run.write_shard_done(0, [EXAMPLE], [REJECT], COUNTS)
    assert list(run.passages()) == [passage]
    assert list(run.examples()) == [EXAMPLE]
    assert list(run.rejects()) == [Reject("document", Reason.NOT_TEXT, "b.txt"), REJECT]
    summary = run.summary()
    assert (summary.kept, summary.rejected, summary.new_tokens, summary.seconds) == (1, COUNTS["rejected"], 9, 2.0)
    assert summary.is_complete
    assert summary.is_short


def test_an_unfinished_run_says_what_is_left(run: Run) -> None:
    run.write_passages(0, [Passage("p1", "A passage.", "a.txt", 0, 10)], [])
    run.write_documents_done(READ)
    assert not run.summary().is_complete
    assert (run.shards(), run.done_shards()) == ([0], [])


def test_a_folder_without_a_recipe_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run folder\nhint: make one"):
        Run(tmp_path)


def test_a_file_where_the_run_should_be_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunExistsError):
        create_run(tmp_path / "run", RECIPE, resume="if-possible")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_damaged_file_is_told_by_name(run: Run) -> None:
    run.write_passages(0, [Passage("p1", "A passage.", "a.txt", 0, 10)], [])
    (run.path / "passages" / "00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match=r"00000\.parquet"):
        list(run.passages())


def test_a_write_that_fails_leaves_no_file_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(StoreError, match="no space left on the disk"):
        run.write_shard_done(0, [EXAMPLE], [], COUNTS)
    assert run.done_shards() == []
    assert not list((run.path / "examples").iterdir())


def test_passages_of_a_reading_that_was_cut_short_are_dropped_and_no_others(run: Run) -> None:
    run.write_passages(0, [Passage("p1", "A passage.", "a.txt", 0, 10)], [REJECT])
    run.clear_passages()
    assert run.shards() == []
    run.write_passages(0, [], [])
    run.write_documents_done(READ)
    with pytest.raises(AssertionError):
        run.clear_passages()


def test_a_part_of_a_shard_is_read_but_not_done_and_the_whole_takes_its_place(run: Run) -> None:
    run.write_documents_done(READ)
    run.write_shard_part(3, [EXAMPLE], [REJECT], COUNTS)
    assert (run.done_shards(), run.answered_shards()) == ([], [3])
    assert (list(run.examples()), run.summary().kept) == ([EXAMPLE], 1)
    run.write_shard_done(3, [EXAMPLE, EXAMPLE], [], {**COUNTS, "kept_by_task": {"t": 2}, "rejected": {}})
    assert run.done_shards() == run.answered_shards() == [3]
    assert (run.summary().kept, len(list(run.examples())), list(run.rejects())) == (2, 2, [])


def test_a_part_counts_as_nothing_once_its_files_are_written_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_shard_part(3, [EXAMPLE], [], COUNTS)
    monkeypatch.setattr(Run, "_write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.write_shard_done(3, [EXAMPLE, EXAMPLE], [], COUNTS)
    assert (run.answered_shards(), list(run.examples())) == ([], [])


def test_passages_that_cannot_be_seen_are_told_and_a_marker_without_their_number_is_taken(run: Run) -> None:
    with pytest.raises(StoreError, match=r"0 of \? shards"):
        run.check_read()
    run.write_passages(0, [], [])
    run.write_documents_done(READ)
    run.check_read()
    run.write_documents_done({**READ, "shards": 1})
    run.check_read()
    assert run.summary().documents == 1
    run.write_documents_done({**READ, "shards": 2})
    with pytest.raises(StoreError, match="1 of 2 shards of passages\nhint: the folder must lie where every worker"):
        run.check_read()
