"""Split by document before anything is generated: what a test row is about never reaches the generator."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from katsuo.config import recipe_from
from katsuo.errors import SourceError
from katsuo.evaluate.judge import read_labels, read_sheet
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.evaluate.suites import Item, Sheet
from katsuo.evaluate.suites.items import labels_in
from katsuo.evaluate.suites.rows import Row, find_data, nearest_column, read_rows
from katsuo.experiment.folder import ExperimentFolder, read_json, write_text
from katsuo.experiment.settings import SetSettings
from katsuo.pipeline.words import runs_of, words_of
from katsuo.places import write_json
from katsuo.records import Document, Reject
from katsuo.sources import iter_documents

DOCUMENTS, TEST, LABELLED, HELD_OUT, TOLD = (
    "documents.jsonl", "test.jsonl", "labelled.jsonl", "held_out.jsonl", "split.json",
)  # fmt: skip
_NGRAM = 13
_SHARE = 0.5
"""A document that holds this share of a test passage's runs of words is the one that it was taken from."""
_FEWEST_WORDS = 5
"""A passage of fewer words stands in many documents that it was not taken from."""


@dataclass(frozen=True)
class Split:
    """Documents for the generator, and the rows (by number) that test and that may be trained on."""

    documents: list[Document]
    held_out: list[str]
    test: list[int]
    labelled: list[int]


def split_set(folder: ExperimentFolder, name: str) -> None:
    """
    Write a set's split: documents for the generator, test rows, rows for the upper bound, and held-out texts.

    Raise `SourceError` when no document or no test row is left.
    """
    experiment = folder.experiment
    one, place = experiment.sets[name], folder.split(name)
    rows_file, rows = rows_of(one)
    templates = experiment.evaluate_settings().templates
    sheet = read_sheet(one.read_suite(), rows_file, EvaluateSettings(templates=templates))
    items = sheet.items
    found = list(read_documents(one))
    documents = [document for document in found if isinstance(document, Document)]
    unread = Counter(reject.reason.value for reject in found if isinstance(reject, Reject))
    named = named_documents(rows, items, one.document_column, rows_file)
    split = split_documents(documents, items, named, test_share=experiment.test_share)
    if not split.documents:
        raise SourceError(
            f'every document of "{name}" has test rows: none is left for the generator',
            hint="lower test_share, or add documents that no row is about",
        )
    tested = set(split.test)
    _write_rows(place / DOCUMENTS, ({"text": one.text, "source": one.source} for one in split.documents))
    _write_rows(place / TEST, (rows[number] for number in split.test))
    further = read_rows(Path(one.labelled)) if one.labelled else []
    _write_rows(place / LABELLED, [*(rows[number] for number in split.labelled), *further])
    _write_rows(place / HELD_OUT, ({"text": item.passage} for item in items if item.row in tested and item.passage))
    told = {
        "documents": len(documents),
        "documents_unread": sum(unread.values()),
        "unread": dict(unread),
        "documents_held_out": len(split.held_out),
        "held_out": split.held_out[:100],
        "test_rows": len(split.test),
        "left_out": dict(sheet.left_out),
        "labels": list(all_labels(one, sheet)),
        "labelled_rows": len(split.labelled) + len(further),
        "rows_without_document": len(items) - len(_owners(documents, items, named)),
    }
    write_json(place / TOLD, told)


def all_labels(one: SetSettings, sheet: Sheet) -> tuple[str, ...]:
    """Give the labels of a suite; where it has none of its own, those of all rows, the further ones with them."""
    if not one.labelled or sheet.suite.labels != ():
        return sheet.labels
    further = read_labels(sheet.suite, Path(one.labelled))
    return labels_in(sheet.suite, [*sheet.labels, *further])


def split_documents(
    documents: Sequence[Document], items: Sequence[Item], named: Sequence[str], *, test_share: float = 1.0
) -> Split:
    """
    Hold out `test_share` of the documents that rows are about, drawn by hash; all others go to the generator.

    A row belongs to the document that `named` says, and to each that holds half of its passage, if that is no mere
    handful of words. Documents that share a row, such as copies, are held out together. A row is a test row unless its
    documents go to the generator.
    """
    owners = _owners(documents, items, named)
    labelled = sorted({place for found in owners.values() for place in found})
    count = max(1, round(len(labelled) * test_share)) if labelled else 0
    together, held_out = _linked(owners.values()), set[int]()
    for place in sorted(labelled, key=lambda place: _hash(documents[place].source)):
        if len(held_out) < count:
            held_out |= together[place]
    test = [item.row for number, item in enumerate(items) if not owners.get(number) or owners[number] & held_out]
    tested = set(test)
    return Split(
        [document for place, document in enumerate(documents) if place not in held_out],
        [documents[place].source for place in sorted(held_out)],
        test,
        [item.row for item in items if item.row not in tested],
    )


def _owners(documents: Sequence[Document], items: Sequence[Item], named: Sequence[str]) -> dict[int, set[int]]:
    """Give for each item, by number, the places of its documents; an item without one is not there."""
    owners: dict[int, set[int]] = defaultdict(set)
    by_name: dict[str, set[int]] = defaultdict(set)
    for place, document in enumerate(documents):
        for name in (document.source, Path(document.source).name, Path(document.source).stem):
            by_name[name].add(place)
    for number, name in enumerate(named):
        if found := by_name.get(name):
            owners[number] |= found
    passages = _Passages({number: item.passage for number, item in enumerate(items)})
    for place, document in enumerate(documents):
        for number in passages.held_by(document.text):
            owners[number].add(place)
    return dict(owners)


def _linked(owners: Iterable[set[int]]) -> dict[int, set[int]]:
    """Give each document's place with those that it shares a row with, directly or by way of others."""
    groups: dict[int, set[int]] = {}
    for found in owners:
        whole = found.union(*(groups.get(place, set()) for place in found))
        groups.update(dict.fromkeys(whole, whole))
    return groups


class _Passages:
    """Find the passages of which a text holds a good share."""

    def __init__(self, passages: Mapping[int, str]) -> None:
        self._runs: dict[int, dict[str, set[int]]] = {}
        self._counts: dict[int, int] = {}
        for number, passage in passages.items():
            words = words_of(passage)
            if len(words) < _FEWEST_WORDS:
                continue
            size = min(_NGRAM, len(words))
            runs = set(runs_of(words, size))
            self._counts[number] = len(runs)
            for run in runs:
                self._runs.setdefault(size, {}).setdefault(run, set()).add(number)

    def held_by(self, text: str) -> list[int]:
        words = words_of(text)
        hits: dict[int, int] = defaultdict(int)
        for size, known in self._runs.items():
            for run in known.keys() & runs_of(words, size):
                for number in known[run]:
                    hits[number] += 1
        return [number for number, count in hits.items() if count >= _SHARE * self._counts[number]]


def labels_of(folder: ExperimentFolder, name: str) -> tuple[str, ...]:
    """Give the labels of all rows of a set, which test rows and labelled rows are asked with alike; none of options."""
    told = folder.split(name) / TOLD
    found = read_json(told).get("labels") if told.is_file() else None
    return tuple(found or folder.experiment.sets[name].labels)


def rows_of(one: SetSettings) -> tuple[Path, list[Row]]:
    """Give the file of a set's labelled rows, and the rows."""
    suite = one.read_suite()
    file = find_data(suite.data, Path(one.data) if one.data else None, suite_file=Path(suite.file))
    return file, read_rows(file)


def named_documents(
    rows: Sequence[Mapping[str, Any]], items: Sequence[Item], column: str | None, file: Path
) -> list[str]:
    """Give the document that each item's row names; raise `SourceError` where there is no such column."""
    if column is None:
        return [""] * len(items)
    columns = list(dict.fromkeys(key for row in rows[:1000] for key in row))
    if column not in columns:
        raise SourceError(
            f'"{file}" has no column "{column}", which document_column names', hint=nearest_column(column, columns)
        )
    found = [rows[item.row].get(column) for item in items]
    return ["" if name is None else str(name) for name in found]


def read_documents(one: SetSettings) -> Iterator[Document | Reject]:
    """Read a set's documents, with a reject for each that cannot be read."""
    told = {"documents": one.documents, "include": one.include, "exclude": one.exclude, "text_column": one.text_column}
    yield from iter_documents(recipe_from(told))


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
