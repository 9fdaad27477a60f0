"""The adapter beside a GGUF model: a GGUF file as it is, or a folder of safetensors written as one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from katsuo.config import cache_dir
from katsuo.errors import MissingPackageError, ModelError, StoreError
from katsuo.models import is_adapter, locate
from katsuo.models.gguf_files.find import made_of


def find_beside(adapter: str, base: Path) -> Path:
    """Give an adapter as a GGUF file; a folder's is written once, into katsuo's cache. Raise `ModelError` else."""
    place = Path(adapter).expanduser()
    if place.is_file():
        return place
    folder = locate(adapter)
    if not is_adapter(folder):
        raise ModelError(f'"{adapter}" holds no adapter', hint="give --adapter a LoRA adapter's folder or GGUF file")
    kept = cache_dir() / "gguf" / "adapters" / f"{made_of(str(folder))[:16]}.gguf"
    if not kept.is_file():
        _write(folder, base, kept)
    return kept


def _write(folder: Path, base: Path, kept: Path) -> None:
    try:
        from katsuo.models.gguf_files.adapter import read_adapter, write_adapter
        from katsuo.models.gguf_files.checkpoint import GgufCheckpoint
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'an adapter in safetensors needs the package "{error.name}"', hint="pip install 'katsuo[llamacpp]'"
        ) from error
    model = GgufCheckpoint(base)
    parts = read_adapter(folder, heads=model.heads, key_heads=model.key_heads)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            write_adapter(parts, Path(scratch) / kept.name)
            (Path(scratch) / kept.name).replace(kept)
    except OSError as error:
        raise StoreError(f'cannot write "{kept}": {error.strerror or error}', hint="free some space") from error
