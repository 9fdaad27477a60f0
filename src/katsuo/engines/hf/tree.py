"""Sequences that begin alike, as one tree: what they share is read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from katsuo.engines.hf.memory import Tokens, shared_length

SMALLEST_SHARE = 0.25
"""Share of a sequence that it must have in common with the one before it to be read in the same tree."""

Flags = NDArray[numpy.bool_]


@dataclass(frozen=True, eq=False)
class Path:
    """One prompt with one answer; the tokens from `start` on are scored."""

    tokens: Tokens
    start: int
    place: int
    """Where the caller keeps its score."""


@dataclass(frozen=True, eq=False)
class Tree:
    """
    The tokens of several paths, each shared token once, in an order in which those that score others stand last.

    `sees[query, key]` is true where `key` stands on the way from the root to `query`, itself included. `marks` are
    (node, token, place): the logits at `node` give the log-probability of `token`, which counts for `place`. The last
    token of a path scores nothing and is no node.
    """

    tokens: Tokens
    depths: Tokens
    sees: Flags
    marks: Tokens
    scoring: int
    """How many nodes, counted from the end, have to give logits."""

    def __len__(self) -> int:
        return len(self.tokens)


def grow(paths: Sequence[Path]) -> Tree:
    """Make one tree of `paths`."""
    walks = _walks(sorted(paths, key=_letters))
    tokens = numpy.concatenate([walk.new for walk in walks])
    depths = numpy.concatenate([walk.depths for walk in walks])
    sees = numpy.zeros((len(tokens), len(tokens)), dtype=bool)
    marks: list[tuple[int, int, int]] = []
    for walk in walks:
        nodes, first = walk.nodes, len(walk.nodes) - len(walk.new)
        steps = numpy.arange(len(nodes))
        sees[numpy.ix_(nodes[first:], nodes)] = steps[None, :] <= steps[first:, None]
        path = walk.path
        marks += [(nodes[step - 1], path.tokens[step], path.place) for step in range(path.start, len(path.tokens))]
    marked = numpy.array(marks, dtype=numpy.int64)
    scores = numpy.zeros(len(tokens), dtype=bool)
    scores[marked[:, 0]] = True
    order = numpy.argsort(scores, kind="stable")
    marked[:, 0] = numpy.argsort(order)[marked[:, 0]]
    return Tree(tokens[order], depths[order], sees[numpy.ix_(order, order)], marked, int(scores.sum()))


def part(paths: Iterable[Path], largest: int) -> Iterator[list[Path]]:
    """
    Part paths into groups for one tree each: neighbours in the order of their tokens that begin alike.

    A tree has at most `largest` nodes, unless one question alone needs more; its answers are never parted.
    """
    group: list[Path] = []
    size = 0
    for path in sorted(paths, key=_letters):
        shared = shared_length(path.tokens, group[-1].tokens) if group else 0
        added = len(path.tokens) - 1 - shared
        is_answer = bool(group) and shared >= max(path.start, group[-1].start)
        if group and not is_answer and (shared < SMALLEST_SHARE * len(path.tokens) or size + added > largest):
            yield group
            group, size, added = [], 0, len(path.tokens) - 1
        group.append(path)
        size += max(added, 0)
    if group:
        yield group


@dataclass(frozen=True, eq=False)
class _Walk:
    """A path through the tree: its nodes from the root on, of which the last ones are new."""

    path: Path
    nodes: Tokens
    new: Tokens
    depths: Tokens


def _walks(paths: Sequence[Path]) -> list[_Walk]:
    walks: list[_Walk] = []
    count = 0
    for path in paths:
        read = path.tokens[:-1]
        before = walks[-1] if walks else None
        shared = shared_length(read, before.path.tokens[:-1]) if before else 0
        new = numpy.arange(count, count + len(read) - shared)
        nodes = numpy.concatenate([before.nodes[:shared], new]) if before else new
        walks.append(_Walk(path, nodes, read[shared:], numpy.arange(shared, len(read))))
        count += len(new)
    return walks


def _letters(path: Path) -> bytes:
    """Give bytes that sort as the tokens do."""
    return path.tokens.astype(">u4").tobytes()
