"""
The answers on disk: one SQLite file, written in WAL mode so that runs can share it.

    ANSWERS/answers-1/0001.sqlite     key → answer, with a checksum over both and the time of its last use
    ANSWERS/answers-1/0001.damaged    a file that was not what it should be; nothing reads it again

The 1 in the folder's name is the format: another version of katsuo with another format has a folder of its own.

A damaged file's name is never used again: SQLite finds a write-ahead log by name when it is first needed, and a process
that has just opened the damaged file would take up, and write into, the log of its successor.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from katsuo.config import answers_dir
from katsuo.errors import KatsuoWarning, StoreError
from katsuo.records import Completion

MAX_BYTES = 2**30
"""From this size on, the answers that were not used for longest make room; about 3 million answers of a line or two."""
_FORMAT = 1
_WAIT_S = 60.0
_KEYS_PER_QUERY = 500
_FRESH_S = 86_400
"""The time of last use is written once a day at most: a look-up should not be a write."""
_TABLE = "CREATE TABLE answers (key BLOB PRIMARY KEY, value BLOB, checksum BLOB, used INTEGER) WITHOUT ROWID"
_TRIES = 3
_WRITTEN_BY, _WAL = 18, 2
"""The byte of SQLite's header that says who may write the file, and its value with a write-ahead log."""

T = TypeVar("T")


class _DamagedError(Exception):
    """The file opens, but holds something that katsuo never wrote."""


@dataclass(frozen=True)
class CacheStats:
    """What the cache holds: `size` and `limit` in bytes, `set_aside` the damaged files that lie beside it."""

    folder: str
    answers: int
    size: int
    limit: int
    set_aside: int
    set_aside_size: int


class AnswerCache:
    """
    Look answers up and keep new ones; for one thread.

    A file that is damaged is renamed and a new one begun, with a `KatsuoWarning`; an answer whose checksum is wrong
    counts as damage to the whole. Raise `StoreError` where the folder cannot be read or written.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder or answers_dir() / f"answers-{_FORMAT}"
        self._max_bytes = max_bytes
        self._open: sqlite3.Connection | None = None
        self._path = self.folder
        self.not_taken: set[str] = set()
        """What was asked for and the answers found up to now do not follow; see `ModelInfo.not_taken`."""

    def get(self, keys: Sequence[bytes]) -> list[Completion | None]:
        """Give one answer per key, in order, None for a key that has none."""
        found = self._attempt(lambda connection: _read(connection, keys))
        self.not_taken.update(*(not_taken for _, not_taken in found.values()))
        return [found[key][0] if key in found else None for key in keys]

    def put(self, answers: Mapping[bytes, Completion], not_taken: Sequence[str] = ()) -> None:
        """Keep answers, with what they do not follow: all are on disk when this returns, or none."""
        now = int(time.time())
        rows = [(key, value := _pack(answer, not_taken), _checksum(key, value), now) for key, answer in answers.items()]

        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
            self._make_room(connection)

        if rows:
            self._attempt(write)

    def stats(self) -> CacheStats:
        """Count what is there."""
        answers, size = self._attempt(lambda connection: (_count(connection), _used_bytes(connection)))
        aside = list(self.folder.glob("*.damaged*"))
        return CacheStats(
            folder=str(self.folder),
            answers=answers,
            size=size,
            limit=self._max_bytes,
            set_aside=sum(path.suffix == ".damaged" for path in aside),
            set_aside_size=sum(path.stat().st_size for path in aside),
        )

    def clear(self) -> int:
        """Forget every answer and delete damaged files; give the number of answers forgotten. Runs may go on."""

        def forget(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                count = _count(connection)
                connection.execute("DELETE FROM answers")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return count

        count = self._attempt(forget)
        with _translated(self.folder):
            for path in self.folder.glob("[0-9]*.*"):
                if not path.name.startswith(self._path.name):
                    path.unlink()
        return count

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        if self._open:
            self._open.close()
            self._open = None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on the file; should it turn out damaged, set it aside and do it on a new one."""
        for _ in range(_TRIES):
            with _translated(self.folder):
                try:
                    return work(self._open or self._connect())
                except (sqlite3.DatabaseError, UnicodeDecodeError, _DamagedError) as error:
                    if _is_damage(error, self._path):
                        self._set_aside(error)
                    elif self._path.exists():
                        raise  # locked, full or not writable: the file is sound, and setting it aside would help nobody
                    else:
                        self.close()  # another process has set it aside
        raise StoreError(
            f'the cache in "{self.folder}" was damaged {_TRIES} times in a row',
            hint="check the disk; `--no-cache` goes on without a cache",
        )

    def _connect(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what was written of private text is private
        self._path = _current(self.folder)
        # One thread at a time uses it, but the garbage collector may close it in another.
        connection = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        connection.text_factory = bytes  # a flipped bit makes text that is none
        self._open = connection
        weakref.finalize(self, connection.close)
        _prepare(connection)
        return connection

    def _set_aside(self, error: Exception) -> None:
        self.close()
        damaged = self._path.with_suffix(".damaged")
        try:
            self._path.rename(damaged)
        except FileNotFoundError:
            return  # another process was quicker
        for suffix in ("-wal", "-shm"):
            if (beside := Path(f"{self._path}{suffix}")).exists():
                beside.rename(f"{damaged}{suffix}")
        warnings.warn(
            KatsuoWarning(
                f'the cache "{self._path}" is damaged ({error}): it is set aside as "{damaged.name}", a new one begun',
                hint="nothing is lost but the answers in it, which are asked again; `katsuo cache clear` deletes it",
            ),
            stacklevel=2,
        )

    def _make_room(self, connection: sqlite3.Connection) -> None:
        used = _used_bytes(connection)
        if used <= self._max_bytes:
            return
        surplus = 1 - 0.9 * self._max_bytes / used
        with _transaction(connection):
            oldest = "SELECT key FROM answers ORDER BY used LIMIT ?"
            count = max(1, int(_count(connection) * surplus))
            connection.execute(f"DELETE FROM answers WHERE key IN ({oldest})", (count,))  # noqa: S608


def _is_damage(error: Exception, path: Path) -> bool:
    """Tell damage from a sound file that cannot be used now; SQLite quotes words of a file that may be no text."""
    if not isinstance(error, sqlite3.OperationalError) or "unsupported file format" in str(error):
        return True
    if "readonly database" not in str(error):
        return False
    # SQLite takes a file for one of a later version, which it may read alone, by a number that is 2 in ours. Looked at
    # only now: closing a file gives up the locks that the process has on it.
    try:
        with path.open("rb") as file:
            header = file.read(_WRITTEN_BY + 1)
    except FileNotFoundError:
        return False  # another process has set it aside
    return len(header) > _WRITTEN_BY and header[_WRITTEN_BY] > _WAL


def _current(folder: Path) -> Path:
    """Give the file that is in use: the newest sound one, else a name that was never used."""
    sound, damaged = (
        max((int(path.stem) for path in folder.glob(f"*.{kind}") if path.stem.isdecimal()), default=0)
        for kind in ("sqlite", "damaged")
    )
    return folder / f"{sound if sound > damaged else damaged + 1:04d}.sqlite"


def _prepare(connection: sqlite3.Connection) -> None:
    """Set the file up if it is new, and make sure that it is of our making if it is not."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait for its turn here, whatever the timeout says.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")
    with _transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")]
        if version == 0 and not tables:
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        elif (version, tables) != (_FORMAT, [_TABLE.encode()]):
            raise _DamagedError("it is not a file of katsuo's making")


def _read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[Completion, list[str]]]:
    found: dict[bytes, tuple[Completion, list[str]]] = {}
    stale: list[tuple[int, bytes]] = []
    now = int(time.time())
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        piece = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(piece))
        query = f"SELECT key, value, checksum, used FROM answers WHERE key IN ({marks})"  # noqa: S608
        for key, value, checksum, used in connection.execute(query, piece):
            if not isinstance(value, bytes) or checksum != _checksum(key, value):
                raise _DamagedError("an answer does not fit its checksum")
            if not isinstance(used, int):
                raise _DamagedError("an answer's last use is no time")
            found[key] = _unpack(value)
            if now - used > _FRESH_S:
                stale.append((now, key))
    if stale:
        with _transaction(connection):
            connection.executemany("UPDATE answers SET used = ? WHERE key = ?", stale)
    return found


def _pack(answer: Completion, not_taken: Sequence[str]) -> bytes:
    """Write an answer as JSON; what it does not follow takes room only where there is any."""
    told = [list(not_taken)] if not_taken else []
    return json.dumps([answer.text, answer.finish, answer.new_tokens, *told]).encode()


def _unpack(value: bytes) -> tuple[Completion, list[str]]:
    text, finish, new_tokens, *told = json.loads(value)
    return Completion(text, finish, new_tokens), told[0] if told else []


def _checksum(key: bytes, value: bytes) -> bytes:
    return blake2b(key + value, digest_size=8).digest()


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM answers").fetchone()
    return int(count)


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back by itself; a second rollback would hide the reason.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if error.errno == errno.ENOSPC if isinstance(error, OSError) else "disk is full" in str(error):
            raise StoreError(
                f'no space left on the disk while writing the cache in "{folder}"',
                hint="free some space, or run `katsuo cache clear`, and give the same command again",
            ) from error
        raise StoreError(
            f'cannot use the cache in "{folder}": {error}',
            hint="set KATSUO_CACHE to a local folder that you may write to, or KATSUO_ANSWERS for the answers alone, "
            "or add `--no-cache`",
        ) from error
