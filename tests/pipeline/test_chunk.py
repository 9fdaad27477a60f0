"""Passages: what they promise about any text, and where they are cut."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katsuo.errors import RecipeError
from katsuo.pipeline.chunk import approximate_tokens, chunk, passage_id
from katsuo.records import Document

TOKEN = re.compile(r"\w{1,4}|\s|[^\w\s]")


def count_words(texts):
    """Tokens of at most four letters, white space and signs: uneven, like a real tokenizer's."""
    return [len(TOKEN.findall(text)) for text in texts]


def count_bytes(texts):
    return [len(text.encode()) for text in texts]


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
PROSE = st.lists(
    st.sampled_from(
        ["Tuna is dried. ", "Is it? ", "long" * 30, "\n", "\n\n\n", "\t", "  ", "x, y; z ", "“quoted” ", "鰹節。", "é́"]
    ),
    max_size=60,
).map("".join)


def check_promises(text, passages, *, size, overlap, count_tokens):
    position = previous = 0
    for number, passage in enumerate(passages):
        assert text[passage.char_start : passage.char_end] == passage.text
        assert passage.text == passage.text.strip() != ""
        assert count_tokens((passage.text,))[0] <= size
        if overlap == 0:
            assert passage.char_start >= position, "no character stands in two passages"
        assert not text[position : max(position, passage.char_start)].strip(), "no character is lost"
        repeated = text[passage.char_start : position].rstrip()
        assert count_tokens((repeated,))[0] <= overlap
        assert number == 0 or passage.char_start > previous
        position, previous = passage.char_end, passage.char_start
    assert not text[position:].strip(), "no character is lost at the end"


@settings(deadline=None, max_examples=150)
@given(text=ANY_TEXT | PROSE, size=st.integers(16, 40), overlap=st.integers(0, 8))
def test_passages_fit_cover_every_character_and_know_their_place(text, size, overlap):
    document = Document("a.txt", text)
    for count_tokens in (count_words, count_bytes):
        passages = chunk(document, count_tokens=count_tokens, size=size, overlap=overlap)
        check_promises(text, passages, size=size, overlap=overlap, count_tokens=count_tokens)


@settings(deadline=None, max_examples=20)
@given(text=PROSE, times=st.integers(2, 30))
def test_the_promises_hold_across_windows(text, times):
    long = text * times
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("katsuo.pipeline.chunk._WINDOW_CHARS", 100)
        patch.setattr("katsuo.pipeline.chunk._CHARS_PER_TOKEN", 4)
        passages = chunk(Document("a.txt", long), count_tokens=count_words, size=20)
    check_promises(long, passages, size=20, overlap=0, count_tokens=count_words)


def test_windows_leave_no_mark_on_prose():
    text = "\n\n".join(f"Paragraph {number} has a few words. And one more sentence." for number in range(300))
    document = Document("a.txt", text)
    whole = chunk(document, count_tokens=count_words, size=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("katsuo.pipeline.chunk._WINDOW_CHARS", 1000)
        patch.setattr("katsuo.pipeline.chunk._CHARS_PER_TOKEN", 1)
        assert chunk(document, count_tokens=count_words, size=60) == whole


def test_a_document_that_fits_is_one_passage_and_is_counted_once():
    calls = []

    def count_tokens(texts):
        calls.append(texts)
        return [1]

    [passage] = chunk(Document("a.txt", "\n  Short.  \n"), count_tokens=count_tokens, size=16)
    assert (passage.text, passage.char_start, passage.char_end) == ("Short.", 3, 9)
    assert calls == [("Short.",)]


def test_a_document_without_text_has_no_passages():
    assert chunk(Document("a.txt", " \n\t "), count_tokens=count_words, size=16) == []


def test_cuts_fall_between_paragraphs_then_between_sentences():
    sentence = "The tuna is cut, boiled and smoked over oak. "
    paragraphs = [(sentence * count).strip() for count in (2, 1, 5)]
    text = "\n\n".join(paragraphs)
    passages = chunk(Document("a.txt", text), count_tokens=count_words, size=100)
    assert passages[0].text == "\n\n".join(paragraphs[:2])
    assert all(passage.text.endswith("oak.") and passage.text.startswith("The") for passage in passages)
    assert len(passages) == 3


def test_overlap_repeats_whole_sentences():
    text = " ".join(f"Sentence {number} is here." for number in range(40))
    passages = chunk(Document("a.txt", text), count_tokens=count_words, size=60, overlap=15)
    for before, after in pairwise(passages):
        repeated = text[after.char_start : before.char_end]
        assert re.fullmatch(r"Sentence \d+ is here\.", repeated)


def test_a_long_sentence_overlaps_by_words():
    text = "word " * 200
    passages = chunk(Document("a.txt", text), count_tokens=count_words, size=40, overlap=10)
    assert all(text[b.char_start : a.char_end] == "word word word word word" for a, b in pairwise(passages))


def test_an_overlap_of_more_than_half_is_refused_with_the_setting_that_helps():
    with pytest.raises(RecipeError, match=r"chunk.overlap") as caught:
        chunk(Document("a.txt", "x"), count_tokens=count_words, size=16, overlap=9)
    assert "quarter" in caught.value.hint


def test_a_passage_id_depends_on_the_place_and_the_text_alone():
    assert passage_id("a.txt", 3, "Short.") == passage_id("a.txt", 3, "Short.") == "84a80159636f538b"
    different = {passage_id("a.txt", 3, "Short"), passage_id("b.txt", 3, "Short."), passage_id("a.txt", 4, "Short.")}
    assert passage_id("a.txt", 3, "Short.") not in different


@pytest.mark.parametrize(
    "text", ["word " * 2_000_000, "The tuna is dried. It keeps.\n\n" * 340_000, "abcdefghij" * 1_000_000]
)
def test_ten_megabytes_are_cut_and_nothing_is_lost(text):
    def count_tokens(texts):
        return [-(-len(one) // 4) for one in texts]

    start = time.perf_counter()
    passages = chunk(Document("a.txt", text), count_tokens=count_tokens, size=384)
    assert time.perf_counter() - start < 60, "linear, not quadratic"
    assert sum(len(passage.text.split()) for passage in passages) >= len(text.split())
    assert max(len(passage.text) for passage in passages) <= 4 * 384
    assert "".join(passage.text for passage in passages).replace(" ", "").replace("\n", "") == "".join(text.split())


@pytest.mark.engine
def test_the_estimate_of_tokens_is_near_a_real_tokenizers_count(embedded_model):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(embedded_model / "tokenizer.json"))
    prose = (
        "Katsuobushi is smoked and dried skipjack tuna, shaved into flakes in 1674. See https://example.org/a_b?c=1\n"
        * 9
    )
    [estimate] = approximate_tokens([prose])
    assert 0.6 < len(tokenizer.encode(prose).ids) / estimate < 1.1


def test_the_estimate_of_tokens_counts_words_digits_and_signs():
    assert approximate_tokens([]) == []
    assert approximate_tokens(["", "The flakes.", "1674", "鰹節", "a  b\n\nc"]) == [0, 4, 4, 2, 5]
