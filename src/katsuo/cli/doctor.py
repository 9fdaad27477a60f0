"""`katsuo doctor`."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib import metadata

import typer

from katsuo import __version__
from katsuo.cli import options as flag
from katsuo.config import answers_dir, cache_dir
from katsuo.engines import ENGINES
from katsuo.engines.vllm_process.interpreter import find_python
from katsuo.errors import KatsuoError
from katsuo.models import KNOWN, locate

_EXTRAS = {
    "hf": ("torch", "transformers", "peft", "safetensors", "llguidance", "gguf"),
    "hub": ("huggingface-hub", "datasets"),
    "llamacpp": ("xllamacpp",),
    "openai": ("httpx2",),
    "vllm": ("vllm",),
    "train": ("accelerate",),
    "qlora": ("bitsandbytes",),
    "remote": ("universal-pathlib", "fsspec"),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
    "ray": ("ray",),
    "report": ("matplotlib",),
}


def add_to(app: typer.Typer, summary: str) -> None:
    app.command("doctor", help=summary)(doctor)


def doctor(as_json: flag.AsJson = False) -> None:
    found = examine()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, state in value.items():
                typer.echo(f"  {name:24} {state}")
        else:
            typer.echo(f"{key:26} {value}")


def examine() -> dict[str, str | dict[str, str]]:
    """Look at what is installed and what is here, without loading any of it."""
    return {
        "katsuo": __version__,
        "python": platform.python_version(),
        "processors": str(os.cpu_count()),
        "cache": str(cache_dir()),
        "answers": str(answers_dir()),
        "free disk": f"{shutil.disk_usage('.').free / 2**30:.0f} GiB",
        "packages": {name: _version(name, extra) for extra, names in _EXTRAS.items() for name in names},
        "engines": {name: ENGINES.door(name).summary for name in ENGINES.names()},
        "python of vllm": _python_of_vllm(),
        "models": {name: _place(name) for name in KNOWN},
    }


def _version(package: str, extra: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"missing: pip install 'katsuo[{extra}]'"


def _python_of_vllm() -> str:
    try:
        return find_python(None)
    except KatsuoError as error:
        return f"{error.message}: {error.hint}"


def _place(model: str) -> str:
    try:
        return str(locate(model))
    except KatsuoError as error:
        return f"not here: {error.hint}"
