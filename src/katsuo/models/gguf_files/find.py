"""From a model's name to its GGUF file on this machine; needs no package."""

from __future__ import annotations

import hashlib
from hashlib import blake2b
from pathlib import Path

from katsuo.config import cache_dir
from katsuo.errors import ModelError
from katsuo.models.known import codec_by_name, find_known
from katsuo.models.locate import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter, locate, read_manifest, state_of

FILE = "model-q8_0.gguf"
ELSEWHERE = "convert the model with llama.cpp's convert_hf_to_gguf.py, and give the file as --model"
_HEAD = 1 << 22
"""Bytes of a file that tell it from others: settings, tokens and the beginning of the weights."""


def find_gguf(name: str) -> Path:
    """
    Give a model's GGUF file: a file as it is, the one in a folder, or the one that `katsuo pull --gguf` has made.

    Raise `ModelError` with what to do when there is none, or when it was made of weights that are not these.
    """
    place = Path(name).expanduser()
    if place.is_file():
        return place
    files = sorted(place.glob("*.gguf")) if place.is_dir() else []
    if len(files) > 1:
        names = ", ".join(f'"{path.name}"' for path in files)
        raise ModelError(f'the folder "{name}" holds several GGUF files: {names}', hint="give one of them as --model")
    if files:
        return files[0]
    kept = kept_gguf(name)
    if not kept.is_file():
        known = find_known(name)
        here = f"run `katsuo pull --gguf {name}`, or give a .gguf file as --model"
        hint = ELSEWHERE if known and not known.is_convertible else here
        raise ModelError(f'there is no GGUF file of the model "{name}"', hint=hint)
    if not is_current(name):
        raise ModelError(
            f'the GGUF file of "{name}" was made of other weights than those that are here now',
            hint=f"run `katsuo pull --gguf {name}`",
        )
    return kept


def kept_gguf(name: str, revision: str | None = None) -> Path:
    """Give the file in katsuo's cache where a model's GGUF lies once it is made; one of a revision lies by itself."""
    place = Path(name).expanduser()
    if known := find_known(name):
        key = known.name
    elif place.is_dir():
        key = f"{place.resolve().name}-{blake2b(str(place.resolve()).encode(), digest_size=4).hexdigest()}"
    else:
        key = name.replace("/", "--")
    key += f"@{revision.replace('/', '--')}" if revision else ""
    return cache_dir() / "gguf" / key / FILE


def is_current(name: str) -> bool:
    """Say whether a model's GGUF file was made of the weights that bear its name now."""
    return read_manifest(kept_gguf(name).parent).get("made_of") == made_of(name)


def made_of(name: str) -> str:
    """Give a word that changes with the weights that bear a name; empty where a hub or an index fixes them."""
    known = find_known(name)
    if not (known and known.base) and not Path(name).expanduser().is_dir():
        return ""
    folder = locate(name)
    if is_adapter(folder):
        return _hash_of(folder / ADAPTER_WEIGHTS, folder / ADAPTER_CONFIG)
    return state_of(name)


def _hash_of(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def gguf_codec(name: str, path: Path, adapter: str | None = None) -> str:
    """Give a model's codec: from the manifest of its adapter or its file, the table, or a name; else nothing."""
    folders = [Path(adapter).expanduser()] if adapter else []
    for folder in (*folders, path.parent):
        if folder.is_dir() and "codec" in (manifest := read_manifest(folder)):
            return str(manifest["codec"])
    known = (find_known(adapter) if adapter else None) or find_known(name)
    return known.codec if known else codec_by_name(adapter or path.name)


def gguf_revision(path: Path) -> str:
    """Give a file's revision: from the manifest beside it, else a hash of its size and of its head."""
    if revision := read_manifest(path.parent).get("revision"):
        return str(revision)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return f"local-{blake2b(f'{path.stat().st_size}'.encode() + head, digest_size=6).hexdigest()}"
