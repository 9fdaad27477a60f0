"""Documents are set apart by their names alone."""

from __future__ import annotations

import pytest

from katsuo.errors import UsageError
from katsuo.export.split import choose_split, read_splits

SOURCES = [f"texts/{number}.txt" for number in range(4000)]


def test_shares_come_out_as_asked() -> None:
    chosen = [choose_split(source, {"test": 0.1, "validation": 0.2}) for source in SOURCES]
    assert chosen.count("test") / len(SOURCES) == pytest.approx(0.1, abs=0.02)
    assert chosen.count("validation") / len(SOURCES) == pytest.approx(0.2, abs=0.02)


def test_a_bigger_share_keeps_the_documents_of_the_smaller() -> None:
    small = {source for source in SOURCES if choose_split(source, {"test": 0.1}) == "test"}
    big = {source for source in SOURCES if choose_split(source, {"test": 0.2}) == "test"}
    assert small < big


def test_the_split_of_a_document_never_changes() -> None:
    assert [choose_split(f"{letter}.txt", {"test": 0.5}) == "test" for letter in "abcdef"] == IN_TEST


def test_words_are_read_as_names_and_shares() -> None:
    assert read_splits(["test=0.1", "validation=.05"]) == {"test": 0.1, "validation": 0.05}


@pytest.mark.parametrize("word", ["test", "test=", "test=a tenth"])
def test_a_word_that_is_no_split_is_wrong_use(word: str) -> None:
    with pytest.raises(UsageError, match="is not a split"):
        read_splits([word])


IN_TEST = [True, False, False, False, False, False]
