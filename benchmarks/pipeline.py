"""
How fast is katsuo without a model: from files to a run folder on the `fake` engine, and in how much memory?

Each size runs `katsuo generate` in a process of its own; resident memory is the process's peak as the system counts it.

    python benchmarks/pipeline.py            # 10,000 and 200,000 passages
    python benchmarks/pipeline.py --quick    # 2,000 and 10,000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    f"{a}{b}{c}"
    for a in ("ba", "ke", "lo", "mi", "nu", "ra")
    for b in ("do", "fe", "gi", "ja")
    for c in ("n", "r", "st", "l", "m")
]
WORDS_PER_PASSAGE = 60


def write_documents(folder: Path, passages: int) -> None:
    """Write JSONL files of 10,000 different texts each."""
    draw = random.Random(7)
    for start in range(0, passages, 10_000):
        with (folder / f"part-{start:08d}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(start, min(start + 10_000, passages)):
                text = " ".join(draw.choices(WORDS, k=WORDS_PER_PASSAGE)) + f" number {number}."
                file.write(json.dumps({"text": text}) + "\n")


def measure(documents: Path, output: Path, tasks: list[str]) -> dict[str, float]:
    """Run katsuo once and give its examples per second and its peak resident memory in MB."""
    command = [
        sys.executable,
        "-m",
        "katsuo",
        "generate",
        str(documents),
        "--engine",
        "fake",
        "-o",
        str(output),
        "--json",
        "-q",
    ]
    command += [flag for task in tasks for flag in ("--task", task)] + ["--allow-partial", "--set", "shard_size=1024"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate()
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    summary = json.loads(out)
    return {
        "kept": summary["kept"],
        "prompts": summary["prompts"],
        "seconds": seconds,
        "per_second": summary["kept"] / seconds,
        "peak_mb": peak,
    }


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", type=int, help="measure this size alone and print JSON (used by the script itself)")
    parser.add_argument("--tasks", nargs="+", default=["ynqa"])
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as scratch:
            documents = Path(scratch) / "documents"
            documents.mkdir()
            write_documents(documents, arguments.one)
            print(json.dumps(measure(documents, Path(scratch) / "run", arguments.tasks)))
        return
    print(f"{os.cpu_count()} cores; task types: {', '.join(arguments.tasks)}\n")
    print("| passages | kept examples | seconds | examples/s | peak memory, MB |")
    print("|---|---|---|---|---|")
    for size in (2_000, 10_000) if arguments.quick else (10_000, 200_000):
        command = [sys.executable, __file__, "--one", str(size), "--tasks", *arguments.tasks]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"| {size:,} | {row['kept']:,} | {row['seconds']:.1f} | {row['per_second']:,.0f} | {row['peak_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
