"""
What does the cache of answers cost per answer, beside diskcache where that is installed?

A shard's 128 prompts are looked up in vain, its answers kept, and then found. Both keep what they are told before they
return. Rows of one round alternate, so that a busy machine is busy for both.

    python benchmarks/cache.py            # 1,000 shards
    python benchmarks/cache.py --quick    # 100 shards
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from katsuo.cache import AnswerCache
from katsuo.records import Completion

SHARD = 128
Answers = dict[bytes, Completion]


@dataclass
class Way:
    """One way to keep answers, and the seconds that it took."""

    name: str
    get: Callable[[list[bytes]], list[Completion | None]]
    put: Callable[[Answers], None]
    seconds: dict[str, float] = field(default_factory=lambda: {"missed": 0.0, "kept": 0.0, "found": 0.0})

    def time(self, answers: Answers) -> None:
        """Miss, keep and find one shard's answers."""
        keys, start = list(answers), time.perf_counter()
        missed = self.get(keys)
        looked = time.perf_counter()
        self.put(answers)
        kept = time.perf_counter()
        found = self.get(keys)
        end = time.perf_counter()
        assert missed == [None] * len(keys)
        assert found == list(answers.values())
        for name, seconds in (("missed", looked - start), ("kept", kept - looked), ("found", end - kept)):
            self.seconds[name] += seconds


def diskcache_way(folder: Path) -> Way | None:
    """Give the rival, one transaction per shard, its values as plain tuples."""
    try:
        from diskcache import Cache  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        return None
    cache = Cache(str(folder))

    def get(keys: list[bytes]) -> list[Completion | None]:
        return [Completion(*value) if (value := cache.get(key)) else None for key in keys]

    def put(answers: Answers) -> None:
        with cache.transact():
            for key, answer in answers.items():
                cache.set(key, (answer.text, answer.finish, answer.new_tokens))

    return Way("diskcache", get, put)


def main() -> None:
    """Print one row per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    shards = 100 if parser.parse_args().quick else 1000
    with tempfile.TemporaryDirectory() as scratch:
        cache = AnswerCache(Path(scratch) / "katsuo")
        ways = [Way("katsuo", cache.get, cache.put), diskcache_way(Path(scratch) / "rival")]
        present = [way for way in ways if way]
        for shard in range(shards):
            keys = [blake2b(f"{shard} {place}".encode(), digest_size=16).digest() for place in range(SHARD)]
            answers = {key: Completion(f"{key.hex()} " * 6, "stop", 40) for key in keys}
            for way in present[:: -1 if shard % 2 else 1]:
                way.time(answers)
        cache.close()
        size = sum(path.stat().st_size for path in (Path(scratch) / "katsuo").iterdir()) / shards / SHARD
    print(f"{os.cpu_count()} cores; {shards:,} shards of {SHARD} answers of 200 characters; {size:.0f} bytes each\n")
    print("| | missed, µs | kept, µs | found, µs |\n|---|---|---|---|")
    for way in present:
        cells = " | ".join(f"{seconds / shards / SHARD * 1e6:.1f}" for seconds in way.seconds.values())
        print(f"| {way.name} | {cells} |")


if __name__ == "__main__":
    main()
