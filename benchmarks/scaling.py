"""
Does a passage cost the same in a run of 10,000 as in one of 1,000,000, and does the memory of the driver stay flat?

Each size runs `katsuo generate --runner ray` on the `fake` engine in a process of its own. The driver's resident memory
is read twenty times a second from outside: its peak while it answers, against its level when it began to answer.
Documents are JSONL rows of 60 words; two task types.

    python benchmarks/scaling.py --sizes 2000                            # try it out
    python benchmarks/scaling.py --sizes 10000 100000 1000000            # the table of docs/scaling.md
    python benchmarks/scaling.py --sizes 10000 100000 --runner local     # the same without Ray
    python benchmarks/scaling.py --measured 4.96                         # hours of GPUs, from prompts per second here
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from pipeline import write_documents

TASKS = ("ynqa", "exqa")
EMBEDDED = 134.5e6
"""Parameters of the generator that comes with katsuo."""
BAR = 0.10
"""A passage may cost so much more in the largest run than in the smallest."""


def measure(passages: int, *, runner: str, workers: int, shard_size: int, scratch: Path) -> dict[str, float]:
    """Run one size and give its seconds and the driver's memory, in MB, by stage."""
    documents, output = scratch / "documents", scratch / "run"
    documents.mkdir(parents=True)
    write_documents(documents, passages)
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
    ]
    command += [
        "--runner",
        runner,
        "--workers",
        str(workers),
        "--set",
        f"shard_size={shard_size}",
        "--allow-partial",
        "-q",
    ]
    command += [word for task in TASKS for word in ("--task", task)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    watch = Watch(process.pid, output)
    out, _ = process.communicate()
    watch.stop()
    if process.returncode:
        raise SystemExit(f"`katsuo generate` ended with {process.returncode}")
    summary = json.loads(out)
    read = json.loads((output / "done" / "documents.json").read_text())["seconds"]
    first, answer = watch.first_and_rest()
    return {
        "passages": summary["passages"],
        "prompts": summary["prompts"],
        "kept": summary["kept"],
        "seconds": time.monotonic() - started,
        "read_us": 1e6 * read / summary["passages"],
        "answer_us": 1e6 * answer / max(1, summary["prompts"] - first) * len(TASKS),
        "begun_mb": watch.begun_mb,
        "peak_mb": watch.peak_mb,
    }


class Watch:
    """Follow one process from outside: resident memory, and how long it answered."""

    def __init__(self, pid: int, output: Path) -> None:
        self._process, self._output = psutil.Process(pid), output
        self._is_over = threading.Event()
        self.begun_mb = self.peak_mb = 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def first_and_rest(self) -> tuple[int, float]:
        """Give the prompts of the first shard and the seconds from its marker to the last one's: no start-up in it."""
        markers = sorted((self._output / "done").glob("[0-9]*.json"))
        seconds = markers[-1].stat().st_mtime - markers[0].stat().st_mtime
        return int(json.loads(markers[0].read_text())["prompts"]), seconds

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        first_marker = self._output / "done" / "00000.json"
        while not self._is_over.wait(0.05):
            try:
                resident = self._process.memory_info().rss / 2**20
            except psutil.Error:
                return
            if first_marker.exists():
                self.begun_mb = self.begun_mb or resident
                self.peak_mb = max(self.peak_mb, resident)


def table(rows: list[dict[str, float]]) -> str:
    """Give the rows as Markdown, and the verdict on both claims."""
    columns = ("passages", "prompts", "seconds", "reading, µs per passage", "answering, µs per passage")
    lines = [f"| {' | '.join(columns)} | driver, MB: begin → peak |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['passages']:,.0f} | {row['prompts']:,.0f} | {row['seconds']:.1f} | {row['read_us']:.0f} | "
            f"{row['answer_us']:.0f} | {row['begun_mb']:.0f} → {row['peak_mb']:.0f} |"
        )
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        for name in ("read_us", "answer_us"):
            growth = last[name] / first[name] - 1
            lines.append(f"\n{name}: {growth:+.1%} ({'within' if growth <= BAR else 'over'} the bar of {BAR:.0%})")
    return "\n".join(lines)


def prices(measured: float, peak_here: float, peak_gpu: float) -> str:
    """
    Give hours for 10 million and 1 billion passages, one prompt each, from `measured` prompts per second here.

    On paper, a GPU does so many times more as its peak in bfloat16 (TFLOP/s) is higher, at the same share of it or at a
    tenth; a model so many times fewer as it has more parameters.
    """
    rows = [(f"the embedded generator on {os.cpu_count()} cores, measured", measured)]
    for name, size in (("the embedded generator", EMBEDDED), ("a generator of 8 billion parameters", 8.03e9)):
        for share, words in ((1.0, "as here"), (0.1, "a tenth")):
            rate = measured * peak_gpu / peak_here * share * EMBEDDED / size
            rows.append((f"{name} on a GPU of {peak_gpu:g} TFLOP/s, share of its peak {words}", rate))
    lines = ["| | prompts/s | 10 million passages, hours | 1 billion passages, hours |", "|---|---|---|---|"]
    for words, rate in rows:
        hours = [passages / rate / 3600 for passages in (1e7, 1e9)]
        lines.append(f"| {words} | {rate:,.1f} | {hours[0]:,.1f} | {hours[1]:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[])
    parser.add_argument("--runner", default="ray", choices=["ray", "local"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shard-size", type=int, default=2048)
    parser.add_argument("--measured", type=float, help="prompts per second of an engine here")
    parser.add_argument("--peak-here", type=float, default=0.755, help="TFLOP/s in bfloat16 of this machine")
    parser.add_argument("--peak-gpu", type=float, default=989.0, help="TFLOP/s in bfloat16 of a GPU: an H100's")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        scratch = Path(tempfile.mkdtemp(prefix="katsuo-scaling-"))
        try:
            options = {"runner": arguments.runner, "workers": arguments.workers, "shard_size": arguments.shard_size}
            rows.append(measure(size, scratch=scratch, **options))
        finally:
            shutil.rmtree(scratch)
        print(json.dumps(rows[-1]), file=sys.stderr)
    if rows:
        print(f"{os.cpu_count()} cores; runner {arguments.runner}, {arguments.workers} workers; {', '.join(TASKS)}\n")
        print(table(rows))
    if arguments.measured:
        print(prices(arguments.measured, arguments.peak_here, arguments.peak_gpu))


if __name__ == "__main__":
    main()
