"""Find and read text, shard by shard: files and folders, tables, data sets of the hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from katsuo.config import Recipe
from katsuo.errors import UsageError
from katsuo.places import is_known_scheme
from katsuo.records import Document, Reject
from katsuo.registry import Door, Registry
from katsuo.sources.base import Source, SourceSettings, SourceShard

SOURCES: Registry[Callable[[SourceSettings], Source]] = Registry(
    "sources",
    {
        "file": Door("katsuo.sources.files:FileSource", summary="a file, or every file under a folder"),
        "hf": Door("katsuo.sources.hub:HubSource", extra="hub", summary="a data set of the Hugging Face hub"),
        "url": Door(
            "katsuo.sources.remote:RemoteSource", extra="remote", summary="s3://, gs://: a file system of fsspec"
        ),
    },
)
"""Sources by the scheme of their address: `hf://owner/name`; an address without a scheme is a path."""


def open_sources(recipe: Recipe) -> list[Source]:
    """Give a checked source for each address in `recipe.documents`; raise what cannot work before anything is read."""
    return [source for _, source in _open(recipe)]


def iter_documents(recipe: Recipe) -> Iterator[Document | Reject]:
    """
    Give every document of the recipe, or the reject that stands in its place, in an order that never changes.

    What cannot work at all is raised by the call itself, before the first document.
    """
    shards = _shards(_open(recipe))
    return (document for source, shard in shards for document in source.read(shard))


def fingerprint(recipe: Recipe) -> str:
    """
    Give the SHA-256 of the names and contents of all input, streamed, so that a resumed run can tell what changed.

    Renaming, adding, removing or editing a file changes it; moving the whole tree or touching a file does not.
    """
    total = hashlib.sha256()
    for source, shard in _shards(_open(recipe)):
        name = shard.source.encode()
        total.update(len(name).to_bytes(8, "big") + name + source.digest(shard))
    return total.hexdigest()


def _open(recipe: Recipe) -> list[tuple[str, Source]]:
    if not recipe.documents:
        raise UsageError("no documents are given", hint="name files or folders, or hf://owner/name")
    addresses = _without_repeats(recipe.documents)
    opened = []
    for address, label in zip(addresses, _labels(addresses), strict=True):
        settings = SourceSettings(address, label, recipe.include, recipe.exclude, recipe.text_column)
        source = SOURCES.get(_name(address))(settings)
        source.check()
        opened.append((address, source))
    return opened


def _shards(opened: Sequence[tuple[str, Source]]) -> Iterator[tuple[Source, SourceShard]]:
    """Give every shard; a file that is named by itself is not read again with a folder that holds it."""
    places = [_place(address) for address, _ in opened]
    named = {place for place in places if os.path.isfile(place)}  # noqa: PTH113 - it never raises
    for place, (_, source) in zip(places, opened, strict=True):
        for shard in source.list_shards():
            if not named or place in named or os.path.realpath(shard.path) not in named:
                yield source, shard


def _without_repeats(addresses: Sequence[str]) -> list[str]:
    """Drop an address that stands twice, and a folder inside another one, so that no file is read twice."""
    kept: dict[str, str] = {}
    for address in addresses:
        kept.setdefault(_place(address), address)
    folders = [place for place in kept if os.path.isdir(place)]  # noqa: PTH112 - it never raises
    return [
        address
        for place, address in kept.items()
        if place not in folders or not any(place.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
    ]


def _scheme(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else "file"


def _name(address: str) -> str:
    """Give the name of the source that reads an address: its scheme, or `url` for one that only fsspec knows."""
    scheme = _scheme(address)
    return "url" if scheme not in SOURCES.names() and is_known_scheme(scheme) else scheme


def _place(address: str) -> str:
    """Give the real path of a file or folder, links resolved; another address stands for itself."""
    return os.path.realpath(Path(address).expanduser()) if _scheme(address) == "file" else address


def _labels(addresses: Sequence[str]) -> list[str]:
    """Give each address the shortest name that no other one has: the last part of its path, or more where needed."""
    paths = [None if _scheme(address) != "file" else _parts(address) for address in addresses]
    labels = []
    for address, path in zip(addresses, paths, strict=True):
        if path is None:
            labels.append(address)
            continue
        others = [other for other in paths if other is not None and other is not path]
        count = 1
        while count < len(path) and any(other[-count:] == path[-count:] for other in others):
            count += 1
        labels.append("/".join(path[-count:]))
    return labels


def _parts(address: str) -> tuple[str, ...]:
    path = Path(os.path.abspath(Path(address).expanduser()))  # noqa: PTH100 - a link keeps the name it was given by
    return tuple(part for part in path.parts if part != path.anchor) or (path.anchor,)


__all__ = ["SOURCES", "Source", "SourceSettings", "SourceShard", "fingerprint", "iter_documents", "open_sources"]
