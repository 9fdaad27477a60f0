"""
Measure `katsuo ctga build` against the usual way of rendering P3 templates, in one run on the same rows.

python benchmarks/ctga.py [--data DATA] [--quick] [--sample 1500] [--rounds 3]

The usual way compiles the Jinja source of template and answer choices anew for every row, renders, and keeps the pair
in memory; its rows are every n-th of all rows, so both sides see the same mix. katsuo reads, draws, renders, assembles
and writes Parquet. Rates count processor time, so that other work on the machine does not decide them. Rounds
alternate between the two; medians are told. Does not measure: fetching data from a hub.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from jinja2 import BaseLoader, Environment

from katsuo.ctga.build import build
from katsuo.ctga.catalog import Source, load_catalog
from katsuo.ctga.rows import open_rows
from katsuo.ctga.settings import BuildSettings
from katsuo.ctga.templates import context_pattern, find_templates
from katsuo.templates.library import Template, open_library
from katsuo.templates.sandbox.environment import most_frequent

_HIDDEN = "b0c1" * 8
_PUBLISHED_PAIRS = 1_650_000


def usual_environment() -> Environment:
    """Make one environment for all, with the filters that the templates need."""
    environment = Environment(loader=BaseLoader())
    environment.globals["zip"] = zip
    environment.filters["choice"] = random.choice
    environment.filters["most_frequent"] = most_frequent
    return environment


def render_the_usual_way(
    environment: Environment, source: Source, template: Template, row: dict[str, Any]
) -> tuple[str, str, str]:
    """Give context, instruction and response of one row; the sources of the templates are compiled on each call."""
    jinja = context_pattern(source).sub("{{here}}", template.jinja).replace("|||", "\n[pipe]\n")
    jinja = f"{source.context}|||{jinja}".replace("}}", " | string | truncate(2048) }}")
    hidden = {key: value.replace("|||", _HIDDEN) if isinstance(value, str) else value for key, value in row.items()}
    hidden["here"], hidden["answer_choices"] = "{{context}}", None
    if template.answer_choices:
        rendered = environment.from_string(template.answer_choices).render(**hidden)
        hidden["answer_choices"] = [part.strip().replace(_HIDDEN, "|||") for part in rendered.split("|||")]
    context, pair = (
        part.replace(_HIDDEN, "|||").strip() for part in environment.from_string(jinja).render(**hidden).split("|||")
    )
    instruction, _, response = pair.partition("\n[pipe]\n")
    return context, instruction.strip(), response.strip()


def mixed_rows(data: str, sample: int) -> list[tuple[Source, tuple[Template, ...], dict[str, Any]]]:
    """Give about `sample` rows, every n-th of all sources."""
    library = open_library()
    there = [(source, open_rows(source, data)) for source in load_catalog()]
    known = [(source, rows, find_templates(source, library)) for source, rows in there if rows]
    step = max(1, sum(rows.count() for _, rows, _ in known) // sample)
    return [
        (source, templates, row)
        for source, rows, templates in known
        for number, row in rows.read(0, rows.count(), rows.columns())
        if number % step == 0
    ]


def time_the_usual_way(rows: list[tuple[Source, tuple[Template, ...], dict[str, Any]]]) -> float:
    """Give rows per second of processor time."""
    environment = usual_environment()
    began = time.process_time()
    pairs = [render_the_usual_way(environment, source, random.choice(found), row) for source, found, row in rows]
    return len(pairs) / (time.process_time() - began)


@dataclass(frozen=True)
class Timed:
    """
    One build: drawings, pairs per second of the workers' processor time, seconds, and how busy others were.

    `working` is from the first shard's start to the last one's end: without starting processes and closing the ledger.
    """

    drawn: int
    rate: float
    seconds: float
    working: float
    elsewhere: float


def time_katsuo(data: str, *, workers: int = 1, **settings: Any) -> Timed:
    """Build into a scratch folder; `elsewhere` is the share of all cores that other processes took meanwhile."""
    spent: list[float] = []
    began_at, ended_at = [], []

    def note(_done: int, _of: int, marker: Mapping[str, Any]) -> None:
        spent.append(marker["cpu_seconds"])
        ended_at.append(time.perf_counter())
        began_at.append(ended_at[-1] - marker["seconds"])

    with tempfile.TemporaryDirectory() as folder:
        began, busy, own = time.perf_counter(), _busy(), sum(os.times()[:4])
        summary = build(BuildSettings(data=data, workers=workers, **settings), Path(folder) / "ctga", progress=note)
        seconds = time.perf_counter() - began
        others = (_busy() - busy) - (sum(os.times()[:4]) - own)
    elsewhere = max(0.0, others / seconds / (psutil.cpu_count() or 1))
    return Timed(summary.drawn, summary.drawn / sum(spent), seconds, max(ended_at) - min(began_at), elsewhere)


def _busy() -> float:
    told = psutil.cpu_times()
    return told.user + told.system + told.nice


_ONE_BUILD = """
import resource, sys
from pathlib import Path
from katsuo.ctga.build import build
from katsuo.ctga.settings import BuildSettings
if __name__ == "__main__":
    build(BuildSettings(data=sys.argv[1], limit=10**7, rows_per_shard=10**7), Path(sys.argv[1]) / "ctga")
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_memory(data: str, times: int) -> tuple[int, float]:
    """Give rows, and the peak memory in MB of the worker, for one shard as long as imdb `times` over."""
    table = pq.read_table(Path(data) / "imdb" / "train.parquet")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "imdb").mkdir()
        with pq.ParquetWriter(Path(folder) / "imdb" / "train.parquet", table.schema) as writer:
            for _ in range(times):
                writer.write_table(table, row_group_size=5000)
        script = Path(folder) / "one_build.py"
        script.write_text(_ONE_BUILD)
        told = subprocess.run([sys.executable, str(script), folder], capture_output=True, text=True, check=True).stdout
        return table.num_rows * times, int(told) / 1024


def main() -> None:
    """Print the table of benchmarks/ctga.md."""
    options = argparse.ArgumentParser()
    options.add_argument("--data", default=str(Path(__file__).parent.parent.parent / "shared" / "data" / "p3"))
    options.add_argument("--quick", action="store_true", help="one round, few rows for the usual way, no memory")
    options.add_argument("--sample", type=int, default=1500)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    if given.quick:
        given.sample, given.rounds = 500, 1
    rows = mixed_rows(given.data, given.sample)
    usual, ours, ratios = [], [], []
    for _ in range(given.rounds):
        usual.append(time_the_usual_way(rows))
        ours.append(time_katsuo(given.data).rate)
        ratios.append(ours[-1] / usual[-1])
    rate = statistics.median(ours)
    print(f"| usual way, {len(rows)} rows | {statistics.median(usual):,.0f} pairs/s per core | 1 |")
    print(f"| katsuo, one worker | {rate:,.0f} pairs/s per core | {statistics.median(ratios):.0f} x |")
    print("ratios by round:", " ".join(f"{ratio:.0f}" for ratio in ratios))
    for _ in range(given.rounds):
        time_two_workers(given.data)
    bare = time_katsuo(given.data, sources=("quartz",)).seconds
    print(f"1.65M pairs: {bare + _PUBLISHED_PAIRS / rate:.0f} s on one core (start {bare:.1f} s)")
    for times in () if given.quick else (1, 10):
        count, peak = peak_memory(given.data, times)
        print(f"| one shard of {count:,} rows | worker peak {peak:,.0f} MB |")


def time_two_workers(data: str) -> None:
    """Print one line: every template on every row, by one worker and by two."""
    one, two = (time_katsuo(data, per_row=0, workers=workers) for workers in (1, 2))
    print(
        f"| {one.drawn:,} drawings "
        f"| working {one.working:.1f} s and {two.working:.1f} s: {one.working / two.working:.2f} x "
        f"| whole command {one.seconds:.1f} s and {two.seconds:.1f} s: {one.seconds / two.seconds:.2f} x "
        f"| others took {one.elsewhere:.0%} and {two.elsewhere:.0%} of the machine |",
        flush=True,
    )


if __name__ == "__main__":
    main()
