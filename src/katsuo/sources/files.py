"""Files and folders: find what can be read, in an order that never changes, and hand each file to its reader."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from katsuo.errors import SourceError
from katsuo.places import reaching
from katsuo.records import Document, Reason, Reject
from katsuo.resume import is_run_of
from katsuo.sources.base import EMPTY, Content, Refusal, SourceSettings, SourceShard
from katsuo.sources.markup import read_docx, read_epub, read_html
from katsuo.sources.pdf import read_pdf
from katsuo.sources.tables import TABLES, check_column, read_table
from katsuo.sources.text import read_text

FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".epub": "epub",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File name endings and who reads them. Other files are read as text when they are named or match `include`."""

_READERS: dict[str, Callable[[bytes], Content | Refusal]] = {
    "text": read_text,
    "html": read_html,
    "pdf": read_pdf,
    "docx": read_docx,
    "epub": read_epub,
}
_HASH_BLOCK = 1 << 20


class FileSource:
    """
    A file, or all files under a folder, hidden ones and the run folders of katsuo left out.

    Names are posix paths that begin with the folder's own name (`docs/a/b.md`), so they stay the same when the tree is
    moved. Links are followed, each folder once. A file that no reader takes, that is no regular file or that may not be
    read is a shard with a problem: it is counted, not skipped.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._root = Path(settings.address).expanduser()

    def check(self) -> None:
        """Raise `SourceError` when nothing here can be read, or a table lacks the text column."""
        root, readable, found = self._root, 0, 0
        _must_exist(root)
        for shard in self.list_shards():
            found += 1
            if shard.problem is None:
                readable += 1
                if shard.format in TABLES:
                    check_column(Path(shard.path), format=shard.format, column=self._settings.text_column)
        if not found or (root.is_dir() and not readable):
            message = f'no document of "{root}" can be read{self._why_nothing(found)}'
            raise SourceError(message, hint=self._how_to_find())

    def list_shards(self) -> Iterator[SourceShard]:
        """Give the files in the order of their names, folder by folder."""
        if not self._root.is_dir():
            if self._is_wanted(self._root.name):
                yield self._shard(self._root, "", is_named=True)
            return
        yield from self._walk(self._root, "", set())

    def read(self, shard: SourceShard) -> Iterator[Document | Reject]:
        """Give the documents of one file: one, or one per row of a table."""
        path = Path(shard.path)
        if shard.problem:
            yield shard.problem.reject(shard.source)
        elif shard.format in TABLES:
            yield from read_table(path, source=shard.source, format=shard.format, column=self._settings.text_column)
        else:
            yield read_document(path, shard)

    def digest(self, shard: SourceShard) -> bytes:
        """Give the hash of the file's content, or of its problem."""
        if shard.problem:
            return hashlib.sha256(shard.problem.reason.value.encode()).digest()
        digest = hashlib.sha256()
        try:
            with Path(shard.path).open("rb") as file:
                while block := file.read(_HASH_BLOCK):
                    digest.update(block)
        except OSError:
            digest.update(Reason.UNREADABLE.value.encode())  # reading counts it as a reject
        return digest.digest()

    def _walk(self, folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[SourceShard]:
        try:
            status = folder.stat()
            with os.scandir(folder) as listing:
                entries = sorted((entry.name, _is_folder(entry)) for entry in listing if not entry.name.startswith("."))
        except OSError as error:
            problem = Refusal(Reason.UNREADABLE, f"the folder cannot be listed: {error.strerror}")
            yield SourceShard(self._name(prefix.rstrip("/")), str(folder), "folder", problem)
            return
        if (status.st_dev, status.st_ino) in seen or (prefix and is_run_of({name for name, _ in entries})):
            return
        seen.add((status.st_dev, status.st_ino))
        for name, is_folder in entries:
            relative = prefix + name
            if is_folder:
                yield from self._walk(folder / name, f"{relative}/", seen)
            elif self._is_wanted(relative):
                yield self._shard(folder / name, relative, is_named=bool(self._settings.include))

    def _shard(self, path: Path, relative: str, *, is_named: bool) -> SourceShard:
        known = FORMATS.get(path.suffix.lower())
        problem = _problem(path)
        if problem is None and known is None and not is_named:
            ending = f'"{path.suffix}" files' if path.suffix else "files without an ending"
            problem = Refusal(Reason.UNSUPPORTED, f"no reader for {ending}; --include reads them as text")
        return SourceShard(self._name(relative), str(path), known or "text", problem)

    def _name(self, relative: str) -> str:
        # A file name that is not UTF-8 is made printable: names are written into the run.
        name = f"{self._settings.label}/{relative}" if relative else self._settings.label
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def _is_wanted(self, relative: str) -> bool:
        names = (relative.rsplit("/", 1)[-1], relative, self._name(relative))
        return is_wanted(names, include=self._settings.include, exclude=self._settings.exclude)

    def _why_nothing(self, found: int) -> str:
        if self._settings.include or self._settings.exclude:
            return f": {found} of its files match --include and --exclude"
        return f": none of its {found} files has a known ending" if found else ": it is empty"

    def _how_to_find(self) -> str:
        if self._settings.include or self._settings.exclude:
            return "globs match the file's name or its path below the folder; quote them, as in --include '*.md'"
        return f"known endings: {' '.join(FORMATS)}; --include '*' reads every other file as text"


def is_wanted(names: tuple[str, ...], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Say whether a file of these names is to be taken."""
    return (not include or _matches(names, include)) and not _matches(names, exclude)


def read_document(path: Path, shard: SourceShard) -> Document | Reject:
    """Read a file that is one document, wherever it lies."""
    try:
        with reaching(path):
            data = path.read_bytes()
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error)).reject(shard.source)
    content = _READERS[shard.format](data) if data.strip() else EMPTY
    if isinstance(content, Content) and not content.text.strip():
        content = EMPTY
    if isinstance(content, Refusal):
        return content.reject(shard.source)
    return Document(source=shard.source, text=content.text, page_starts=content.page_starts)


def _must_exist(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(
            f'cannot read "{path}": {error.strerror}', hint="check the path; relative paths start at the working folder"
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SourceError(
            f'"{path}" is neither a file nor a folder', hint="save what it gives to a file: documents are read twice"
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; it becomes a shard with a problem


def _problem(path: Path) -> Refusal | None:
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error))
    # Opening a pipe or a device would wait for ever.
    return None if is_regular else Refusal(Reason.UNREADABLE, "not a regular file")


def _matches(names: tuple[str, ...], globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs for name in names)
