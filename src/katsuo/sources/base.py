"""What a source is: something that lists shards, reads one shard, and can tell when its content has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from katsuo.records import Document, Reason, Reject


@dataclass(frozen=True, slots=True)
class SourceShard:
    """
    One thing that can be read by itself: a file, a table or a split of a data set.

    `source` is the name that its documents carry, `path` is where it is read, `format` is the reader's name. A shard
    with a `problem` is known to be unreadable before it is opened; reading it gives the reject that says so.
    """

    source: str
    path: str
    format: str
    problem: Refusal | None = None


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source is told: its `address`, the `label` that its names begin with, and the recipe's filters."""

    address: str
    label: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    text_column: str = "text"


class Source(Protocol):
    """Text from one address."""

    def check(self) -> None:
        """Raise `SourceError` for what cannot work at all: no such path, nothing to read, no such column."""

    def list_shards(self) -> Iterator[SourceShard]:
        """Give the same shards in the same order every time; together they cover everything once."""
        ...

    def read(self, shard: SourceShard) -> Iterator[Document | Reject]:
        """Give each document of a shard, or the reject that stands in its place; bad content raises nothing."""
        ...

    def digest(self, shard: SourceShard) -> bytes:
        """Give bytes that change when the shard's content does."""
        ...


class Content(NamedTuple):
    """The text of one document; `page_starts` holds the char offset at which each page starts."""

    text: str
    page_starts: tuple[int, ...] = ()


class Refusal(NamedTuple):
    """Why some content gives no text: a reason from the one list, and the value that failed."""

    reason: Reason
    detail: str

    def reject(self, source: str) -> Reject:
        """Give the counted reject that names `source`."""
        return Reject(kind="document", reason=self.reason, source=source, detail=self.detail)


EMPTY = Refusal(Reason.EMPTY_DOCUMENT, "no text in it")
