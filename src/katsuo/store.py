"""
The run folder: the only code that knows the file names inside a run.

    RUN/
    ├── recipe.yaml               every setting, defaults included
    ├── manifest.json             versions, model, hashes, counts
    ├── passages/00000.parquet    what the documents were cut into
    ├── examples/00000.parquet    what passed every check
    ├── rejects/00000.parquet     what did not, with its reason; `read-00000.parquet` for what was never asked
    └── done/00000.json           written last: the shard's counts; `documents.json` once all is read;
                                  `part-00000.json` for a shard that a budget cut short: done again, whole, later

Every file is written beside its place and renamed into it, so that a half-written one never bears its name. Behind a
URL it is sent whole: object stores show it when all of it is there, and everywhere the marker is sent last.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.config import SPEED_SETTINGS, Budget, Recipe, RunnerOptions, read_recipe
from katsuo.errors import RunExistsError, StoreError, UsageError
from katsuo.places import held_alone, is_there, place, reading, whole_file, write_json, writing
from katsuo.records import Example, Passage, Reason, Reject, Summary
from katsuo.resume import refuse_occupied, refuse_other

_WORD = pa.dictionary(pa.int32(), pa.string())
_PASSAGE = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("char_start", pa.int64()),
        ("char_end", pa.int64()),
    ]
)
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_EXAMPLE = pa.schema(
    [
        ("id", pa.string()),
        ("task_type", _WORD),
        ("instruction", pa.string()),
        ("response", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("passage_id", pa.string()),
        ("source", pa.string()),
        ("char_start", pa.int64()),
        ("char_end", pa.int64()),
        ("context", pa.string()),
        ("model", _WORD),
        ("engine", _WORD),
        ("sampling", _WORD),
        ("prompt_hash", pa.string()),
        ("seed", pa.int64()),
        ("checks", pa.list_(pa.string())),
    ]
)
_REJECT = pa.schema(
    [
        ("kind", _WORD),
        ("reason", _WORD),
        ("source", pa.string()),
        ("id", pa.string()),
        ("task_type", _WORD),
        ("passage_id", pa.string()),
        ("char_start", pa.int64()),
        ("char_end", pa.int64()),
        ("detail", pa.string()),
        ("text", pa.string()),
    ]
)


class Run:
    """
    One run on disk: read it with `passages()`, `examples()` and `rejects()`, judge it by `summary()`.

    `Run(path)` opens a folder that holds a run and raises `StoreError` for any other.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = place(path)
        with reading(self.path):
            is_run = is_there(self.path / "recipe.yaml")
        if not is_run:
            raise StoreError(f'"{self.path}" is not a run folder', hint="make one with `katsuo generate DOCS -o RUN`")

    @property
    def recipe(self) -> Recipe:
        """The settings that the run was made with."""
        with reading(self.path):
            return read_recipe(self.path / "recipe.yaml")

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, model and revision, hashes, seed and counts."""
        return _read_json(self.path / "manifest.json")

    def summary(self) -> Summary:
        """Count what has ended so far, from the markers."""
        read = self.read_marker("documents")
        kept_by_task: Counter[str] = Counter()
        rejected: Counter[str] = Counter()
        new_tokens, seconds = 0, float(read.pop("seconds", 0.0))
        for marker in self._markers():
            kept_by_task.update(marker["kept_by_task"])
            rejected.update(marker["rejected"])
            new_tokens += marker["new_tokens"]
            seconds += marker["seconds"]
        for name in ("fingerprint", "shards"):
            read.pop(name, None)
        return Summary(
            **read,
            kept=kept_by_task.total(),
            kept_by_task=dict(kept_by_task),
            rejected=dict(rejected),
            new_tokens=new_tokens,
            seconds=round(seconds, 3),
        )

    def passages(self) -> Iterator[Passage]:
        """Read every passage, in document order."""
        for shard in self.shards():
            yield from self.read_passages(shard)

    def examples(self) -> Iterator[Example]:
        """Read every kept example so far, in order."""
        for shard in self.answered_shards():
            yield from self.read_examples(shard)

    def rejects(self) -> Iterator[Reject]:
        """Read every reject: documents and passages first, then the prompts that were answered so far."""
        names = [f"read-{shard:05d}" for shard in self.shards()] + [f"{shard:05d}" for shard in self.answered_shards()]
        for path in (self.path / "rejects" / f"{name}.parquet" for name in names):
            with reading(path):
                is_written = is_there(path)
            for row in _read_rows(path, _REJECT) if is_written else ():
                yield Reject(**{**row, "reason": Reason(row["reason"])})

    def shards(self) -> list[int]:
        """List the shards of passages."""
        return sorted(int(path.stem) for path in self._list("passages", "[0-9]*.parquet"))

    def done_shards(self) -> list[int]:
        """List the shards whose marker is written."""
        return sorted(int(path.stem) for path in self._list("done", "[0-9]*.json"))

    def answered_shards(self) -> list[int]:
        """List the shards that hold outcomes: those that are done, and one that a budget cut short."""
        parts = {int(path.stem.removeprefix(_PART)) for path in self._list("done", f"{_PART}[0-9]*.json")}
        return sorted(parts.union(self.done_shards()))

    def _list(self, folder: str, pattern: str) -> list[Path]:
        with reading(self.path):
            return list((self.path / folder).glob(pattern))

    def _markers(self) -> Iterator[dict[str, Any]]:
        done = set(self.done_shards())
        for shard in self.answered_shards():
            yield self.read_marker(shard if shard in done else f"{_PART}{shard:05d}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for one writer; raise `StoreError` where another process of this machine works on it."""
        with held_alone(self.path) as is_free:
            if not is_free:
                raise StoreError(
                    f'another process works on the run in "{self.path}"',
                    hint="wait until it has ended, or choose another folder with -o",
                )
            yield

    def is_read(self) -> bool:
        """Say whether every document has been read and cut."""
        with reading(self.path):
            return is_there(self.path / "done" / "documents.json")

    def check_read(self) -> None:
        """Raise `StoreError` where less or more can be seen from here than the reading of the documents has written."""
        told, seen = self.read_marker("documents"), len(self.shards())
        if not told or told.get("shards", seen) != seen:
            raise StoreError(
                f'not all that was read into "{self.path}" can be seen here: '
                f"{seen} of {told.get('shards', '?')} shards of passages",
                hint="the folder must lie where every worker and this process see it, under one absolute path; on a "
                "shared disk that shows files late, give the same command again",
            )

    def read_passages(self, shard: int) -> list[Passage]:
        """Read the passages of one shard."""
        return [Passage(**row) for row in _read_rows(self.path / "passages" / f"{shard:05d}.parquet", _PASSAGE)]

    def read_examples(self, shard: int) -> list[Example]:
        """Read the kept examples of one finished shard."""
        rows = _read_rows(self.path / "examples" / f"{shard:05d}.parquet", _EXAMPLE)
        return [
            Example(**{**{k: v for k, v in row.items() if k != "messages"}, "checks": tuple(row["checks"])})
            for row in rows
        ]

    def read_marker(self, name: int | str) -> dict[str, Any]:
        """Read the counts of one finished shard, or of "documents"."""
        return _read_json(self.path / "done" / f"{_stem(name)}.json")

    def clear_passages(self) -> None:
        """Drop the passages of a reading that was cut short; never those of one that was finished."""
        assert not self.is_read(), "passages of a finished reading are kept"
        left = (*self._list("passages", "*"), *self._list("rejects", "read-*"))
        with writing(self.path):
            for path in left:
                path.unlink()

    def write_passages(self, shard: int, passages: Sequence[Passage], rejects: Sequence[Reject]) -> None:
        """Write one shard of passages, and what was left out on the way to them."""
        self._write_table(f"passages/{shard:05d}.parquet", _columns(passages, _PASSAGE), _PASSAGE)
        if rejects:
            self._write_table(f"rejects/read-{shard:05d}.parquet", _columns(rejects, _REJECT), _REJECT)

    def write_documents_done(self, counts: Mapping[str, Any]) -> None:
        """Write the marker that every document has been read."""
        self._write_json("done/documents.json", counts)

    def write_shard_done(
        self, shard: int, examples: Sequence[Example], rejects: Sequence[Reject], counts: Mapping[str, Any]
    ) -> None:
        """Write the outcomes of one shard, then the marker."""
        self._write_outcomes(shard, examples, rejects)
        self._write_json(f"done/{shard:05d}.json", counts)

    def write_shard_part(
        self, shard: int, examples: Sequence[Example], rejects: Sequence[Reject], counts: Mapping[str, Any]
    ) -> None:
        """Write the outcomes that a shard has so far; it counts as not done, and is done again, whole, later."""
        self._write_outcomes(shard, examples, rejects)
        self._write_json(f"done/{_PART}{shard:05d}.json", counts)

    def _write_outcomes(self, shard: int, examples: Sequence[Example], rejects: Sequence[Reject]) -> None:
        # The marker of a part goes first: its counts are not those of the files that follow.
        self._drop(f"done/{_PART}{shard:05d}.json")
        columns = _columns(examples, _EXAMPLE)
        columns["messages"] = [
            [{"role": "user", "content": e.instruction}, {"role": "assistant", "content": e.response}] for e in examples
        ]
        self._write_table(f"examples/{shard:05d}.parquet", columns, _EXAMPLE)
        if rejects:
            self._write_table(f"rejects/{shard:05d}.parquet", _columns(rejects, _REJECT), _REJECT)
        else:
            self._drop(f"rejects/{shard:05d}.parquet")

    def _drop(self, name: str) -> None:
        with writing(self.path):
            if is_there(self.path / name):
                (self.path / name).unlink()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, whole."""
        self._write_json("manifest.json", manifest)

    def _write_table(self, name: str, columns: dict[str, list[Any]], schema: pa.Schema) -> None:
        table = pa.table(columns, schema=schema)
        with whole_file(self.path / name) as partial:
            pq.write_table(table, partial, compression="zstd")

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self.path / name, value)


def create_run(path: Path | str, recipe: Recipe, *, resume: str) -> Run:
    """
    Make a run folder, or take up the one that is there.

    `resume` is "if-possible" (take up an equal run, else start in an empty place), "always" (there must be one) or
    "never" (there must be none). Raise `RunExistsError` or `RunChangedError` otherwise; nothing is ever deleted.
    """
    if resume not in _RESUME:
        raise UsageError(f'resume cannot be "{resume}"', hint=f"choose one of: {', '.join(_RESUME)}")
    path = place(path)
    held = path / "recipe.yaml"
    with reading(path):
        is_held = is_there(held)
    if is_held:
        if resume == "never":
            raise RunExistsError(
                f'"{path}" already holds a run', hint="choose another folder, or leave out `--resume never`"
            )
        run = Run(path)
        before, now = run.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
        refuse_other(path, "run", before, now, ignoring=_MAY_CHANGE)
        return run
    if resume == "always":
        raise StoreError(f'"{path}" holds no run to take up', hint="leave out `--resume always`")
    with reading(path):
        refuse_occupied(path, "run")
    # The recipe first: what is there makes the folder a run, which the same command takes up.
    with whole_file(held) as partial:
        partial.write_text(recipe.to_yaml(), encoding="utf-8")
    with writing(path):
        for folder in ("passages", "examples", "rejects", "done"):
            (path / folder).mkdir(parents=True, exist_ok=True)
    return Run(path)


_RESUME = ("if-possible", "always", "never")
_PART = "part-"
_MAY_CHANGE = (
    *(*SPEED_SETTINGS, "cache", "runner"),
    *(f"budget.{name}" for name in Budget.model_fields),
    *(f"runner_options.{name}" for name in RunnerOptions.model_fields),
)
"""Settings that change how fast or how far a run goes but not what it asks."""


def _stem(name: int | str) -> str:
    return f"{name:05d}" if isinstance(name, int) else name


def _columns(records: Iterable[Any], schema: pa.Schema) -> dict[str, list[Any]]:
    rows = list(records)
    known = {field.name for field in fields(rows[0])} if rows else set()
    return {
        name: [str(value) if isinstance(value := getattr(row, name), Reason) else value for row in rows]
        if name in known
        else []
        for name in schema.names
    }


def _read_rows(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    with reading(path):
        held = pa.BufferReader(path.read_bytes())
    try:
        rows: list[dict[str, Any]] = pq.read_table(held, schema=schema).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f'cannot read "{path}": {error}', hint="the file is damaged: make the run again") from error
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    with reading(path):
        try:
            held = path.read_bytes()
        except FileNotFoundError:
            return {}
    try:
        loaded: dict[str, Any] = json.loads(held)
    except ValueError as error:
        raise StoreError(f'cannot read "{path}": {error}', hint="the file is damaged: make the run again") from error
    return loaded
