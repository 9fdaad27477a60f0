from __future__ import annotations

import pytest

from katsuo.tasks import find_task
from katsuo.tasks.grammar import label_spellings
from katsuo.tasks.shapes import Labels, as_in_passage, find_options

NLI = find_task("nli").answer


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("Is it so? Yes, no, or maybe?", {"yes", "no", "maybe"}),
        ('"It is always true." True, False, or Neither?', {"true", "false", "neither"}),
        ("true, false, or inconclusive?", {"true", "false", "inconclusive"}),
        ("always, sometimes, or never true?", {"always", "never", "sometimes"}),
    ],
)
def test_the_label_set_that_the_instruction_names_is_the_one_allowed(instruction: str, labels: set[str]) -> None:
    assert isinstance(NLI, Labels)
    assert set(NLI.allowed(instruction)) == labels


def test_an_instruction_that_names_no_set_allows_every_label() -> None:
    assert Labels((("yes", "no"), ("true", "false"))).allowed("Is it so?") == ("yes", "no", "true", "false")


def test_a_label_inside_another_word_is_not_named() -> None:
    assert Labels((("yes", "no"), ("a", "b"))).allowed("yesterday nobody came: a or b?") == ("a", "b")


def test_labels_are_spelt_as_the_instruction_spells_them() -> None:
    assert label_spellings(("yes", "no"), "Answer yes or no.") == ("yes", "no")
    assert label_spellings(("true", "false"), "True or False?") == ("True", "False")


@pytest.mark.parametrize(
    ("instruction", "options"),
    [
        ("Which?\n- red\n- dark blue", ["red", "dark blue"]),
        ("Which?\nA. red\n\nB. dark blue", ["red", "dark blue"]),
        ("Which?\n(a) red\n(b) dark blue\n(c) x", ["red", "dark blue", "x"]),
        ("Options:\nA red\nB dark blue", ["red", "dark blue"]),
        ("Ending 1: red\nEnding 2: dark blue", ["red", "dark blue"]),
        ("Possible answers: red, dark blue, or green", ["red", "dark blue", "green"]),
        ("A man came home. Why?", []),
        ("A. he said\nand left", []),
        ("B. red\nC. blue", []),
    ],
)
def test_options_are_read_as_templates_write_them(instruction: str, options: list[str]) -> None:
    assert [option.text for option in find_options(instruction)] == options


def test_prose_that_starts_like_an_option_is_not_taken_for_one() -> None:
    instruction = "A plan was made.\nWhich one?\nA. red\nB. blue"
    assert [option.text for option in find_options(instruction)] == ["red", "blue"]


@pytest.mark.parametrize(
    ("answer", "spelled"),
    [
        ("the bridge", "The  Bridge"),
        ("river tamar,", "river Tamar"),
        ("1932", "1932"),
        ("bridge tamar", "bridge tamar"),
        ("rive", "rive"),
        ("?", "?"),
    ],
)
def test_an_answer_is_spelled_as_the_passage_does_where_nothing_else_differs(answer: str, spelled: str) -> None:
    assert as_in_passage(answer, "The  Bridge over the river Tamar; opened in 1932.") == spelled
