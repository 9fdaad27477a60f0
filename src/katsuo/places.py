"""Where files lie: on this machine, or behind a URL of any file system that fsspec knows."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from katsuo.errors import KatsuoError, MissingPackageError, StoreError, UsageError

if TYPE_CHECKING:
    from upath import UPath

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
"""
One slash is enough: `Path("s3://bucket/run")` keeps one of the two. One letter is a drive of Windows. Schemes are
case-insensitive (RFC 3986, section 3.1).
"""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_LISTINGS_FROM_MEMORY = {*_EXTRAS, "az", "abfs", "abfss"}


def place(address: str | Path | UPath) -> Path:
    """
    Give the path of a file or folder; that of a URL is a `UPath`, which is used as any `Path`.

    Raise `UsageError` for a scheme that nothing knows and `MissingPackageError` for one whose package is missing.

    >>> place("runs/contracts")
    PosixPath('runs/contracts')
    """
    if not isinstance(address, str | Path):
        return cast(Path, address)  # a path of a URL already
    found = _URL.fullmatch(str(address))
    if found is None:
        return Path(address)
    scheme = found["scheme"].lower()
    _check(scheme)
    from upath import UPath

    # What another process has written since the last look is to be seen.
    fresh: Any = {"use_listings_cache": False} if scheme in _LISTINGS_FROM_MEMORY else {}
    return cast(Path, UPath(f"{scheme}://{found['rest'].removeprefix('/')}", **fresh))


def is_url(path: Path) -> bool:
    """Say whether a path is one behind a URL."""
    return not isinstance(path, Path)


def place_here(address: str | Path | UPath, what: str) -> Path:
    """Give the path of a file or folder that is to lie on this machine; raise `UsageError` for a URL."""
    path = place(address)
    if is_url(path):
        raise UsageError(f'{what} is not written to "{path}"', hint="give a folder of this machine with -o")
    return path


def is_there(path: Path) -> bool:
    """Say whether a file or folder is there; raise `OSError` where that cannot be found out."""
    if not is_url(path):
        return path.exists()
    there = cast("UPath", path)
    try:
        with reaching(path):
            # `exists` takes a store that does not answer for one without the file.
            there.fs.info(there.path)
    except FileNotFoundError:
        return False
    return True


def is_known_scheme(scheme: str) -> bool:
    """Say whether fsspec knows the scheme of a URL; without fsspec, whether it is one of the usual ones."""
    try:
        from fsspec import available_protocols
    except ModuleNotFoundError:
        return scheme in _EXTRAS
    return scheme in available_protocols()


def upload(file: Path, path: Path) -> None:
    """Send a local file behind a URL; raise `OSError`. In an object store it appears whole or not at all."""
    there = cast("UPath", path)
    with reaching(path):
        there.fs.put_file(str(file), there.path)


def list_files(root: Path) -> list[tuple[str, str]]:
    """
    List the files below a URL, or the one that it names, by name: the name below `root`, and what tells a change.

    Names of hidden files and folders are left out. What tells a change is what the store says: size, checksum or time.
    """
    there = cast("UPath", root)
    with reaching(root):
        found: dict[str, dict[str, Any]] = there.fs.find(there.path, detail=True)
    top = there.path.rstrip("/")
    names = {path[len(top) :].lstrip("/"): info for path, info in found.items()}
    seen = {name: info for name, info in names.items() if not any(part[:1] == "." for part in name.split("/"))}
    return [(name, _state(info)) for name, info in sorted(seen.items())]


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn what the clients of file systems raise (credentials, network) into `OSError`, as a disk would have it."""
    try:
        yield
    except (OSError, KatsuoError):
        raise
    except Exception as error:
        if not is_url(path):
            raise
        raise OSError(f'cannot reach "{path}": {error}') from error


@contextmanager
def held_alone(folder: Path) -> Iterator[bool]:
    """
    Lock a folder against other processes of this machine that ask for it; give whether it was free.

    The lock ends with the process, however that ends. Behind a URL, on a file system without locks and on Windows
    nothing is locked.
    """
    if fcntl is None or is_url(folder):
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # this file system has no locks
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """
    Give a path to write to; when all went well it is flushed to disk and renamed into its place, or sent there.

    Raise `StoreError` where it cannot be written.
    """
    with _translated(path, "write"):
        if is_url(path):
            with TemporaryDirectory(prefix="katsuo-") as folder:
                yield (sent := Path(folder) / path.name)
                upload(sent, path)
            return
        partial = path.with_name(path.name + ".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Write an object, whole; raise `StoreError`."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """Read an object; raise `StoreError` with `hint`."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f'cannot read "{path}": {error}', hint=hint) from error
    return told


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `StoreError` where a disk, or what a URL leads to, cannot be read."""
    with _translated(path, "read"), reaching(path):
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `StoreError` where a disk, or what a URL leads to, cannot be written."""
    with _translated(path, "write"), reaching(path):
        yield


@contextmanager
def _translated(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(
                f'no space left on the disk while writing "{path}"',
                hint="free some space and give the same command again: finished shards are kept",
            ) from error
        raise StoreError(
            f'cannot {verb} "{path}": {error.strerror or error}',
            hint="check the address, the credentials in the environment and the network"
            if is_url(path)
            else "check the folder's permissions",
        ) from error


def _state(info: dict[str, Any]) -> str:
    told = ("size", "ETag", "etag", "md5Hash", "crc32c", "LastModified", "last_modified", "updated", "mtime", "created")
    checksum = next((info[name] for name in ("ETag", "etag", "md5Hash", "crc32c") if info.get(name)), None)
    # A checksum stays the same when equal content is sent again; a time does not.
    return repr((info.get("size"), checksum) if checksum else [(name, info.get(name)) for name in told])


def _check(scheme: str) -> None:
    extra = _EXTRAS.get(scheme, "remote")
    try:
        import upath
        from fsspec import get_filesystem_class
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'"{scheme}://" needs the package "{error.name}", which is not installed',
            hint=f"pip install 'katsuo[{extra}]'",
        ) from error
    del upath
    if not is_known_scheme(scheme):
        raise UsageError(
            f'no file system is called "{scheme}"', hint="s3://, gs://, az://, hdfs:// and others are known"
        )
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        hint = f"pip install 'katsuo[{extra}]'" if extra != "remote" else "install the package that it names"
        raise MissingPackageError(f'"{scheme}://" cannot be opened: {error}', hint=hint) from error
