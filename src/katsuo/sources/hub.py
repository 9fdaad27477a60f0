"""Data sets of the Hugging Face hub, streamed row by row."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

from katsuo.errors import KatsuoError, MissingPackageError, SourceError, UsageError
from katsuo.records import Document, Reason, Reject
from katsuo.sources.base import Refusal, SourceSettings, SourceShard
from katsuo.sources.tables import Row, documents

_ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:/(?P<split>[\w.\[\]:%-]+))?")
_DEFAULT_SPLIT = "train"


class HubSource:
    """
    A split of a data set: `hf://owner/name[:config][/split]`, the split `train` where none is named.

    Online the rows are streamed and nothing is stored. With `HF_HUB_OFFLINE=1` the data set is taken from the local
    cache. Row numbers count from 0.
    """

    def __init__(self, settings: SourceSettings) -> None:
        found = _ADDRESS.fullmatch(settings.address)
        if found is None:
            raise UsageError(
                f'"{settings.address}" is no address of a data set',
                hint="write hf://owner/name, hf://owner/name:config or hf://owner/name:config/split",
            )
        self._settings = settings
        self._name = found["name"]
        self._config = found["config"]
        self._split = found["split"]
        self._rows: Any = None

    def check(self) -> None:
        """Raise `SourceError` when the data set cannot be had or has no such split or text column."""
        columns = getattr(self._open(), "column_names", None)
        column = self._settings.text_column
        if columns is not None and column not in columns:
            raise SourceError(
                f'"{self._settings.address}" has no column "{column}"',
                hint=f"--text-column takes one of: {', '.join(columns)}",
            )

    def list_shards(self) -> Iterator[SourceShard]:
        """Give the one split."""
        yield SourceShard(self._settings.label, self._settings.address, "hub")

    def read(self, shard: SourceShard) -> Iterator[Document | Reject]:
        """Give a document or a reject per row."""
        column = self._settings.text_column
        missing = Refusal(Reason.UNREADABLE, f'the row has no "{column}"')
        rows = (Row(number, row.get(column, missing)) for number, row in enumerate(self._open()))
        try:
            yield from documents(rows, source=shard.source)
        except Exception as error:  # a stream can break off in the library's, the hub's or the network's way
            raise self._unreachable(error) from error

    def digest(self, shard: SourceShard) -> bytes:
        """Give the hash of the data set's commit on the hub; offline, of its content as the local cache knows it."""
        revision = getattr(self._open(), "_fingerprint", "") if _is_offline() else self._revision()
        return hashlib.sha256(f"{shard.path}\0{revision}".encode()).digest()

    def _revision(self) -> str:
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self._name).sha)
        except Exception as error:  # the library raises its own and the network's errors
            raise self._unreachable(error) from error

    def _open(self) -> Any:
        if self._rows is None:
            self._rows = self._load()
        return self._rows

    def _load(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f'"{self._settings.address}" needs the package "datasets", which is not installed',
                hint="pip install 'katsuo[hub]'",
            ) from error
        try:
            splits = datasets.load_dataset(self._name, self._config, streaming=not _is_offline())
        except Exception as error:  # the library raises its own, the hub's and the network's errors
            raise self._unreachable(error) from error
        split = self._split or (_DEFAULT_SPLIT if _DEFAULT_SPLIT in splits else next(iter(splits)))
        if split not in splits:
            raise SourceError(f'"{self._name}" has no split "{split}"', hint=f"its splits: {', '.join(splits)}")
        return splits[split]

    def _unreachable(self, error: Exception) -> KatsuoError:
        if _is_offline():
            hint = "HF_HUB_OFFLINE is set: unset it, or fetch the data set first and give its files"
        else:
            hint = "check the name and the network; HF_TOKEN opens a private or gated data set"
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return SourceError(f'cannot read "{self._settings.address}": {first_line}', hint=hint)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
