"""Nothing of a test document reaches the generator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bridges import PLACES, recipe, write_rows

from katsuo.errors import SourceError
from katsuo.evaluate.suites import Item
from katsuo.experiment.__main__ import STAGES
from katsuo.experiment.folder import ExperimentFolder, open_folder
from katsuo.experiment.plan import plan
from katsuo.experiment.rehearse import rehearse
from katsuo.experiment.settings import experiment_from
from katsuo.experiment.split import named_documents, split_documents, split_set
from katsuo.records import Document
from katsuo.store import Run

LONG = (
    "The committee of the old harbour town met on a rainy evening in March to speak of the lighthouse and its keeper."
)
OTHER = "A potter from the hills sold bowls at the market each Saturday and went home with an empty cart before dark."


def item(number: int, passage: str) -> Item:
    return Item(str(number), number, passage, "", "", ("yes",))


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def split(folder: Path, bridges: tuple[Path, Path], **changes: object) -> ExperimentFolder:
    opened = open_folder(folder, experiment_from(recipe(*bridges, "model", **changes)))
    split_set(opened, "bridges")
    return opened


def test_a_document_that_holds_a_test_passage_is_held_out() -> None:
    documents = [Document("a.txt", f"Before. {LONG.upper()} After."), Document("b.txt", OTHER)]
    found = split_documents(documents, [item(0, LONG)], [""])
    assert found.held_out == ["a.txt"]
    assert [document.source for document in found.documents] == ["b.txt"]
    assert found.test == [0]


def test_a_document_that_shares_one_phrase_with_a_test_passage_is_not_its_document() -> None:
    phrase = " ".join(LONG.split()[:14])
    passage = f"{LONG} {OTHER}"
    assert not split_documents([Document("a.txt", f"{phrase} and nothing else.")], [item(0, passage)], [""]).held_out


def test_a_document_is_held_out_when_a_row_names_it() -> None:
    documents = [Document("docs/a.md", OTHER), Document("docs/b.md", OTHER)]
    for name in ("docs/a.md", "a.md", "a"):
        assert split_documents(documents, [item(0, LONG)], [name]).held_out == ["docs/a.md"]


def test_a_copy_is_held_out_with_the_document_that_a_row_names() -> None:
    documents = [Document("a.md", f"# {LONG}"), Document("a.pdf", f"Page 1. {LONG}"), Document("b.md", OTHER)]
    found = split_documents(documents, [item(0, LONG)], ["a.md"])
    assert found.held_out == ["a.md", "a.pdf"]


def test_copies_are_held_out_together_when_only_some_documents_are() -> None:
    texts = [LONG.replace(" ", f" {number} ") for number in range(6)]
    documents = [
        Document(f"{number}.{kind}", f"{kind} {text}") for number, text in enumerate(texts) for kind in ("md", "pdf")
    ]
    items = [item(number, text) for number, text in enumerate(texts)]
    found = split_documents(documents, items, [""] * 6, test_share=0.5)
    stems = [Path(name).stem for name in found.held_out]
    assert len(stems) == 2 * len(set(stems)) == 6
    assert found.test == sorted({int(stem) for stem in stems})
    assert not set(stems) & {Path(document.source).stem for document in found.documents}


def test_a_repeated_row_never_stands_in_test_and_labelled_rows(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    bridges[1].write_text(bridges[1].read_text() * 2)
    place = split(tmp_path / "out", bridges, test_share=0.5).split("bridges")
    test, labelled = (
        [(row["passage"], row["question"]) for row in lines(place / f"{name}.jsonl")] for name in ("test", "labelled")
    )
    assert len(set(test)) == len(test) == len(labelled) == 16
    assert not set(test) & set(labelled)
    told = json.loads((place / "split.json").read_text())
    assert (told["test_rows"], told["left_out"]) == (16, {"duplicate": 32})


def test_a_column_of_documents_that_is_not_there_is_an_error(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model")
    told["sets"]["bridges"]["document_column"] = "pasage"
    folder = open_folder(tmp_path / "out", experiment_from(told))
    with pytest.raises(
        SourceError, match='no column "pasage", which document_column names\nhint: did you mean "passage"'
    ):
        split_set(folder, "bridges")


def test_documents_that_cannot_be_read_are_counted_with_the_reason(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    (bridges[0] / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    told = json.loads((split(tmp_path / "out", bridges).split("bridges") / "split.json").read_text())
    assert (told["documents"], told["documents_unread"], told["unread"]) == (8, 1, {"unreadable document": 1})


def test_rows_of_documents_that_are_not_held_out_serve_the_upper_bound() -> None:
    texts = [LONG.replace(" ", f" {number} ") for number in range(10)]
    documents = [Document(f"{number}.txt", text) for number, text in enumerate(texts)]
    items = [item(number, text) for number, text in enumerate(texts)]
    found = split_documents(documents, items, [f"{number}.txt" for number in range(10)], test_share=0.4)
    assert (len(found.held_out), len(found.test), len(found.labelled)) == (4, 4, 6)
    assert {f"{row}.txt" for row in found.test} == set(found.held_out)


def test_a_split_writes_what_the_generator_may_read_and_what_it_may_not(
    bridges: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = split(tmp_path / "out", bridges)
    place = folder.split("bridges")
    sources = [row["source"] for row in lines(place / "documents.jsonl")]
    assert sources == [f"documents/{name}.txt" for name in PLACES[4:]]
    assert len(lines(place / "test.jsonl")) == 32
    assert not any(name in row["text"] for row in lines(place / "documents.jsonl") for name in PLACES[:4])
    told = json.loads((place / "split.json").read_text())
    assert (told["documents"], told["documents_held_out"], told["labelled_rows"]) == (8, 4, 0)


def test_a_split_that_leaves_the_generator_nothing_says_what_helps(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    write_rows(bridges[1], places=8)
    with pytest.raises(SourceError, match="test_share"):
        split(tmp_path / "out", bridges)


def test_further_labelled_rows_are_added_for_the_upper_bound(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    further = write_rows(tmp_path / "more.jsonl", places=1)
    told = recipe(*bridges, "model")
    told["sets"]["bridges"]["labelled"] = str(further)
    folder = open_folder(tmp_path / "out", experiment_from(told))
    split_set(folder, "bridges")
    assert len(lines(folder.split("bridges") / "labelled.jsonl")) == 8


def test_a_document_without_spaces_or_in_another_form_of_unicode_is_held_out() -> None:
    harbour, other = (
        "港の委員会は三月の雨の夜に集まり、灯台について話した。",
        "市場では陶工が毎週土曜日に器を売っていた。",
    )
    documents = [Document("a.txt", f"前置き。{harbour}終わり。"), Document("b.txt", other * 3)]
    assert split_documents(documents, [item(0, harbour)], [""]).held_out == ["a.txt"]
    # What a program that sets type makes of it: soft hyphens, ligatures, marks beside their letters.
    odd = LONG.replace("committee", "com\u00admittee").replace("of the", "o\ufb00 the").replace("rainy", "rai\u0301ny")
    plain = LONG.replace("of the", "off the").replace("rainy", "ra\u00edny")
    assert split_documents([Document("a.txt", odd)], [item(0, plain)], [""]).held_out == ["a.txt"]


def test_a_passage_of_a_few_words_has_no_document_of_its_own() -> None:
    documents = [Document("a.txt", f"Yes. {LONG}"), Document("b.txt", f"Yes, they met again. {OTHER}")]
    for passage in ("Yes", "the old harbour town"):
        assert split_documents(documents, [item(0, passage)], [""]).held_out == []
    assert split_documents(documents, [item(0, "of the old harbour town")], [""]).held_out == ["a.txt"]


def test_a_document_may_have_a_number_for_its_name(tmp_path: Path) -> None:
    rows = [{"document": 0}, {"document": None}, {}]
    items = [item(number, LONG) for number in range(3)]
    assert named_documents(rows, items, "document", tmp_path) == ["0", "", ""]


def feelings(rows: Path, answers: list[str]) -> None:
    """Give each bridge's rows one of these labels in place of what they ask."""
    told = [json.loads(line) for line in rows.read_text().splitlines()][::8]
    for number, (row, answer) in enumerate(zip(told, answers, strict=True)):
        told[number] = {"text": row["passage"], "label": answer}
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))


def test_test_rows_and_labelled_rows_are_asked_with_the_labels_of_both(
    bridges: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feelings(bridges[1], ["glad", "sad", "calm", "angry"])
    further = tmp_path / "more.jsonl"
    further.write_text(json.dumps({"text": OTHER, "label": "bored"}))
    told = recipe(*bridges, "model", test_share=0.5)
    told["sets"]["bridges"] |= {"task": "sentiment", "labelled": str(further)}
    folder = open_folder(tmp_path / "out", experiment_from(told))
    rehearse(folder)
    split_set(folder, "bridges")
    place, labels = folder.split("bridges"), ["angry", "bored", "calm", "glad", "sad"]
    assert json.loads((place / "split.json").read_text())["labels"] == labels
    assert {len(lines(place / "test.jsonl")), len(lines(place / "labelled.jsonl"))} == {2, 3}
    stage = next(stage for stage in plan(folder) if stage.name == "bridges/evaluate-zero-shot")
    command = list(stage.command())
    assert json.loads(command[command.index("--labels") + 1]) == labels
    monkeypatch.setattr("katsuo.train.load.token_counter", lambda _: lambda texts: [len(one.split()) for one in texts])
    STAGES["supervised"](folder, "bridges", "0")
    examples = list(Run(folder.run("bridges", 0, "supervised")).examples())
    assert len(examples) == 3
    assert all(all(label in one.instruction for label in labels) for one in examples)


def test_labels_that_differ_only_by_case_between_two_files_are_refused(
    bridges: tuple[Path, Path], tmp_path: Path
) -> None:
    feelings(bridges[1], ["glad", "sad", "calm", "angry"])
    (tmp_path / "more.jsonl").write_text(json.dumps({"text": OTHER, "label": "Glad"}))
    told = recipe(*bridges, "model", test_share=0.5)
    told["sets"]["bridges"] |= {"task": "sentiment", "labelled": str(tmp_path / "more.jsonl")}
    with pytest.raises(SourceError, match='"Glad" and "glad", which differ only by case'):
        split_set(open_folder(tmp_path / "out", experiment_from(told)), "bridges")


def test_a_set_of_written_answers_has_no_labels(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model")
    told["sets"]["bridges"]["task"] = "exqa"
    folder = open_folder(tmp_path / "out", experiment_from(told))
    split_set(folder, "bridges")
    stage = next(stage for stage in plan(folder) if stage.name == "bridges/evaluate-zero-shot")
    assert "--labels" not in stage.command()
