"""The main job with the engine `llamacpp`: without PyTorch, and with the same rows when it is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from katsuo.store import Run

pytestmark = pytest.mark.end_to_end
HEAVY = ("torch", "transformers", "peft", "tokenizers", "llguidance", "httpx2", "gguf", "safetensors")
PLACES = ("Ven", "Hven", "Tuno", "Samso", "Anholt", "Fano")


def write_documents(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        place = PLACES[number % len(PLACES)]
        (folder / f"{number:02}.txt").write_text(f"Ferry {number} to {place} leaves at {number + 3} and is blue.")
    return folder


def start(documents: Path, gguf: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "katsuo", "generate", str(documents), "--task", "exqa", "--task", "ynqa"]
    command += ["--engine", "llamacpp", "--model", str(gguf), "-o", str(output), "--quiet", "--allow-partial"]
    # A model of random weights writes no task in its own words: what is compared is what it wrote, in the rejects.
    command += ["--set", "codec=bonito-v1", "--no-grammar", "--set", "sampling.max_new_tokens=48"]
    changes = ("shard_size=4", "cache=false", "engine_options.batch_size=3")
    for change in changes:
        command += ["--set", change]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})


def finish(process: subprocess.Popen[bytes]) -> None:
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told.decode()


def test_a_run_that_is_killed_half_way_ends_with_the_rows_of_one_left_alone(tiny_gguf: Path, tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", 16)
    finish(start(documents, tiny_gguf, tmp_path / "whole"))
    process = start(documents, tiny_gguf, tmp_path / "killed")
    while process.poll() is None and len(list((tmp_path / "killed").glob("done/0*.json"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Run(tmp_path / "killed").summary().is_complete
    finish(start(documents, tiny_gguf, tmp_path / "killed"))
    whole, resumed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    written = [reject.text for reject in whole.rejects()]
    assert len(set(written)) == len(written) == 32
    assert list(resumed.rejects()) == list(whole.rejects())
    assert list(resumed.examples()) == list(whole.examples())


def test_the_main_job_loads_no_pytorch_and_nothing_of_the_other_engines(tiny_gguf: Path, tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents", 2)
    code = (
        "import json, sys, katsuo\n"
        f"run = katsuo.generate({str(documents)!r}, ['sentiment'], {str(tmp_path / 'run')!r}, engine='llamacpp',\n"
        f"    model={str(tiny_gguf)!r}, sampling__max_new_tokens=400, engine_options__batch_size=2)\n"
        "kept = run.summary().kept\n"
        f"print(json.dumps([kept, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == [2, []]
