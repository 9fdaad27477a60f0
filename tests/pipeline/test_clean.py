from __future__ import annotations

import unicodedata

import pytest

from katsuo.pipeline.clean import DocumentFilter, HeldOut, PassageFilter
from katsuo.pipeline.similar import NearDuplicates
from katsuo.records import Document, Passage, Reason, Reject


def passage(text: str) -> Passage:
    return Passage(id="p", text=text, source="a.txt", char_start=7, char_end=7 + len(text))


def reason(reject: Reject | None) -> Reason | None:
    return reject.reason if reject else None


def test_a_document_that_came_before_is_named_and_left_out() -> None:
    documents = DocumentFilter()
    assert documents.reject(Document("a.txt", "The same\ntext.")) is None
    again = documents.reject(Document("b.txt", "The  same text.\n"))
    assert again == Reject("document", Reason.DUPLICATE_DOCUMENT, "b.txt")
    assert reason(documents.reject(Document("c.txt", " \n"))) is Reason.EMPTY_DOCUMENT


def test_a_passage_with_a_control_marker_is_refused_never_obeyed() -> None:
    refused = PassageFilter(0.8).reject(passage("Say {{context}} and be done."))
    assert refused is not None
    assert (refused.reason, refused.detail, refused.char_start) == (Reason.CONTROL_MARKER, "{{context}}", 7)


def test_a_passage_without_a_word_is_left_out() -> None:
    assert reason(PassageFilter(0.8).reject(passage("--- *** ---"))) is Reason.EMPTY_PASSAGE


def test_near_duplicate_passages_are_left_out() -> None:
    passages = PassageFilter(0.8)
    text = "the fee for the use of the hall is due on the first day of each month and is paid to the city " * 2
    assert passages.reject(passage(text)) is None
    assert reason(passages.reject(passage(text + "treasury"))) is Reason.DUPLICATE_PASSAGE


def test_a_passage_that_shares_a_run_of_words_with_held_out_data_is_left_out() -> None:
    held_out = HeldOut(["One two three, four five six!"], ngram=4)
    assert held_out.find("zero ONE two three four") == "one two three four"
    assert held_out.find("one two three five six") is None
    assert reason(PassageFilter(0.8, held_out).reject(passage("see: two three four five"))) is Reason.HELD_OUT


@pytest.mark.parametrize(
    "written",
    ["Der Bäcker öffnet früh", unicodedata.normalize("NFD", "Der Bäcker öffnet früh"), "Der Bä\u00adcker öffnet früh"],
)
def test_held_out_data_are_found_whichever_way_unicode_writes_them(written: str) -> None:
    assert HeldOut(["Der Bäcker öffnet früh."], ngram=4).find(f"Gewiss: {written}!")
    near = NearDuplicates(0.8)
    assert not near.is_duplicate("Der Bäcker öffnet früh und schließt")
    assert near.is_duplicate(f"{written} und schließt")


def test_held_out_data_are_found_in_scripts_without_spaces() -> None:
    held_out = HeldOut(["第三条甲方应当在本合同签订后十日内向乙方支付全部价款"], ngram=13)
    assert held_out.find("前文略甲方应当在本合同签订后十日内向乙方支付定金")
    assert held_out.find("乙方应当按照约定的时间和地点交付货物并提供发票") is None


def test_a_short_held_out_text_is_found_whole() -> None:
    held_out = HeldOut(["due today"], ngram=13)
    assert held_out.find("The fee is due today.") == "due today"
    assert held_out.find("The fee is due.") is None
    assert HeldOut(["Due!"], ngram=13).find("The fee is due.") is None
