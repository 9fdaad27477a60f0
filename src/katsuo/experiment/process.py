"""Run one command as a process of its own, and tell what it cost."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from katsuo.errors import RunnerError
from katsuo.experiment.lifeline import LIFELINE

_BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""`ru_maxrss` counts bytes on macOS and KiB elsewhere."""


@dataclass(frozen=True)
class Cost:
    """
    What a process cost: time on the clock, time of all its threads, and the most memory it held.

    Peak memory is that of the process itself or of the largest process it started, whichever is more; None where the
    system does not tell. Linux never tells less than what this process holds when it starts the other, about 100 MB.
    Does not count the memory of a GPU.
    """

    seconds: float
    cpu_seconds: float | None
    peak_bytes: int | None


@cache
def machine() -> str:
    """Say what this machine is: cores and their name, GPUs, system, Python."""
    parts = [f"{os.cpu_count()} cores{_processor()}", *_gpus(), f"{platform.system()} {platform.machine()}"]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    name = name or platform.processor()
    return f" of {name}" if name else ""


def _gpus() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=False)
    return told.stdout.splitlines() if not told.returncode else []


def run_process(command: Sequence[str], log: Path, on_line: Callable[[str], None]) -> Cost:
    """
    Run a command to its end; what it prints goes to `log`, what it says on standard error to `on_line`, too.

    Its standard input stays open and empty until this process ends: a stage of ours then ends, too.
    Raise `RunnerError` with its last words when it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    last: list[str] = []
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE,
            env={**os.environ, LIFELINE: "1"}, text=True, errors="replace",
        )  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stdin is not None
            with process.stdin, process.stderr as lines:
                for line in lines:
                    file.write(line)
                    last = [*last[-7:], line.rstrip()]
                    on_line(line.rstrip())
                status, cpu, peak = _reap(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status:
        said = "\n  ".join(line for line in last if line)
        raise RunnerError(
            f"`{' '.join(command[-12:])}` ended with status {status}:\n  {said}",
            hint=f"its whole output is in {log}; mend the cause and give the same command again. `katsuo report` tells "
            "what there is so far",
        )
    return Cost(round(time.monotonic() - started, 3), cpu, peak)


def _reap(process: subprocess.Popen[str]) -> tuple[int, float | None, int | None]:
    """Wait for a process; give its status, its processor time and its peak memory."""
    if not hasattr(os, "wait4"):
        return process.wait(), None, None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, round(usage.ru_utime + usage.ru_stime, 3), usage.ru_maxrss * _BYTES_PER_UNIT
