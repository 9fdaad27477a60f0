"""Draw tokens so that a row's draws depend on its seed and its own logits, never on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray

CANDIDATES = 64
"""The nucleus is looked for among this many tokens first; sorting a whole vocabulary costs as much as the model."""

Numbers = NDArray[numpy.uint64]


@dataclass(frozen=True, slots=True)
class Draw:
    """One row's next draw: its seed, how many tokens it has drawn, and its temperature (0 takes the likeliest)."""

    seed: int
    step: int
    temperature: float


def sample(logits: torch.Tensor, draws: Sequence[Draw], top_p: float) -> list[int]:
    """
    Draw one token a row out of the nucleus: the likeliest tokens whose probabilities reach `top_p` together.

    `logits` has shape (rows, vocabulary); tokens at minus infinity are never drawn. A draw is the highest of the logits
    after adding noise that is a pure function of seed, step and token (Gumbel-max), so a small change of the logits
    changes a draw only where two tokens come out almost equal.
    """
    tokens, is_whole = _sample_among(logits, draws, top_p, min(CANDIDATES, logits.shape[-1]))
    wide = [row for row, whole in enumerate(is_whole) if not whole]
    if wide:
        redrawn, _ = _sample_among(logits[wide], [draws[row] for row in wide], top_p, logits.shape[-1])
        for row, token in zip(wide, redrawn, strict=True):
            tokens[row] = token
    return tokens


def _sample_among(
    logits: torch.Tensor, draws: Sequence[Draw], top_p: float, count: int
) -> tuple[list[int], list[bool]]:
    """Draw among the `count` likeliest tokens; say for each row whether the nucleus lies within them."""
    temperatures = torch.tensor([draw.temperature for draw in draws], device=logits.device)
    is_greedy = temperatures == 0
    scale = torch.where(is_greedy, 1.0, 1.0 / temperatures.clamp(min=1e-4))[:, None]
    values, tokens = logits.topk(count, dim=-1)
    highest = values[:, :1].float()
    total = (logits.float() - highest).mul_(scale).exp_().sum(-1, keepdim=True)
    scores = (values.float() - highest) * scale
    before = (scores.exp() / total).cumsum(-1)
    is_whole = is_greedy | (before[:, -1] >= top_p) | (count == logits.shape[-1])
    before = before.roll(1, dims=-1)
    before[:, 0] = 0.0
    scores = scores.masked_fill(before >= top_p, float("-inf"))
    noise = torch.from_numpy(_gumbel(tokens.cpu().numpy(), draws)).to(scores)
    scores = torch.where(is_greedy[:, None], scores, scores + noise)
    return _argmax(scores, tokens), is_whole.tolist()


def _argmax(scores: torch.Tensor, tokens: torch.Tensor) -> list[int]:
    """Take the token of the highest score, and of equal ones that of the lowest id: 16-bit logits are often equal."""
    beyond = torch.iinfo(tokens.dtype).max
    drawn: list[int] = tokens.masked_fill(scores < scores.amax(-1, keepdim=True), beyond).amin(-1).tolist()
    return drawn


def _gumbel(tokens: NDArray[numpy.int64], draws: Sequence[Draw]) -> NDArray[numpy.float32]:
    seeds = numpy.array([draw.seed % 2**64 for draw in draws], dtype=numpy.uint64)[:, None]
    steps = numpy.array([draw.step for draw in draws], dtype=numpy.uint64)[:, None]
    bits = _scramble(_scramble(_scramble(seeds) ^ steps) ^ tokens.astype(numpy.uint64))
    uniform = ((bits >> numpy.uint64(11)).astype(numpy.float64) + 0.5) * 2.0**-53
    noise: NDArray[numpy.float32] = (-numpy.log(-numpy.log(uniform))).astype(numpy.float32)
    return noise


def _scramble(values: Numbers) -> Numbers:
    """Map each number to one that looks random (the output function of SplitMix64, Steele et al. 2014)."""
    with numpy.errstate(over="ignore"):
        values = values + numpy.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        scrambled: Numbers = values ^ (values >> numpy.uint64(31))
        return scrambled
