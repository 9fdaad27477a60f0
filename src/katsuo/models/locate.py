"""From a model's name to its folder on this machine, its codec and its revision."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

from katsuo.config import cache_dir
from katsuo.errors import MissingPackageError, ModelError, RecipeError
from katsuo.models.known import find_known

MANIFEST = "katsuo.json"
"""What katsuo writes beside weights: codec, base model, revision."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What is fetched of a model on the hub: never a pickle, never code."""


_BUNDLED = Path(__file__).parent / "bundled"


def kept_at(name: str) -> Path:
    """Give the folder in katsuo's cache where a known model lies once it is pulled."""
    return cache_dir() / "models" / name


def locate(name: str, revision: str | None = None) -> Path:
    """
    Give the folder of a model: a folder as it is, a known or a hub model from the caches of katsuo and of the hub.

    Nothing is fetched. Raise `ModelError` with what to do when the model is not here, and `RecipeError` for a
    `revision` (branch, tag or commit) of a model that does not come from the hub.
    """
    if revision:
        return _at_revision(name, revision)
    if (folder := Path(name).expanduser()).is_dir():
        return folder
    known = find_known(name)
    if known and known.base:
        return _BUNDLED / known.name
    if known and (kept_at(known.name) / "config.json").is_file():
        return kept_at(known.name)
    hub_name = known.hub if known else name
    if hub_name.count("/") == 1 and (found := _in_hub_cache(hub_name)):
        return found
    raise ModelError(f'the model "{name}" is not on this machine', hint=f"run `katsuo pull {name}`, or give a folder")


def locate_parts(name: str, adapter: str | None = None, revision: str | None = None) -> tuple[Path, Path | None]:
    """
    Give the folder of a model's weights and that of the adapter beside them.

    The name of an adapter alone brings the base that its manifest names; `revision` is that of `name`. Raise
    `ModelError` when either is not here.
    """
    folder = locate(name, revision)
    if adapter:
        return folder, locate(adapter)
    if not is_adapter(folder):
        return folder, None
    base = named_base(folder)
    try:
        return locate(base), folder
    except ModelError as error:
        raise ModelError(
            f'the base of "{name}", "{base}", is not on this machine',
            hint=f"run `katsuo pull {base}`, or give its folder as --model and this one as --adapter",
        ) from error


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def named_base(folder: Path) -> str:
    """Give the model that an adapter names as its base; raise `ModelError` where it names none."""
    named = read_manifest(folder).get("base_model")
    if not named:
        try:
            named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError) as error:
            raise ModelError(
                f'cannot read "{folder / ADAPTER_CONFIG}": {error}', hint="train the adapter again"
            ) from error
    if not named:
        raise ModelError(f'the adapter in "{folder}" does not name its base', hint="give the base as --model")
    return str(named)


def _at_revision(name: str, revision: str) -> Path:
    known = find_known(name)
    hub_name = known.hub if known else name
    if Path(name).expanduser().is_dir() or hub_name.count("/") != 1:
        raise RecipeError(
            f'engine_options.revision is "{revision}", but "{name}" is no model of the hub, and has no revisions',
            hint="leave it out, or give --model by its name on the hub (owner/name)",
        )
    if found := _in_hub_cache(hub_name, revision):
        return found
    raise ModelError(
        f'the revision "{revision}" of "{hub_name}" is not on this machine',
        hint=f"run `katsuo pull {hub_name} --revision {revision}`",
    )


def _in_hub_cache(hub_name: str, revision: str | None = None) -> Path | None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'the hub model "{hub_name}" needs the package "{error.name}"', hint="pip install 'katsuo[hf]'"
        ) from error
    try:
        return Path(snapshot_download(hub_name, revision=revision, local_files_only=True, allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, ValueError):
        return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read katsuo's manifest beside weights; an empty one where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f'cannot read "{path}": {error}', hint="pull or train the model again") from error
    return manifest


def codec_of(name: str, adapter: str | None = None, revision: str | None = None) -> str:
    """Give a model's codec: its adapter's before its own, from table or manifest, else `instruct` for chat models."""
    for place, its in ((adapter, None), (name, revision)):
        if not place:
            continue
        is_folder = (folder := Path(place).expanduser()).is_dir()
        if not is_folder and (known := find_known(place)):
            return known.codec
        if "codec" in (manifest := read_manifest(folder if is_folder else locate(place, its))):
            return str(manifest["codec"])
    if has_chat_template(locate(name, revision)):
        return "instruct"
    raise ModelError(
        f'nothing says which codec the model "{name}" was trained with',
        hint="set `codec: bonito-v1` for a task generator, or `codec: instruct` for a chat model",
    )


def has_chat_template(folder: Path) -> bool:
    """Say whether the model in `folder` brings a chat template."""
    tokenizer = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (
        tokenizer.is_file() and "chat_template" in tokenizer.read_text(encoding="utf-8")
    )


def public_name(name: str) -> str:
    """Give the name that rows may carry: that of a folder or a file without its path, any other name as it is."""
    place = Path(name).expanduser()
    return place.resolve().name if place.exists() else name


def state_of(name: str) -> str:
    """
    Give a word that changes when the files of a model or an adapter change; empty for one that is not here.

    The hub's commit, else a hash of file sizes and times of change: two trainings into one folder differ in nothing
    else that can be seen without reading all the weights.
    """
    place = Path(name).expanduser()
    if not place.exists():
        try:
            place = locate(name)
        except (ModelError, MissingPackageError):
            return ""  # a server's model, or one that the engine knows by name alone
    if place.parent.name == "snapshots":
        return place.name
    digest = blake2b(digest_size=8)
    for path in sorted(place.glob("*")) if place.is_dir() else [place]:
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}\0".encode())
    return digest.hexdigest()


def revision_of(folder: Path) -> str:
    """Give a model's revision: from its manifest, the hub's commit, else a hash of its settings and file sizes."""
    if revision := read_manifest(folder).get("revision"):
        return str(revision)
    if folder.parent.name == "snapshots":
        return folder.name
    digest = blake2b(digest_size=6)
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            if path.suffix == ".json":
                digest.update(path.read_bytes())
    return f"local-{digest.hexdigest()}"
