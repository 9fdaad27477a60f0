"""
Which MinHash library: katsuo's `NearDuplicates` (rensa and a hashed file) beside datasketch's MinHashLSH, in one run.

Both see the same texts, shingles and number of permutations, in turns; speeds and the ratio are medians of the rounds,
memory is what the process gained in the first.

    pip install datasketch && python benchmarks/near_duplicates.py
"""

from __future__ import annotations

import argparse
import os
import random
import re
import time
from collections.abc import Callable
from statistics import median

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
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    shown = texts(arguments.count, arguments.words)
    rounds = [[measure(make, shown) for make in WAYS.values()] for _ in range(arguments.rounds)]
    print("| | texts/s | found of 10 % | memory gained, MB |\n|---|---|---|---|")
    for place, name in enumerate(WAYS):
        _, share, gained = rounds[0][place]
        print(f"| {name} | {median(one[place][0] for one in rounds):,.0f} | {share:.2f} % | {gained:.0f} |")
    ratios = [ours[0] / theirs[0] for ours, theirs in rounds]
    print(f"\nratio {median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


def measure(make: Callable[[], Callable[[str], bool]], shown: list[str]) -> tuple[float, float, float]:
    """Give texts per second, per cent found and megabytes gained."""
    process = psutil.Process(os.getpid())
    is_duplicate, before = make(), process.memory_info().rss
    started = time.perf_counter()
    found = sum(is_duplicate(text) for text in shown)
    speed = len(shown) / (time.perf_counter() - started)
    return speed, 100 * found / len(shown), (process.memory_info().rss - before) / 2**20


WAYS = {"katsuo (rensa, a hashed file)": with_katsuo, "datasketch MinHashLSH": with_datasketch}

if __name__ == "__main__":
    main()
