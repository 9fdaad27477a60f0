"""A data set on the Hugging Face hub: written here first, pushed second, private unless asked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from katsuo.errors import ExportError, KatsuoError, MissingPackageError, UsageError
from katsuo.export.card import without_places
from katsuo.export.order import Order
from katsuo.export.parquet import COLUMNS, row

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_ALWAYS_THERE = {".gitattributes"}


def write_hub(order: Order) -> Callable[[Path], str]:
    """
    Write every column as Parquet and give back the push, which runs once the local folder stands in its place.

    The token comes from `HF_TOKEN`, the address from `HF_ENDPOINT`. Raise `ExportError` before anything is written when
    `HF_HUB_OFFLINE` is set or no token is.
    """
    repo_id, public = order.options.repo_id, order.options.public
    if repo_id is None or not _REPO_ID.fullmatch(repo_id):
        raise UsageError(f'"{repo_id or ""}" is no name of a data set on the hub', hint="give --repo-id owner/name")
    if order.options.file_type == "jsonl":
        raise UsageError("the hub is given Parquet only", hint="leave out --file-type")
    api, token = _connect()
    order.write_rows(lambda e: {**row(e), "model": without_places(e.model)}, COLUMNS, file_type="parquet")
    return lambda folder: _push(api, folder, repo_id, public=public, token=token)


def _connect() -> tuple[HfApi, str]:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise ExportError("HF_HUB_OFFLINE is set, so nothing is pushed", hint="unset it, or use --format parquet")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise ExportError("no token for the hub", hint="put one with write access into HF_TOKEN")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'pushing to the hub needs the package "{error.name}", which is not installed',
            hint="pip install 'katsuo[hub]'",
        ) from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token), token


def _push(api: HfApi, folder: Path, repo_id: str, *, public: bool, token: str) -> str:
    """Create the data set, make sure that it is empty and as private as asked, and upload in one commit."""
    try:
        url = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
        held = api.dataset_info(repo_id)
        if not held.private and not public:
            raise ExportError(
                f'the data set "{repo_id}" is already there and open to everybody',
                hint=f'choose another --repo-id, or add --public; the local copy is whole in "{folder}"',
            )
        if {file.rfilename for file in held.siblings or ()} - _ALWAYS_THERE:
            raise ExportError(
                f'the data set "{repo_id}" already holds files',
                hint=f'choose another --repo-id; the local copy is whole in "{folder}"',
            )
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="Add data set made with katsuo"
        )
    except KatsuoError:
        raise
    except Exception as error:  # the client raises errors of its own, of its HTTP library and of the system
        told = " ".join(str(error).split()).replace(token, "***")[:300]
        private = "--no-private" if public else "--private"
        raise ExportError(
            f'the push to "{repo_id}" failed: {told or type(error).__name__}',
            hint=f'the local copy is whole; try again with `hf upload {repo_id} "{folder}" . --type dataset {private}`',
        ) from error
    return str(url)
