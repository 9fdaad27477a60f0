"""Where examples are read: folders of training pairs, runs, and general instructions to mix in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.errors import SourceError
from katsuo.records import Example, Passage, Reason
from katsuo.store import Run
from katsuo.tasks import TaskType, known_tasks
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import parse_pair, read_bonito
from katsuo.tasks.shapes import Labels, Options
from katsuo.tasks.task_type import Draft
from katsuo.tasks.wordings import label_place, reword
from katsuo.train.data import Place, hash_of
from katsuo.train.encode import Pair, Styler

_ROWS_READ_TOGETHER = 2048
_PROMPT_COLUMNS = ("prompt", "instruction", "input")
_ABOUT_COLUMNS = ("input", "context")
_RESPONSE_COLUMNS = ("completion", "response", "output")


@dataclass
class PairFolder:
    """
    A folder of Parquet files with the columns `input` and `output`, such as `katsuo ctga build` writes.

    With `is_checked` a pair that its task type's own checks refuse is marked as faulty; other types are not judged.
    """

    folder: Path
    is_checked: bool = False
    files: list[Path] = field(init=False)

    def __post_init__(self) -> None:
        inner = self.folder / "data"
        self.files = sorted((inner if inner.is_dir() else self.folder).glob("*.parquet"))
        if not self.files:
            raise SourceError(
                f'"{self.folder}" holds no Parquet files', hint="make training pairs with `katsuo ctga build -o FOLDER`"
            )

    def manifest(self) -> dict[str, Any]:
        """Give what the build wrote about itself; empty for a folder of other making."""
        path = self.folder / "manifest.json"
        try:
            loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise SourceError(f'cannot read "{path}": {error}', hint="build the pairs again") from error
        return loaded

    def card_hash(self) -> str:
        """Give a hash of the data card, of the manifest and of the files' names and sizes."""
        digest = blake2b(digest_size=12)
        for name in ("README.md", "manifest.json"):
            if (path := self.folder / name).is_file():
                digest.update(path.read_bytes())
        for path in self.files:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def sources(self) -> list[dict[str, Any]]:
        """List the sources with their licences and terms, as the build noted them."""
        return list(self.manifest().get("sources", []))

    def places(self, seed: int) -> Iterator[Place]:
        """Give the place of every pair."""
        for shard, path in enumerate(self.files):
            for row, values in _rows(path, ("input", "output"), ("context", "task_type", "dataset", "config")):
                source = "/".join(part for part in (values["dataset"], values["config"]) if part)
                passage = values["context"] or values["input"].partition("<|context|>")[2] or values["input"]
                order = hash_of(f"{seed} {path.stem} {row}")
                yield Place(shard, row, values["task_type"] or "", source, hash_of(passage), order)

    def pairs(self, places: Sequence[Place]) -> Iterator[Pair]:
        """Read the pairs at `places`, in that order."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for place in places:
            wanted[place.shard].add(place.row)
        tasks = known_tasks()
        found: dict[tuple[int, int], Pair] = {}
        for shard, rows in wanted.items():
            for row, values in _rows(self.files[shard], ("input", "output"), ()):
                if row in rows:
                    fault = _fault(tasks, values["input"], values["output"]) if self.is_checked else None
                    found[shard, row] = Pair(values["input"], values["output"], fault)
        for place in places:
            yield found[place.shard, place.row]


def _fault(tasks: Mapping[str, TaskType], prompt: str, completion: str) -> Reason | None:
    """Judge a pair as `katsuo generate` judges what a model wrote."""
    name, passage = read_bonito(prompt)
    if name not in tasks:
        return None
    pair = parse_pair(completion)
    if isinstance(pair, Reason):
        return pair
    return first_failure(Draft(tasks[name], passage, pair.instruction, pair.response))


@dataclass
class RunExamples:
    """The examples of a run, each written as `style` asks for it; with `is_reworded` in other wordings where it can."""

    run: Run
    style: Styler
    is_reworded: bool = False
    reworded: set[str] = field(default_factory=set)
    """Which of those that were read came in another wording, by their ids."""
    _tasks: Mapping[str, TaskType] = field(init=False)

    def __post_init__(self) -> None:
        self._tasks = known_tasks()

    def places(self, seed: int) -> Iterator[Place]:
        """Give the place of every example."""
        for shard in self.run.answered_shards():
            for row, example in enumerate(self.run.read_examples(shard)):
                order, passage = hash_of(f"{seed} {example.id}"), hash_of(example.context)
                told = self._label(example), self._words(example)
                yield Place(shard, row, example.task_type, "", passage, order, *told)

    def pairs(self, places: Sequence[Place]) -> Iterator[Pair]:
        """Read the examples at `places`, in that order."""
        shards = {place.shard: self.run.read_examples(place.shard) for place in places}
        for place in places:
            yield self.style(*self._asked(shards[place.shard][place.row]))

    def _label(self, example: Example) -> str:
        task = self._tasks.get(example.task_type)
        place = label_place(task.answer, example.response) if task else -1
        return str(place) if place >= 0 else ""

    def _words(self, example: Example) -> int | None:
        task = self._tasks.get(example.task_type)
        return None if task and isinstance(task.answer, Labels | Options) else len(example.response.split())

    def _asked(self, example: Example) -> tuple[str, str]:
        task = self._tasks.get(example.task_type) if self.is_reworded else None
        key = hash_of(f"wording {example.id}")
        asked = task and reword(task, example.instruction, example.response, example.context, key)
        if not asked:
            return example.instruction, example.response
        self.reworded.add(example.id)
        return asked


def passage_places(run: Run, seed: int) -> Iterator[Place]:
    """Give the place of every passage that was asked about, or of every one where none was yet."""
    answered, done = run.answered_shards(), set(run.done_shards())
    for shard in answered or run.shards():
        is_cut_short = bool(answered) and shard not in done
        for row, passage in enumerate(_asked_about(run, shard) if is_cut_short else run.read_passages(shard)):
            yield Place(shard, row, "", "", hash_of(passage.text), hash_of(f"{seed} {passage.id}"))


def _asked_about(run: Run, shard: int) -> list[Passage]:
    """Give the passages of a shard that was cut short, up to the last one of which something is known."""
    passages = run.read_passages(shard)
    ended = {example.passage_id for example in run.read_examples(shard)}
    ended |= {reject.passage_id for reject in run.rejects() if reject.kind == "prompt"}
    return passages[: max((place for place, one in enumerate(passages, 1) if one.id in ended), default=0)]


def passage_texts(run: Run, places: Sequence[Place]) -> Iterator[str]:
    """Read the passages at `places`, in that order."""
    shards = {place.shard: run.read_passages(place.shard) for place in places}
    for place in places:
        yield shards[place.shard][place.row].text


def run_hash(run: Run, folder: str) -> str:
    """Give a hash of the names and sizes of a run's files in `folder`, `examples` or `passages`."""
    digest = blake2b(digest_size=12)
    for path in sorted((run.path / folder).glob("*.parquet")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def read_instructions(place: Path) -> Iterator[tuple[str, str]]:
    """
    Read general instructions and their responses from Parquet or JSON-lines files.

    A row holds `messages` (its first user turn and the answer to it), or a prompt (`prompt`, `instruction` or `input`)
    and a response (`completion`, `response` or `output`).
    """
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    files = [path for path in files if path.suffix in (".parquet", ".jsonl")]
    if not files or not files[0].is_file():
        raise SourceError(f'"{place}" holds no Parquet or JSON-lines file', hint="give --replay such a file or folder")
    for path in files:
        for row, values in _table(path):
            told = _instruction(values)
            if told is None:
                raise SourceError(
                    f'row {row} of "{path}" holds no prompt with a response',
                    hint="name the columns prompt and completion, or give messages",
                )
            yield told


def _instruction(values: dict[str, Any]) -> tuple[str, str] | None:
    if isinstance(values.get("messages"), list):
        turns = [(turn.get("role"), turn.get("content")) for turn in values["messages"]]
        for (role, asked), (next_role, answered) in pairwise(turns):
            if (role, next_role) == ("user", "assistant") and asked and answered:
                return asked, answered
        return None
    column = next((name for name in _PROMPT_COLUMNS if isinstance(values.get(name), str)), "")
    prompt = values.get(column)
    if column == "instruction":
        # Alpaca and Dolly keep what the instruction is about in a column of its own; katsuo's own rows hold it.
        found = (values[name].strip() for name in _ABOUT_COLUMNS if isinstance(values.get(name), str))
        about = next(filter(None, found), "")
        prompt = prompt if about in values[column] else f"{prompt}\n\n{about}"
    response = next((values[name] for name in _RESPONSE_COLUMNS if isinstance(values.get(name), str)), None)
    return (prompt, response) if prompt and response else None


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from _rows(path, (), None)
        return
    try:
        with path.open(encoding="utf-8") as file:
            for row, line in enumerate(file):
                if line.strip():
                    yield row, json.loads(line)
    except (OSError, ValueError) as error:
        raise SourceError(f'cannot read "{path}": {error}', hint="give UTF-8 JSON lines") from error


def _rows(path: Path, needed: Sequence[str], wanted: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows with their numbers; columns of `wanted` that are not there are None, and None wants all there are."""
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if missing := [name for name in needed if name not in names]:
            raise SourceError(f'"{path}" has no column "{missing[0]}"', hint="build the pairs with `katsuo ctga build`")
        wanted = sorted(names) if wanted is None else wanted
        columns = [name for name in (*needed, *wanted) if name in names]
        absent = {name: None for name in wanted if name not in names}
        row = 0
        for batch in file.iter_batches(_ROWS_READ_TOGETHER, columns=columns):
            for values in batch.to_pylist():
                yield row, {**absent, **values}
                row += 1
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f'cannot read "{path}": {error}', hint="the file is damaged: make it again") from error
