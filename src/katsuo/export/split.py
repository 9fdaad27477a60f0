"""Which split a document belongs to, told from its name alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from katsuo.errors import UsageError

_HINT = "write `--split test=0.1`: a name and a share of the documents; what is left is train"


def choose_split(source: str, splits: Mapping[str, float]) -> str:
    """
    Give the split of a document: all its examples share it, so that no test document is trained on.

    A document keeps its split when the run grows, and however the others are named.
    """
    place = int.from_bytes(blake2b(source.encode(), digest_size=8, person=b"katsuo split").digest(), "big") / 2**64
    edge = 0.0
    for name, share in splits.items():
        edge += share
        if place < edge:
            return name
    return "train"


def check_splits(splits: Mapping[str, float]) -> None:
    """Raise `UsageError` for names and shares that cannot be."""
    for name, share in splits.items():
        if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name == "train":
            raise UsageError(f'"{name}" cannot name a split', hint=_HINT)
        if not 0 < share < 1:
            raise UsageError(f'a split cannot have the share "{share}"', hint=_HINT)
    if sum(splits.values()) >= 1:
        raise UsageError(f'shares of "{sum(splits.values()):g}" in all leave nothing for train', hint=_HINT)


def read_splits(words: Iterable[str]) -> dict[str, float]:
    """Read `name=share` words."""
    splits: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            splits[name] = float(share)
        except ValueError:
            raise UsageError(f'"{word}" is not a split', hint=_HINT) from None
    return splits
