"""Write the pairs of one shard: a range of rows of one source → Parquet, and a marker when it is complete."""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from katsuo.ctga.remix import LostPair, Pair, Recipe, Remixer
from katsuo.ctga.rows import Row, Rows
from katsuo.errors import StoreError
from katsuo.templates.sandbox.draws import Draws
from katsuo.templates.sandbox.environment import LONGEST
from katsuo.templates.sandbox.pool import NOWHERE, Beat, Place
from katsuo.templates.sandbox.watch import Watch

_TEXT = pa.string()
PAIRS = pa.schema([(name, pa.int64() if name == "row" else _TEXT) for name in Pair._fields])
LOST = pa.schema([(name, pa.int64() if name == "row" else _TEXT) for name in LostPair._fields])
_WORDS = ["task_type", "dataset", "config", "template", "reason"]
_PAIRS_PER_GROUP = 8192
_HARD_LIMIT_S = 30.0
_CHARACTERS_PER_GROUP = 32_000_000
_SPARE_BYTES = 2 << 30  # Arrow's allocator may reserve one GiB of addresses at its first use


@dataclass(frozen=True)
class Shard:
    """One job: rows `start` to `stop` of a source; `drawn` are the rows taken where the source has too many."""

    name: str
    recipe: Recipe
    rows: Rows
    start: int
    stop: int
    out: Path
    folder: str = "data"
    drawn: tuple[int, ...] | None = None
    time_limit_s: float = 2.0
    output_limit: int = LONGEST

    @property
    def size(self) -> int:
        """Give about how many templates will be rendered."""
        rows = self.stop - self.start if self.drawn is None else len(self.drawn)
        return rows * (self.recipe.per_row or len(self.recipe.templates))

    @property
    def marker(self) -> Path:
        """Give the file whose being there says that the shard is complete."""
        return self.out / "done" / f"{self.name}.json"


def plan_shards(recipe: Recipe, rows: Rows, *, count: int, limit: int, size: int, **rest: Any) -> list[Shard]:
    """Cut `count` rows of one source into shards; of more than `limit` rows, a drawing by hash is taken."""
    drawn = draw_rows(recipe, count, limit)
    shards = []
    for number, start in enumerate(range(0, count, size)):
        stop = min(start + size, count)
        mine = None if drawn is None else tuple(row for row in drawn if start <= row < stop)
        if mine != ():
            name = f"{recipe.source.folder}-{number:05d}"
            shards.append(Shard(name, recipe, rows, start, stop, drawn=mine, **rest))
    return shards


def draw_rows(recipe: Recipe, count: int, limit: int) -> list[int] | None:
    """Give the `limit` rows with the smallest hashes, in order, or None when all are taken."""
    if count <= limit:
        return None
    number = Draws(recipe.seed, recipe.source.name).number
    return sorted(heapq.nsmallest(limit, range(count), key=lambda row: number("row", row)))


def write_shard(shard: Shard, skip: frozenset[Place], beat: Beat) -> dict[str, Any]:
    """Do one shard and give what its marker says; memory holds one batch of rows and one group of pairs."""
    began, began_cpu = time.perf_counter(), time.process_time()
    remixer = _remixer(shard.recipe, tuple(shard.rows.columns()), shard.time_limit_s, shard.output_limit)
    _limit_memory()
    kept: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    with (
        Table(shard.out / shard.folder / f"{shard.name}.parquet", PAIRS) as pairs,
        Table(shard.out / "rejects" / f"{shard.name}.parquet", LOST) as losses,
    ):
        for item in _remixed(shard, remixer, skip, beat):
            if isinstance(item, Pair):
                kept[item.task_type, item.template] += 1
                pairs.add(item)
            else:
                lost[item.reason, item.template] += 1
                losses.add(item)
    marker = {
        "source": shard.recipe.source.name,
        "pairs": [[*key, count] for key, count in sorted(kept.items())],
        "lost": [[*key, count] for key, count in sorted(lost.items())],
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - began_cpu, 3),
    }
    write_atomically(shard.marker, json.dumps(marker, ensure_ascii=False))
    return marker


def _remixed(shard: Shard, remixer: Remixer, skip: frozenset[Place], beat: Beat) -> Iterator[Pair | LostPair]:
    for number, row in _wanted(shard, remixer.columns):
        yield from remixer.remix(number, row, skip=skip, beat=beat)
    beat[0], beat[1] = NOWHERE


def _wanted(shard: Shard, columns: list[str]) -> Iterable[Row]:
    rows = shard.rows.read(shard.start, shard.stop, columns)
    if shard.drawn is None:
        return rows
    drawn = frozenset(shard.drawn)
    return ((number, row) for number, row in rows if number in drawn)


@lru_cache(maxsize=1)
def _remixer(recipe: Recipe, columns: tuple[str, ...], time_limit_s: float, longest: int) -> Remixer:
    """Compile the templates of a source once per worker; the shards of a source follow each other."""
    return Remixer(recipe, list(columns), _watch(time_limit_s), longest=longest)


@lru_cache(maxsize=1)
def _watch(time_limit_s: float) -> Watch:
    """Keep one watch per worker, for as long as it lives."""
    return Watch(time_limit_s, hard_limit_s=_HARD_LIMIT_S)


def _limit_memory() -> None:
    """Let a template that fills the memory run into an error of its own, where the system can limit a process."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return  # not Linux: the limits on time and output remain
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = pages * os.sysconf("SC_PAGE_SIZE") + _SPARE_BYTES
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Table:
    """A Parquet file that grows by groups, and gets its name only when it is complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._part = path.with_suffix(".part")
        self._items: list[tuple[Any, ...]] = []
        self._characters = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            words = [name for name in _WORDS if name in schema.names]
            self._writer = pq.ParquetWriter(
                self._part, schema, compression="zstd", compression_level=1, use_dictionary=words
            )
        except OSError as error:
            raise _not_written(path, error) from error

    def __enter__(self) -> Table:
        return self

    def add(self, item: tuple[Any, ...]) -> None:
        """Add one row."""
        self._items.append(item)
        self._characters += len(item[0]) + len(item[1])  # input and output, the longest columns
        if len(self._items) == _PAIRS_PER_GROUP or self._characters > _CHARACTERS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*self._items, strict=True), self._schema, strict=True)
        ]
        self._items, self._characters = [], 0
        try:
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        except OSError as error:
            raise _not_written(self._path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writer.close()
            return
        if self._items:
            self._flush()
        try:
            self._writer.close()
            self._part.replace(self._path)
        except OSError as failure:
            raise _not_written(self._path, failure) from failure


def _not_written(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f'cannot write "{path}": {error}', hint="check the space and the rights; the build can be resumed"
    )


def write_atomically(path: Path, text: str) -> None:
    """Write a small file under another name first, so that it is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
