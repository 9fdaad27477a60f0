"""Draw examples by hash, balance their types and labels, and hold passages out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

from katsuo.errors import UsageError
from katsuo.records import Reason
from katsuo.train.encode import Encoded, Encoder, Ledger, Pair
from katsuo.train.recipes import Data, TrainRecipe

_TERMS = {"nc": "non-commercial", "unstated": "not stated"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one example lies, and what the draw goes by."""

    shard: int
    row: int
    task_type: str
    source: str
    passage: int
    order: int
    label: str = ""
    """What the answer stands for, where it is one of a few labels."""
    words: int | None = None
    """How many words the response has, where it may have any number of them."""


class Pairs(Protocol):
    """Pairs that lie somewhere: first where, then the texts of those that were drawn."""

    def places(self, seed: int) -> Iterator[Place]:
        """Give the place of every pair."""
        ...

    def pairs(self, places: Sequence[Place]) -> Iterator[Pair]:
        """Read the pairs at `places`, in that order."""
        ...


def allow(
    places: Iterable[Place], settings: Data, terms: Mapping[str, str], rejected: Counter[str] | None = None
) -> list[Place]:
    """
    Give the places that the settings do not leave out; `terms` are those of each source's licence.

    Where terms are excluded, so is a source whose terms nobody recorded. What is left out is counted in `rejected`.
    """
    rejected = Counter() if rejected is None else rejected
    refused = {_term(word) for word in settings.exclude_license}
    if settings.weights and settings.balance == "none":
        raise UsageError("data.weights needs data.balance", hint="set data.balance=types")
    allowed = []
    for place in places:
        its = terms.get(place.source, "not recorded")
        if refused and its in refused | {"not recorded"}:
            rejected[f"licence {its}"] += 1
        elif place.words is not None and place.words < settings.min_response_words:
            rejected[str(Reason.TOO_SHORT)] += 1
        elif settings.weights.get(place.task_type, 1.0) > 0:
            allowed.append(place)
    if not allowed:
        why = ", ".join(f"{count} left out: {reason}" for reason, count in rejected.items())
        hint = "relax data.exclude_license, or give a folder whose manifest.json names the terms of its sources"
        if Reason.TOO_SHORT in rejected:
            hint = "lower data.min_response_words"
        raise UsageError(f"no training pair is left{f' ({why})' if why else ''}", hint=hint)
    if unknown := set(settings.weights) - {place.task_type for place in allowed} - _left_out(settings.weights):
        raise UsageError(f'data.weights names "{min(unknown)}", of which there is no pair', hint="use full type names")
    return sorted(allowed, key=lambda place: place.order)


def hold_out(places: Sequence[Place], settings: Data) -> tuple[list[Place], list[Place]]:
    """
    Split into (held out, the rest) so that no passage stands in both.

    The mix of types is that of the training; of no type more than a fifth is held out.
    """
    count = min(settings.held_out, len(places) // 5)
    if not count:
        return [], list(places)
    open_places = Counter(
        place.task_type for place in draw(places, count, balance=settings.balance, weights=settings.weights)
    )
    there = Counter(place.task_type for place in places)
    quota = {name: min(wanted, max(1, there[name] // 5)) for name, wanted in open_places.items()}
    held_out: list[Place] = []
    passages: set[int] = set()
    for place in sorted(places, key=lambda place: (place.passage, place.order)):
        if quota.get(place.task_type, 0):
            quota[place.task_type] -= 1
            passages.add(place.passage)
            held_out.append(place)
    return held_out, [place for place in places if place.passage not in passages]


def draw(places: Sequence[Place], limit: int, *, balance: str, weights: Mapping[str, float]) -> list[Place]:
    """
    Take up to `limit` places in hash order; what a scarce type cannot give goes to the others.

    Under `labels`, so do the labels within a type; under `equal_labels` those beyond the rarest are left out first.
    """
    if balance == "none":
        return list(places[:limit])
    chosen: list[Place] = []
    by_type = _grouped(_levelled(places) if balance == "equal_labels" else places, "task_type")
    for name, count in _shares(by_type, limit, weights).items():
        by_label = _grouped(by_type[name], "task_type" if balance == "types" else "label")
        for label, share in _shares(by_label, count, {}).items():
            chosen += by_label[label][:share]
    return sorted(chosen, key=lambda place: place.order)


def _levelled(places: Iterable[Place]) -> list[Place]:
    """Leave out what a task type has more of one label than of its rarest, the last in hash order."""
    kept: list[Place] = []
    for of_type in _grouped(places, "task_type").values():
        by_label = _grouped(of_type, "label")
        least = min(len(group) for group in by_label.values())
        kept += [place for group in by_label.values() for place in group[:least]]
    return kept


def _grouped(places: Iterable[Place], by: str) -> dict[str, list[Place]]:
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        groups[getattr(place, by)].append(place)
    return groups


def _shares(groups: Mapping[str, Sequence[Place]], limit: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Fill the groups' shares like vessels of different heights under one tap."""
    there = {name: len(inside) for name, inside in groups.items()}
    taken: dict[str, int] = {}
    left = limit
    # The groups that can give least for their weight are filled first; each gets its share of what is left then.
    order = sorted(there, key=lambda name: (there[name] / weights.get(name, 1.0), name))
    for place, name in enumerate(order):
        weight = sum(weights.get(other, 1.0) for other in order[place:])
        taken[name] = min(there[name], round(left * weights.get(name, 1.0) / weight))
        left -= taken[name]
    return taken


def _left_out(weights: Mapping[str, float]) -> set[str]:
    return {name for name, weight in weights.items() if weight <= 0}


def count_types(places: Iterable[Place]) -> dict[str, int]:
    """Count examples by task type, the most frequent first."""
    return dict(Counter(place.task_type for place in places).most_common())


def _term(word: str) -> str:
    if word not in _TERMS:
        raise UsageError(f'"{word}" are no terms of a licence', hint=f"choose among: {', '.join(_TERMS)}")
    return _TERMS[word]


def draw_what_fits(
    source: Pairs, places: Sequence[Place], recipe: TrainRecipe, encoder: Encoder
) -> dict[Place, Encoded]:
    """Draw as many examples as the training can use; one that is too long gives its turn to the next of its kind."""
    wanted = [recipe.data.examples, recipe.max_steps * recipe.batch_size if recipe.max_steps else None, len(places)]
    limit = min(count for count in wanted if count is not None)
    encoded: dict[Place, Encoded | None] = {}
    while True:
        usable = [place for place in places if encoded.get(place, encoder) is not None]
        chosen = draw(usable, limit, balance=recipe.data.balance, weights=recipe.data.weights)
        fresh = [place for place in chosen if place not in encoded]
        if not fresh:
            if recipe.data.balance == "equal_labels":
                encoder.ledger.rejected[str(Reason.OVER_CAP)] += len(usable) - len(_levelled(usable))
            return {place: example for place in chosen if (example := encoded[place])}
        encoded |= dict(zip(fresh, encoder.encode(source.pairs(fresh)), strict=True))


def watch_what_fits(source: Pairs, places: Sequence[Place], encoder: Encoder) -> tuple[list[Encoded], Ledger]:
    """
    Give the held-out examples that fit, and the ledger of the training.

    One that is too long stands there as held out; nothing else about them does.
    """
    ledger = replace(encoder.ledger, rejected=Counter(encoder.ledger.rejected))
    watched = [example for example in encoder.encode(source.pairs(places)) if example]
    too_long = encoder.ledger.rejected - ledger.rejected
    ledger.rejected.update({f"{reason} (held out)": count for reason, count in too_long.items()})
    return watched, ledger


def hash_of(text: str) -> int:
    """Give a number of 64 bits that stands for a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
