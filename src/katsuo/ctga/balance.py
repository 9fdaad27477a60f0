"""Cut what there is too much of: which of the drawn pairs stay is decided by hash, so it is the same in every run."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from katsuo.ctga.settings import BuildSettings
from katsuo.ctga.shards import LOST, PAIRS, Table
from katsuo.records import Reason
from katsuo.templates.sandbox.draws import Draws

Key = tuple[str, str]
"""(source, task type)"""
_IDENTITY = ["dataset", "config", "template", "row", "task_type"]


@dataclass(frozen=True)
class Quotas:
    """How many pairs may stay: of each group to be balanced its mean, of each task type its cap."""

    balance: str
    caps: Mapping[str, int]

    @classmethod
    def of(cls, settings: BuildSettings) -> Quotas | None:
        """Give the quotas of a build, or None when everything stays."""
        if settings.balance == "none" and not settings.caps:
            return None
        return cls(settings.balance, settings.caps)

    def rounds(self) -> Iterator[tuple[int, Mapping[str, int]]]:
        """Yield (place of the group in `Key`, caps) for one cut after the other; no caps means the mean."""
        if self.balance != "none":
            yield (0 if self.balance == "sources" else 1), {}
        if self.caps:
            yield 1, self.caps

    @staticmethod
    def cap(group: str, counts: Mapping[str, int], caps: Mapping[str, int]) -> int:
        """Give how many of `group` may stay."""
        if not caps:
            return -(-sum(counts.values()) // len(counts))
        return caps.get(group, caps.get("*", counts[group]))


def apply_quotas(
    out: Path, shards: Sequence[str], markers: Sequence[Mapping[str, Any]], quotas: Quotas, *, seed: int
) -> list[dict[str, Any]]:
    """Write `data` from `drawn` with only the pairs that stay, the others as rejects; give the markers adjusted."""
    bounds: list[tuple[int, dict[str, int]]] = []
    for place, caps in quotas.rounds():
        bounds.append((place, _bounds(out, shards, place, caps, bounds, seed)))
    part = out / "data.part"
    if part.exists():
        shutil.rmtree(part)
    adjusted = [_cut(out, shard, marker, bounds, seed) for shard, marker in zip(shards, markers, strict=True)]
    if (out / "data").exists():
        shutil.rmtree(out / "data")
    part.rename(out / "data")
    return adjusted


def _bounds(
    out: Path,
    shards: Sequence[str],
    place: int,
    caps: Mapping[str, int],
    before: list[tuple[int, dict[str, int]]],
    seed: int,
) -> dict[str, int]:
    """Give for each group over its cap the largest hash that stays."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(key[place] for _, key, number in _drawn(out, shard, seed) if _stays(key, number, before))
    limits = {group: Quotas.cap(group, counts, caps) for group, count in counts.items()}
    over = {group for group, count in counts.items() if count > limits[group]}
    smallest: dict[str, list[int]] = defaultdict(list)
    for shard in shards:
        for _, key, number in _drawn(out, shard, seed):
            group = key[place]
            if group in over and _stays(key, number, before):
                _push(smallest[group], -number, limits[group])
    return {group: -heap[0] if heap else -1 for group, heap in ((group, smallest[group]) for group in over)}


def _push(heap: list[int], item: int, size: int) -> None:
    if len(heap) < size:
        heapq.heappush(heap, item)
    elif heap:
        heapq.heappushpop(heap, item)


def _drawn(out: Path, shard: str, seed: int) -> Iterator[tuple[int, Key, int]]:
    """Yield (place in the shard, key, hash) of each pair drawn."""
    place = 0
    draws: dict[str, Draws] = {}
    for batch in pq.ParquetFile(out / "drawn" / f"{shard}.parquet").iter_batches(columns=_IDENTITY):
        for row in batch.to_pylist():
            source = f"{row['dataset']}/{row['config']}" if row["config"] else row["dataset"]
            draw = draws.setdefault(source, Draws(seed, source))
            yield place, (source, row["task_type"]), draw.number("keep", row["template"], row["row"])
            place += 1


def _stays(key: Key, number: int, bounds: Sequence[tuple[int, Mapping[str, int]]]) -> bool:
    return all(number <= bound.get(key[place], number) for place, bound in bounds)


def _cut(
    out: Path, shard: str, marker: Mapping[str, Any], bounds: Sequence[tuple[int, Mapping[str, int]]], seed: int
) -> dict[str, Any]:
    stays = [_stays(key, number, bounds) for _, key, number in _drawn(out, shard, seed)]
    left: Counter[tuple[str, str]] = Counter()
    over: Counter[str] = Counter()
    first = 0
    with (
        Table(out / "data.part" / f"{shard}.parquet", PAIRS) as pairs,
        Table(out / "rejects" / f"{shard}.over.parquet", LOST) as losses,
    ):
        for batch in pq.ParquetFile(out / "drawn" / f"{shard}.parquet").iter_batches():
            mask = stays[first : first + batch.num_rows]
            first += batch.num_rows
            for row, stay in zip(batch.to_pylist(), mask, strict=True):
                if stay:
                    left[row["task_type"], row["template"]] += 1
                    pairs.add(tuple(row[name] for name in PAIRS.names))
                else:
                    over[row["template"]] += 1
                    losses.add((Reason.OVER_CAP.value, *(row[name] for name in LOST.names[1:-1]), ""))
    return {
        **marker,
        "pairs": [[*key, count] for key, count in sorted(left.items())],
        "lost": [*marker["lost"], *([Reason.OVER_CAP.value, name, count] for name, count in sorted(over.items()))],
    }
