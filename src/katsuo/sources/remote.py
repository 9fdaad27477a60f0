"""Files and folders behind a URL: any file system that fsspec knows, such as `s3://` and `gs://`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from katsuo.errors import SourceError
from katsuo.places import list_files, place, reaching
from katsuo.records import Document, Reason, Reject
from katsuo.sources.base import Refusal, SourceSettings, SourceShard
from katsuo.sources.files import FORMATS, is_wanted, read_document
from katsuo.sources.tables import TABLES, check_column, read_table


class RemoteSource:
    """
    A file, or all files below a folder, hidden ones left out, in the order of their names.

    Names are URLs. A file is known again by the size and checksum that its store tells (else by its time), so that
    going on with a run does not read everything once more.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._root = place(settings.address)
        self._states: dict[str, str] | None = None

    def check(self) -> None:
        """Raise `SourceError` when nothing can be found there, or a table lacks the text column."""
        shards = list(self.list_shards())
        if all(shard.problem for shard in shards):
            raise SourceError(
                f'no document of "{self._settings.address}" can be read',
                hint=f"check the address and --include; known endings: {' '.join(FORMATS)}",
            )
        for shard in shards:
            if shard.problem is None and shard.format in TABLES:
                check_column(place(shard.path), format=shard.format, column=self._settings.text_column)

    def list_shards(self) -> Iterator[SourceShard]:
        """Give the files in the order of their names."""
        include, exclude = self._settings.include, self._settings.exclude
        for name in self._files():
            url = f"{self._settings.address.rstrip('/')}/{name}" if name else self._settings.address
            if is_wanted((PurePosixPath(url).name, name, url), include=include, exclude=exclude):
                yield self._shard(url, is_named=not name or bool(include))

    def read(self, shard: SourceShard) -> Iterator[Document | Reject]:
        """Give the documents of one file: one, or one per row of a table."""
        path, column = place(shard.path), self._settings.text_column
        if shard.problem:
            yield shard.problem.reject(shard.source)
        elif shard.format in TABLES:
            yield from read_table(path, source=shard.source, format=shard.format, column=column)
        else:
            yield read_document(path, shard)

    def digest(self, shard: SourceShard) -> bytes:
        """Give the hash of what the store tells of the file."""
        name = shard.path.removeprefix(self._settings.address.rstrip("/")).lstrip("/")
        return hashlib.sha256(self._files()[name].encode()).digest()

    def _shard(self, url: str, *, is_named: bool) -> SourceShard:
        suffix = PurePosixPath(url).suffix
        known, problem = FORMATS.get(suffix.lower()), None
        if known is None and not is_named:
            ending = f'"{suffix}" files' if suffix else "files without an ending"
            problem = Refusal(Reason.UNSUPPORTED, f"no reader for {ending}; --include reads them as text")
        return SourceShard(url, url, known or "text", problem)

    def _files(self) -> dict[str, str]:
        if self._states is None:
            try:
                with reaching(self._root):
                    self._states = dict(list_files(self._root))
            except OSError as error:
                raise SourceError(
                    f'cannot list "{self._settings.address}": {error}',
                    hint="check the address, the network and the credentials in the environment",
                ) from error
        return self._states
