from __future__ import annotations

import random

import pytest

from katsuo.pipeline.similar import NearDuplicates

WORDS = [f"word{number}" for number in range(3000)]


def a_text(seed: int, length: int = 120) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def test_a_text_with_one_word_changed_is_a_near_duplicate() -> None:
    seen, words = NearDuplicates(0.8), a_text(1)
    assert not seen.is_duplicate(" ".join(words))
    assert seen.is_duplicate(" ".join([*words[:60], "changed", *words[61:]]))


def test_different_texts_are_not_duplicates() -> None:
    seen = NearDuplicates(0.8)
    assert sum(seen.is_duplicate(" ".join(a_text(seed))) for seed in range(300)) == 0


def test_case_and_punctuation_do_not_tell_texts_apart() -> None:
    seen = NearDuplicates(1.0)
    assert not seen.is_duplicate("The fee is due, today.")
    assert seen.is_duplicate("the fee is due today")
    assert not seen.is_duplicate("the fee is due tomorrow")


def test_scopes_keep_to_themselves() -> None:
    seen = NearDuplicates(0.8)
    assert not seen.is_duplicate("who signed the contract", scope="a")
    assert not seen.is_duplicate("who signed the contract", scope="b")
    assert seen.is_duplicate("who signed the contract", scope="a")


@pytest.mark.parametrize("similarity", [0.8, 1.0])
def test_texts_without_words_are_alike(similarity: float) -> None:
    seen = NearDuplicates(similarity)
    assert [seen.is_duplicate(text) for text in ("", "?!", "one")] == [False, True, False]


def test_nearby_texts_are_compared_within_their_run_of_one_scope() -> None:
    seen, words = NearDuplicates(0.8), a_text(1, 60)
    changed = " ".join([*words[:30], "changed", *words[31:]])
    assert not seen.is_repeated_nearby(" ".join(words), "a")
    assert seen.is_repeated_nearby(changed, "a")
    assert not seen.is_repeated_nearby(" ".join(a_text(2, 60)), "a")
    assert not seen.is_repeated_nearby(" ".join(words), "b")
