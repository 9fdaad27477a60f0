"""
The folder of one evaluation: the only code that knows the file names inside it.

    RESULT/
    ├── evaluation.json             what is asked of which model
    ├── parts/SET/00000.parquet     predictions so far, some items with all their templates; gone in the end
    ├── predictions.parquet         every prediction
    └── scores.json                 written last
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.errors import StoreError, UsageError
from katsuo.evaluate.ask import Prediction
from katsuo.evaluate.statistics import Outcomes
from katsuo.places import read_json, whole_file, write_json
from katsuo.resume import refuse_occupied, refuse_other

_WORD = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("row", pa.int64()),
        ("template", _WORD),
        ("prediction", pa.string()),
        ("golds", pa.list_(pa.string())),
        ("score", pa.float64()),
        ("exact", pa.float64()),
        ("choice", pa.int32()),
        ("gold_choice", pa.int32()),
        ("choices", pa.list_(pa.string())),
        ("log_probabilities", pa.list_(pa.float64())),
        ("choice_tokens", pa.list_(pa.int32())),
        ("cut_chars", pa.int64()),
        ("prompt_tokens", pa.int64()),
    ]
)
_ELSEWHERE = "give another folder with -o"
_WHOLE = pa.schema([("set", _WORD), *_SCHEMA])


class Evaluation:
    """A finished evaluation: its scores, and every prediction for a paired comparison."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / "scores.json").is_file():
            raise StoreError(
                f'"{self.path}" holds no finished evaluation', hint="make one with `katsuo evaluate MODEL … -o FOLDER`"
            )
        self.scores: dict[str, Any] = read_json(self.path / "scores.json", hint=_ELSEWHERE)

    @property
    def name(self) -> str:
        """Give the name of the system that was judged."""
        return str(self.scores["system"])

    @property
    def sets(self) -> list[str]:
        """Name the data sets."""
        return list(self.scores["sets"])

    def predictions(self, set_name: str) -> list[Prediction]:
        """Read the predictions for a data set, item by item."""
        table = _read_table(self.path / "predictions.parquet", _WHOLE, filters=[("set", "=", set_name)])
        return _predictions(table.drop_columns(["set"]))

    def outcomes(self, set_name: str) -> tuple[Outcomes, list[str], list[str]]:
        """Give a set's outcomes for `paired_bootstrap`, with the ids of the items and the names of the templates."""
        if set_name not in self.scores["sets"]:
            raise UsageError(f'"{self.path}" did not judge "{set_name}"', hint=f"it judged: {', '.join(self.sets)}")
        told = self.predictions(set_name)
        templates = list(dict.fromkeys(one.template for one in told))
        items = list(dict.fromkeys(one.item for one in told))
        found = {(one.template, one.item): one for one in told}
        grid = [[found[template, item] for item in items] for template in templates]
        if self.scores["sets"][set_name]["metric"] != "macro_f1":
            return Outcomes(numpy.array([[one.score for one in line] for line in grid])), items, templates
        choices = numpy.array([[one.choice for one in line] for line in grid], dtype=numpy.int64)
        golds = numpy.array([one.gold_choice for one in grid[0]], dtype=numpy.int64)
        return Outcomes(choices, golds, len(grid[0][0].choices)), items, templates


def scores_beside(told: Mapping[str, Any]) -> dict[str, float]:
    """Give a set's scores beside its metric (accuracy, exact match), each the mean over its templates."""
    found: dict[str, list[float]] = defaultdict(list)
    for scores in told["templates"].values():
        for key, value in scores.items():
            if isinstance(value, float) and key != told["metric"]:
                found[key].append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}


class Draft:
    """An evaluation on its way: what was done is kept, and the same call goes on after it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self) -> Evaluation | None:
        """Give the evaluation if it is finished."""
        return Evaluation(self.path) if (self.path / "scores.json").is_file() else None

    def has(self, set_name: str, part: int) -> bool:
        """Say whether a part is done."""
        return self._part(set_name, part).is_file()

    def write_part(self, set_name: str, part: int, predictions: Sequence[Prediction]) -> None:
        """Keep a part."""
        with whole_file(self._part(set_name, part)) as partial:
            pq.write_table(_table(predictions), partial, compression="zstd")

    def read(self, set_name: str) -> list[Prediction]:
        """Read all parts of a set, in order."""
        paths = sorted((self.path / "parts" / set_name).glob("*.parquet"))
        return [one for path in paths for one in _predictions(_read_table(path, _SCHEMA))]

    def finish(self, sets: Iterable[str], scores: Mapping[str, Any]) -> Evaluation:
        """Put the parts together, write the scores last, and drop the parts."""
        tables = []
        for name in sets:
            table = _table(self.read(name))
            column = pa.array([name] * table.num_rows).dictionary_encode()
            tables.append(table.add_column(0, "set", column).cast(_WHOLE))
        whole = pa.concat_tables(tables)
        with whole_file(self.path / "predictions.parquet") as partial:
            pq.write_table(whole, partial, compression="zstd")
        write_json(self.path / "scores.json", scores)
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        return Evaluation(self.path)

    def amend(self, scores: Mapping[str, Any]) -> Evaluation:
        """Write the scores of a finished evaluation again, with what was found out since."""
        write_json(self.path / "scores.json", scores)
        return Evaluation(self.path)

    def _part(self, set_name: str, part: int) -> Path:
        return self.path / "parts" / set_name / f"{part:05d}.parquet"


def open_draft(path: Path, asked: Mapping[str, Any]) -> Draft:
    """Make the folder, or take up the one that is there; raise `RunChangedError` when it was asked something else."""
    held = path / "evaluation.json"
    if held.is_file():
        refuse_other(path, "evaluation", read_json(held, hint=_ELSEWHERE), json.loads(json.dumps(asked)))
        return Draft(path)
    refuse_occupied(path, "evaluation")
    write_json(held, asked)
    return Draft(path)


def _table(predictions: Sequence[Prediction]) -> pa.Table:
    return pa.Table.from_pylist([asdict(one) for one in predictions], schema=_SCHEMA)


def _predictions(table: pa.Table) -> list[Prediction]:
    lists = ("golds", "choices", "log_probabilities", "choice_tokens")
    return [Prediction(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in table.to_pylist()]


def _read_table(path: Path, schema: pa.Schema, **how: Any) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema, **how)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f'cannot read "{path}": {error}', hint="remove it and give the same command again") from error
