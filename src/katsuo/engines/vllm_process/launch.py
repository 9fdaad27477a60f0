"""Run vLLM's server, and end it with the process that started it. Runs in vLLM's interpreter: no import of ours."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import threading
from importlib import metadata
from pathlib import Path

_ON_PROCESSORS = ("--no-enable-chunked-prefill", "--max-num-seqs", "256")
"""
vLLM's build for processors (0.32.0) breaks where a prompt with a seed is read in two steps: it turns the generator of
random numbers back, which those of a processor cannot be. And its server takes half as many rows at once as its class
for work without a server does.
"""


def main() -> None:
    """Serve the model named first, with the server's own arguments after it."""
    model, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    here = str(Path(__file__).parent)
    sys.path[:] = [place for place in sys.path if place != here]  # our modules must not stand before others'
    if importlib.import_module("vllm.platforms").current_platform.is_cpu():
        arguments = [*_ON_PROCESSORS, *arguments]
    if _has_command():
        module, sys.argv = "vllm.entrypoints.cli.main", ["vllm", "serve", model, *arguments]
    else:
        module, sys.argv = "vllm.entrypoints.openai.api_server", ["vllm", "--model", model, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _has_command() -> bool:
    """Say whether `vllm serve` works: it asks for its own distribution, and some builds go by another name."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return True


def _end_with_parent() -> None:
    """Wait until the other end of standard input is closed, be it by a kill, and end all processes of this group."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
