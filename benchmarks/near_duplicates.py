"""
Which MinHash library: katsuo's `NearDuplicates` (rensa and SQLite) beside datasketch's MinHashLSH, in one run.

Both see the same texts, shingles and number of permutations; memory is what the process gained meanwhile.

    pip install datasketch && python benchmarks/near_duplicates.py
"""

from __future__ import annotations

import argparse
import os
import random
import re
import time
from collections.abc import Callable

import psutil
from datasketch import MinHash, MinHashLSH

from katsuo.pipeline.similar import NUM_PERM, SHINGLE_WORDS, NearDuplicates

WORDS = [f"word{number}" for number in range(20_000)]


def texts(count: int, words: int) -> list[str]:
    """Give texts of which every tenth is another one with one word changed."""
    draw, made = random.Random(5), []
    for number in range(count):
        if number % 10 == 9:
            changed = made[-5].split()
            changed[draw.randrange(words)] = "changed"
            made.append(" ".join(changed))
        else:
            made.append(" ".join(draw.choices(WORDS, k=words)))
    return made


def with_katsuo() -> Callable[[str], bool]:
    """Give katsuo's own."""
    return NearDuplicates(0.8).is_duplicate


def with_datasketch() -> Callable[[str], bool]:
    """Give the same rule over datasketch."""
    index = MinHashLSH(threshold=0.8, num_perm=NUM_PERM)
    count = 0

    def is_duplicate(text: str) -> bool:
        nonlocal count
        words = re.findall(r"\w+", text.casefold())
        shingles = [" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))]
        minhash = MinHash(num_perm=NUM_PERM)
        minhash.update_batch([shingle.encode() for shingle in shingles])
        if index.query(minhash):
            return True
        index.insert(str(count), minhash)
        count += 1
        return False

    return is_duplicate


def main() -> None:
    """Print texts per second, found duplicates and memory of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=60)
    arguments = parser.parse_args()
    shown = texts(arguments.count, arguments.words)
    process = psutil.Process(os.getpid())
    print("| | texts/s | found of 10 % | memory gained, MB |\n|---|---|---|---|")
    speeds = []
    for name, make in (("katsuo (rensa, SQLite)", with_katsuo), ("datasketch MinHashLSH", with_datasketch)):
        is_duplicate, before = make(), process.memory_info().rss
        started = time.perf_counter()
        found = sum(is_duplicate(text) for text in shown)
        speeds.append(len(shown) / (time.perf_counter() - started))
        gained = (process.memory_info().rss - before) / 2**20
        print(f"| {name} | {speeds[-1]:,.0f} | {100 * found / len(shown):.2f} % | {gained:.0f} |")
    print(f"\nratio {speeds[0] / speeds[1]:.1f}")


if __name__ == "__main__":
    main()
