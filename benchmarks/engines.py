"""
Ask every engine that is installed the same prompts, and its own library the same without katsuo, in one run.

    python benchmarks/engines.py --prompts 200 --rounds 3
    python benchmarks/engines.py --prompts 8 --rounds 1 --engines hf llamacpp     a try

Each side (katsuo's, and the bare library's) has a process of its own. Both stay open, and are asked in turn with the
same prompts, new ones in every round. The ratio is that of new tokens per second, without grammars, since the bare
library writes without; kept examples are those of katsuo as it is, grammars and checks included.

`openai` is asked behind llama.cpp's own server, which each side starts. vLLM is run by the Python that
KATSUO_VLLM_PYTHON names, where it is not in this environment. `llamacpp` and `openai` need the generator as GGUF:
`katsuo pull --gguf katsuo-135m`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from katsuo.engines import EngineSettings
from katsuo.engines.vllm_process.command import make_plan
from katsuo.errors import KatsuoError
from katsuo.tasks import find_task
from katsuo.tasks.codec import find_codec

HERE = Path(__file__).parent
ENGINES = ("hf", "llamacpp", "openai", "vllm")
SMALLEST, LARGEST = 400, 1400
"""Characters of a passage; lengths differ, as those of real passages do."""
WARM_UP = 4
BAR = 0.95


def main() -> None:
    """Measure the engines one after the other and print their table."""
    options = read_options()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, {options}\n")
    texts = read_texts(options.documents)
    table = Table(
        *("engine", "new tokens/s", "bare, new tokens/s", f"ratio (bar {BAR})", "lowest and highest"),
        *("kept examples/s", "kept", "start-up, s", "bare", "peak memory, MB", "bare"),
    )
    for engine in options.engines:
        try:
            measured = measure(engine, texts, options)
        except NotHereError as absent:
            table.add_row(engine, f"not measured: {absent}", *[""] * 9)
        else:
            table.add_row(engine, *measured)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--documents", type=Path, default=HERE.parent / "docs", help="a folder of .md and .txt")
    parser.add_argument("--model", default="katsuo-135m")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--tasks", nargs="+", default=["exqa", "ynqa", "nli"])
    parser.add_argument("--batch-size", type=int, default=32, help="rows together, in engines that are told")
    parser.add_argument(
        "--vllm", type=json.loads, default={}, help='further settings of both sides, such as {"max_num_seqs": 32}'
    )
    parser.add_argument(
        "--llama-defaults",
        action="store_true",
        help="leave the bare llama.cpp its flash attention and 16-bit keys and values, at the cost of same-seed rows",
    )
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"], help="hf and vllm")
    return parser.parse_args()


class NotHereError(Exception):
    """An engine is not installed, or its model is not there."""


@dataclass
class Side:
    """One process that is asked, its start-up and the most memory that it and its own processes held."""

    process: subprocess.Popen[str]
    started: float
    startup_s: float = 0.0
    peak_bytes: int = 0
    is_watched: bool = field(default=True)

    def wait_until_ready(self) -> None:
        """Take the first line, and how long it took to come."""
        self.receive()
        self.startup_s = time.monotonic() - self.started

    def ask(self, **what: Any) -> dict[str, Any]:
        """Send one question and give the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.receive()

    def receive(self) -> dict[str, Any]:
        """Read one line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise NotHereError(f"its process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            raise NotHereError(answer["absent"])
        return answer

    def watch(self) -> None:
        """Add up the memory of the process and of all that it started, again and again."""
        while self.is_watched:
            began = time.monotonic()
            self.peak_bytes = max(self.peak_bytes, held_by(self.process.pid))
            time.sleep(max(0.5, 50 * (time.monotonic() - began)))  # so that looking costs 2 % of a core at most

    def close(self) -> None:
        """End the process."""
        self.is_watched = False
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def held_by(pid: int) -> int:
    """Give the memory of a process and its children; what they share is counted once, where the system tells."""
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss)
        except psutil.Error:
            continue  # it has just ended
    return total


def start(engine: str, side: str, options: argparse.Namespace) -> Side:
    """Start one side of one engine."""
    told = {**vars(options), "engine": engine, "side": side, "documents": ""}
    python, script = sys.executable, "engine_sides.py"
    if (engine, side) == ("vllm", "bare"):
        python, script = os.environ.get("KATSUO_VLLM_PYTHON", sys.executable), "vllm_bare.py"
        told |= lies_at(options.model)
    command = [python, str(HERE / script), json.dumps(told)]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    opened = Side(process, begun)
    threading.Thread(target=opened.watch, daemon=True).start()
    return opened


def lies_at(model: str) -> dict[str, Any]:
    """Say where a model's weights lie, and its adapter, for a Python that has no katsuo."""
    try:
        plan = make_plan(EngineSettings(model))
    except KatsuoError as error:
        raise NotHereError(error.message) from error
    rank = "--max-lora-rank"
    room = int(plan.arguments[plan.arguments.index(rank) + 1]) if plan.adapter else 0
    return {"base": str(plan.base), "adapter_folder": plan.adapter and str(plan.adapter), "room": room}


def measure(engine: str, texts: Sequence[str], options: argparse.Namespace) -> list[object]:
    """Open both sides of an engine and ask them in turn; give the cells of its row."""
    sides: dict[str, Side] = {}
    try:
        for name in ("katsuo", "bare"):
            sides[name] = start(engine, name, options)
            sides[name].wait_until_ready()
        for name, side in sides.items():
            side.ask(kind=name, **make_batch(texts, WARM_UP, 0, options))
        speeds: dict[str, list[float]] = {"katsuo": [], "bare": []}
        kept: list[dict[str, Any]] = []
        for number in range(1, options.rounds + 1):
            batch = make_batch(texts, options.prompts, number, options)
            for name in sorted(sides, reverse=number % 2 == 0):
                told = sides[name].ask(kind=name, **batch)
                speeds[name].append(told["tokens"] / told["seconds"])
            kept.append(sides["katsuo"].ask(kind="kept", **batch))
    finally:
        for side in sides.values():
            side.close()
    return cells(speeds, kept, sides)


def cells(speeds: dict[str, list[float]], kept: list[dict[str, Any]], sides: dict[str, Side]) -> list[object]:
    """Give the medians over the rounds."""
    ratios = [ours / bare for ours, bare in zip(speeds["katsuo"], speeds["bare"], strict=True)]
    return [
        *(f"{statistics.median(speeds[name]):.0f}" for name in ("katsuo", "bare")),
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{statistics.median(one['kept'] / one['seconds'] for one in kept):.2f}",
        f"{100 * sum(one['kept'] for one in kept) / sum(one['prompts'] for one in kept):.0f} %",
        *(f"{sides[name].startup_s:.1f}" for name in ("katsuo", "bare")),
        *(f"{sides[name].peak_bytes / 1e6:.0f}" for name in ("katsuo", "bare")),
    ]


def make_batch(texts: Sequence[str], count: int, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Cut so many passages, others in every round, and render the prompt of each."""
    codec = find_codec("bonito-v1")
    rows = []
    for place in range(count):
        task = find_task(options.tasks[place % len(options.tasks)])
        text = passage(texts, place, number)
        rows.append({"task": task.short, "passage": text, "prompt": codec.render(task, text)[0]})
    return {"rows": rows, "seed": number, "max_new_tokens": options.max_new_tokens}


def passage(texts: Sequence[str], place: int, number: int) -> str:
    """Give one piece of the documents; a round begins its pieces elsewhere, so that nothing is read twice."""
    source = texts[place % len(texts)]
    length = SMALLEST + (place * 7919) % (LARGEST - SMALLEST)
    start = ((place // len(texts)) * LARGEST + number * 211) % max(1, len(source) - length)
    return source[start : start + length].strip()


def read_texts(documents: Path) -> list[str]:
    """Read what is long enough to cut a passage from; control markers of the wire format are taken out."""
    files = sorted(path for path in documents.rglob("*") if path.suffix in (".md", ".txt"))
    texts = [path.read_text(encoding="utf-8").replace("<|", "<") for path in files]
    long = [text for text in texts if len(text) >= LARGEST]
    if not long:
        raise SystemExit(f"no text of {LARGEST} characters in {documents}")
    return long


class Table:
    """A Markdown table that prints each row as it is measured."""

    def __init__(self, *columns: str) -> None:
        self.add_row(*columns)
        self.add_row(*("---" for _ in columns))

    def add_row(self, *cells: object) -> None:
        """Print one row."""
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
