"""The verdict as a sentence: how much better, than what, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

METRIC_NAMES = {"macro_f1": "macro F1", "accuracy": "accuracy", "f1": "F1", "exact_match": "exact match"}


@dataclass(frozen=True)
class Claim:
    """One comparison in numbers: against what, by how much, from where to where, on how many items."""

    baseline: str
    difference: float
    low: float
    high: float
    items: int
    metric: str = "macro_f1"

    @property
    def is_significant(self) -> bool:
        """True when the interval excludes zero."""
        return self.low > 0 or self.high < 0


def verdict(claims: Sequence[Claim], *, forgetting: Claim | None = None, warnings: Sequence[str] = ()) -> str:
    """
    Say what the claims come to; the first one carries its interval and the number of items.

    >>> verdict([Claim("zero-shot", 12.31, 8.1, 16.4, 500), Claim("self-supervision", 14.0, 9.0, 19.0, 500)])
    '+12.3 macro F1 over zero-shot (95 % 8.1 to 16.4, n = 500), +14.0 over self-supervision'
    """
    if not claims:
        return "; ".join(["nothing to compare with", *warnings])
    first, *others = claims
    parts = [_first(first), *(_other(claim, first) for claim in others)]
    text = ", ".join(parts)
    if forgetting:
        text += f"; {forgetting.baseline} {_signed(forgetting.difference)}{_doubt(forgetting)}"
    return "; ".join([text, *warnings])


def _first(claim: Claim) -> str:
    interval = f"95 % {_plain(claim.low)} to {_plain(claim.high)}, n = {claim.items:,}"
    doubt = "" if claim.is_significant else ", not significant"
    return f"{_signed(claim.difference)} {_metric(claim)} over {claim.baseline} ({interval}{doubt})"


def _other(claim: Claim, first: Claim) -> str:
    metric = "" if claim.metric == first.metric else f" {_metric(claim)}"
    return f"{_signed(claim.difference)}{metric} over {claim.baseline}{_doubt(claim)}"


def _metric(claim: Claim) -> str:
    return METRIC_NAMES.get(claim.metric, claim.metric)


def _doubt(claim: Claim) -> str:
    return "" if claim.is_significant else " (not significant)"


def _signed(value: float) -> str:
    shown = f"{abs(value):.1f}"
    return shown if shown == "0.0" else ("+" if value > 0 else "−") + shown


def _plain(value: float) -> str:
    return _signed(value).removeprefix("+")
