"""The sampler: it draws from the nucleus, in the right shares, and only the seed, the step and the logits matter."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from katsuo.engines.hf import sample as hf_sample
from katsuo.engines.hf.sample import Draw, sample

SHARES = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])


def draw_many(
    logits: torch.Tensor, *, temperature: float = 1.0, top_p: float = 1.0, count: int = 20_000
) -> Counter[int]:
    draws = [Draw(seed, 3, temperature) for seed in range(count)]
    return Counter(sample(logits.expand(count, -1), draws, top_p))


def test_shares_are_those_of_the_logits():
    counts = draw_many(SHARES.log())
    for token, share in enumerate(SHARES.tolist()):
        assert counts[token] / 20_000 == pytest.approx(share, abs=0.015)


def test_temperature_sharpens():
    counts = draw_many(SHARES.log(), temperature=0.5)
    sharper = SHARES**2 / (SHARES**2).sum()
    assert counts[0] / 20_000 == pytest.approx(sharper[0].item(), abs=0.015)


def test_nothing_outside_the_nucleus_is_drawn_and_the_token_that_crosses_it_is_inside():
    assert set(draw_many(SHARES.log(), top_p=0.8)) == {0, 1, 2}


def test_a_nucleus_wider_than_the_first_candidates_is_found(monkeypatch):
    logits = torch.zeros(200)
    wide = draw_many(logits, top_p=0.95, count=5000)
    assert len(wide) > 180
    monkeypatch.setattr(hf_sample, "CANDIDATES", 200)
    assert draw_many(logits, top_p=0.95, count=5000) == wide


def test_temperature_zero_takes_the_likeliest_and_of_equals_the_lowest_id():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]]).bfloat16()
    assert {sample(logits, [Draw(seed, 0, 0.0)], 0.9)[0] for seed in range(20)} == {1}


def test_forbidden_tokens_are_never_drawn():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 0.0])
    assert set(draw_many(logits, top_p=0.95, count=500)) == {1, 3}


def test_a_draw_depends_on_its_own_row_alone():
    torch.manual_seed(0)
    logits = torch.randn(6, 300) * 3
    draws = [Draw(seed, seed * 2, 0.8) for seed in range(6)]
    together = sample(logits, draws, 0.95)
    assert together == [sample(logits[row : row + 1], [draws[row]], 0.95)[0] for row in range(6)]


def test_steps_and_seeds_draw_independently():
    logits = SHARES.log().expand(1000, -1)
    by_seed = sample(logits, [Draw(seed, 0, 1.0) for seed in range(1000)], 1.0)
    by_step = sample(logits, [Draw(0, step, 1.0) for step in range(1000)], 1.0)
    agreement = sum(one == other for one, other in zip(by_seed, by_step, strict=True)) / 1000
    assert agreement == pytest.approx((SHARES**2).sum().item(), abs=0.06)


def test_large_and_negative_seeds_are_fine():
    assert sample(SHARES.log()[None], [Draw(2**63 - 1, 0, 1.0)], 1.0)[0] in range(5)
    assert sample(SHARES.log()[None], [Draw(-5, 0, 1.0)], 1.0)[0] in range(5)


def test_tiny_changes_of_the_logits_change_few_draws():
    torch.manual_seed(0)
    logits = torch.randn(2000, 300) * 3
    draws = [Draw(seed, 0, 0.7) for seed in range(2000)]
    before, after = sample(logits, draws, 0.95), sample(logits + torch.randn_like(logits) * 1e-3, draws, 0.95)
    assert sum(one != other for one, other in zip(before, after, strict=True)) < 20
