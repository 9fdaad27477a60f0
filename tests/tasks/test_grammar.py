"""The grammars, held against the matcher that the engines decode with: bytes in, accepted or not."""

from __future__ import annotations

import pytest

pytest.importorskip("llguidance")
from llguidance import LLMatcher, LLTokenizer

from katsuo.records import Reason
from katsuo.tasks import CATALOG, TaskType, find_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import parse_pair
from katsuo.tasks.grammar import TaskConstraint
from katsuo.tasks.shapes import find_options
from katsuo.tasks.task_type import Draft

PASSAGE = 'The "old" mill of Årnes (built 1821) ground rye;\nnine villages sent their grain until the flood of 1911.'
TOKENIZER = LLTokenizer("byte")
every_task = pytest.mark.parametrize("task", CATALOG, ids=lambda task: task.short)


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(TOKENIZER, LLMatcher.grammar_from_lark(grammar))
    assert not matcher.get_error(), matcher.get_error()
    return all(matcher.consume_token(byte) for byte in text.encode()) and matcher.is_accepting()


@every_task
def test_sketches_are_in_the_grammar_of_their_type(task: TaskType) -> None:
    constraint = TaskConstraint(task.answer, PASSAGE)
    for seed in range(0, 30_000, 997):
        instruction, separator, response = constraint.sketch(seed).partition("\n<|pipe|>\n")
        assert accepts(constraint.instruction(), instruction + separator), instruction
        assert accepts(constraint.answer(instruction), response), response


@every_task
def test_worked_examples_are_in_the_grammar_of_their_type(task: TaskType) -> None:
    for example in task.examples:
        constraint = TaskConstraint(task.answer, example.passage)
        assert accepts(constraint.instruction(), f"{example.instruction}\n<|pipe|>\n")
        assert accepts(constraint.answer(example.instruction), example.response)


@every_task
def test_worked_examples_fit_the_frame_of_their_type(task: TaskType) -> None:
    for example in task.examples:
        constraint = TaskConstraint(task.answer, example.passage, task.frame)
        assert accepts(constraint.instruction(), f"{example.instruction}\n<|pipe|>\n"), example.instruction
        assert accepts(constraint.answer(example.instruction), example.response), example.response
        assert not accepts(constraint.instruction(), "Tell me more about {{context}}\n<|pipe|>\n")


@pytest.mark.parametrize("task", [t for t in CATALOG if t.short != "text_gen"], ids=lambda task: task.short)
@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "{{context}}",
        "no placeholder at all",
        "two {{context}} of {{context}} them",
        "a <|pipe|> inside {{context}} it",
        "a line that begins\n<so {{context}} it",
        "a marker with < |pipe|> spaces {{context}} it",
    ],
)
def test_instructions_of_another_form_are_not(task: TaskType, instruction: str) -> None:
    assert not accepts(TaskConstraint(task.answer, PASSAGE).instruction(), f"{instruction}\n<|pipe|>\n")


ASKED = "{{context}}\nWho?"


@pytest.mark.parametrize(
    ("instruction", "is_held"),
    [
        (f"{ASKED}\nA. me\nB. you", True),
        (f"{ASKED}\nA) me\nB) you\nC) they\nD) we", True),
        (f"{ASKED}\nA: me\nB: you\nC: they", True),
        (f"{ASKED}\n\n(a)  me\n\n(b)  you", True),
        (f"{ASKED}\nPick one of the following options:\n- me\n - you\n - they", True),
        (f"{ASKED}\nBeing old, who?\n- me\n- you", True),
        (ASKED, False),
        (f"{ASKED}\nA. me", False),
        (f"{ASKED}\nA. me\nC. you", False),
        (f"{ASKED}\nA. me\nB) you", False),
        (f"{ASKED}\n- me\n- you\nA. me\nB. you", False),
        (f"{ASKED}\nA) me\nB) you\nA. me\nB. you", False),
        (f"{ASKED}\nA dog?\nA. me\nB. you", False),
        (f"{ASKED}\nA. - me\nB. - you", False),
        (f"{ASKED}\nA. 1) me\nB. 2) you", False),
        (f"{ASKED}\nA. -4\nB. 2.5 (m)\nC. 7", True),
    ],
)
def test_a_stem_holds_no_list_and_one_list_stands_after_it(instruction: str, is_held: bool) -> None:
    grammar = TaskConstraint(find_task("mcqa").answer, PASSAGE).instruction()
    assert accepts(grammar, f"{instruction}\n<|pipe|>\n") is is_held
    assert not is_held or len(find_options(instruction)) >= 2


@pytest.mark.parametrize(
    ("instruction", "is_held"),
    [
        ("How does it end?\n{{context}}\n\n(a)  well\n\n(b)  badly", True),
        ("{{context}}\nHow does it end?\n\nEnding 1: well\n\nEnding 2: badly", True),
        ("{{context}}\nHow does it end?", True),
        ("{{context}}\nHow does it end?\n- well", False),
        ("{{context}}\nHow does it end?\n(a) well", False),
    ],
)
def test_where_a_list_is_not_required_there_is_a_whole_one_or_none(instruction: str, is_held: bool) -> None:
    constraint = TaskConstraint(find_task("sent_comp").answer, PASSAGE)
    assert accepts(constraint.instruction(), f"{instruction}\n<|pipe|>\n") is is_held
    assert constraint.may_go_on(instruction)
    assert not constraint.may_go_on("{{context}}\nWhich?\nEnding 1: well.\n\nEnding 2: Well")


def test_topics_may_stand_in_the_line_that_asks_for_one() -> None:
    asked = "{{context}}\nPick one of these options: mills, ships"
    constraint = TaskConstraint(find_task("topic_class").answer, PASSAGE)
    assert accepts(constraint.instruction(), f"{asked}\n<|pipe|>\n")
    assert constraint.may_go_on(asked)


@pytest.mark.parametrize("instruction", ["Is a < b, says {{context}} so?", "Text:\n\n{{context}}\n\nIs it {so}?"])
def test_line_breaks_and_signs_are_free_elsewhere(instruction: str) -> None:
    assert accepts(TaskConstraint(find_task("qa").answer, PASSAGE).instruction(), f"{instruction}\n<|pipe|>\n")


@pytest.mark.parametrize(
    ("short", "instruction", "good", "bad"),
    [
        ("ynqa", "{{context}} Is the mill old? True or false?", ["True", "False"], ["Yes", "maybe", "", "true."]),
        ("ynqa", "{{context}} Is the mill old?", ["Yes", "No", "True"], ["perhaps"]),
        ("nli", "{{context}} It is old: yes, no or maybe?", ["yes", "maybe"], ["neither", "Yes, no"]),
        (
            "exqa",
            "{{context}} When?",
            ["1911", 'The "old" mill', "nine villages", "rye;\nnine"],
            ["1912", "", "mill old"],
        ),
        ("mcqa", "{{context}} Who?\nA. the king\nB. Årnes", ["Årnes", "the king", "A", "B"], ["C", "king"]),
        ("topic_class", "{{context}} Options: mills, ships", ["mills", "ships"], ["sheep"]),
        ("summarization", "{{context}} In short:", ["A mill ground rye."], ["", "a <|pipe|> b", "{{context}}"]),
    ],
)
def test_answers_are_held_to_what_the_instruction_wrote(
    short: str, instruction: str, good: list[str], bad: list[str]
) -> None:
    (task,) = (task for task in CATALOG if task.short == short)
    grammar = TaskConstraint(task.answer, PASSAGE).answer(instruction)
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


def test_what_the_grammar_lets_through_parses() -> None:
    constraint = TaskConstraint(CATALOG[0].answer, PASSAGE)
    pair = parse_pair(constraint.sketch(5))
    assert not isinstance(pair, Reason)
    assert first_failure(Draft(CATALOG[0], PASSAGE, pair.instruction, pair.response)) is None


@pytest.mark.parametrize(
    ("written", "may"),
    [
        ("{{context}}\nWho?\nA. the cat\nB. the ", True),
        ("{{context}}\nWho?\nA. the cat\nB. the dog", True),
        ("{{context}}\nWho?\nA. the cat\nB. the dog\nC. The cat", False),
        ("{{context}}\nWho?\nA. the cat\nB. the cat", False),
        ("{{context}}\nWho?\nA. 4\nB. 4", False),
        ("{{context}}\nWho?\nA. 4\nB. 5\nC. 6", True),
        ("A. the cat\nB. the cat {{context}}\nWho?\nA. the cat", True),
        ("{{context}}\nWho?\nA) the red cat\nB) the red-cat", False),
        ("{{context}}\nWho?\n- they ran to the old house\n - they ran to theold", False),
        ("{{context}}\nWho?\n- they ran to the old house\n - they ran to his old house", True),
        ("{{context}}\nWho?\nA: $\nB: %", True),
        ("{{context}}\nIs the cat the cat", True),
        ("{{context}}\nWho?\nPossible answers:", True),
        ("{{context}}\nWho?\nPossible answers:\n- the cat", True),
        ("{{context}}\nWho?\nPossible answers: the", False),
    ],
)
def test_an_option_does_not_come_close_to_one_above_it(written: str, may: bool) -> None:
    constraint = TaskConstraint(find_task("mcqa").answer, "A text.")
    assert constraint.is_watched
    assert constraint.may_go_on(written) is may


def test_options_that_nobody_asked_for_are_not_watched() -> None:
    assert not TaskConstraint(find_task("qa").answer, "A text.").is_watched
