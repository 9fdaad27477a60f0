"""What is read out of an instruction, and that another wording asks the same and has the same answer."""

from __future__ import annotations

import pytest

from katsuo.tasks import CATALOG, find_task
from katsuo.tasks.shapes import Labels
from katsuo.tasks.wordings import (
    FOR_QUESTIONS,
    FOR_SPANS,
    FOR_THREE,
    FOR_TWO,
    Asked,
    label_place,
    read_asked,
    reword,
)

PASSAGE = "The ferry {passage} to Anan leaves at nine. It costs {asked} 400 yen."


def asked_of(task: str, instruction: str, response: str) -> Asked | None:
    return read_asked(find_task(task).answer, instruction, response)


@pytest.mark.parametrize(
    ("instruction", "question"),
    [
        ("{{context}}\n\nQ: What leaves at nine?\n\nA:", "What leaves at nine?"),
        ("{{context}}\n\nWith reference to the above context, when does it leave?", "When does it leave?"),
        ("Refer to the passage below and answer.\n{{context}}\nQuestion: What is it?", "What is it?"),
        ('Which words come right after "the ferry"?\n{{context}}', 'Which words come right after "the ferry"?'),
    ],
)
def test_a_question_is_read_out_of_an_instruction(instruction, question):
    assert asked_of("exqa", instruction, "nine") == Asked(question)


@pytest.mark.parametrize(
    ("task", "instruction", "response", "expected"),
    [
        ("ynqa", "{{context}}\nBased on the text, is it late?", "Yes", Asked("Is it late?", label=0)),
        ("ynqa", "{{context}}\n\nHaving read that, could you tell me does it leave?", "no",
         Asked("Does it leave?", label=1)),
        ("te", "{{context}}\nQuestion: It leaves at nine. True or False?", "False",
         Asked("It leaves at nine.", is_statement=True, label=1)),
        ("nli", 'Given {{context}} Is it guaranteed true that "It is late"? Yes, no, or maybe?', "Maybe",
         Asked("It is late.", is_statement=True, label=2)),
        ("nli", '{{context}} Is the claim: "The term "ferry" is used." true, false, or inconclusive?', "True",
         Asked('The term "ferry" is used.', is_statement=True, label=0)),
        ("nli", "{{context}}\n\nKeeping that in mind, consider: The ferry is red. Is this always, sometimes, or never "
         "correct?", "Never", Asked("The ferry is red.", is_statement=True, label=1)),
    ],
)  # fmt: skip
def test_a_judged_statement_or_question_is_read_with_what_its_label_stands_for(task, instruction, response, expected):
    assert asked_of(task, instruction, response) == expected


@pytest.mark.parametrize(
    ("task", "instruction", "response"),
    [
        ("exqa", "{{context}}\n\nName the ferry.", "Anan"),
        ("exqa", "What leaves at nine?", "the ferry"),
        ("exqa", "{{context}} {{context}} What leaves at nine?", "the ferry"),
        ("ynqa", 'Article: {{context}}\nQuestion: It is _ .\nYes or no, is the answer "late in the day"?', "No"),
        ("ynqa", "{{context}}\nIs it late?", "perhaps"),
        ("nli", "{{context}}\nQuestion: Who will be there? True, False, or Neither?", "True"),
        ("summarization", "{{context}}\nWhat is it about?", "A ferry."),
    ],
)
def test_what_cannot_be_told_from_how_it_is_asked_is_left_alone(task, instruction, response):
    assert asked_of(task, instruction, response) is None


@pytest.mark.parametrize(
    ("task", "instruction", "response", "wordings"),
    [
        ("exqa", f"{PASSAGE}\n\nQ: What leaves at nine?\n\nA:", "the ferry", FOR_SPANS),
        ("ynqa", f"{PASSAGE}\n\nQ: does it leave at nine? True or False?", "True", FOR_QUESTIONS),
        ("te", f'{PASSAGE} Can we infer that "It leaves at nine."? Yes or no?', "no", FOR_TWO),
        ("nli", f'{PASSAGE} Can we infer that "It leaves at nine."? Yes, no, or maybe?', "Maybe", FOR_THREE),
    ],
)
def test_every_wording_asks_the_same_and_has_the_same_answer(task, instruction, response, wordings):
    answer = find_task(task).answer
    seen = set()
    for key in range(len(wordings)):
        told = reword(find_task(task), instruction, response, PASSAGE, key)
        assert told is not None
        asked, replied = told
        assert asked.count(PASSAGE) == 1
        assert "leave" in asked.replace(PASSAGE, "")
        assert "{passage}" not in asked.replace(PASSAGE, "")
        assert "{asked}" not in asked.replace(PASSAGE, "")
        assert label_place(answer, replied) == label_place(answer, response)
        if not isinstance(answer, Labels):
            assert replied == response
        seen.add(asked)
    assert len(seen) == len(wordings)


@pytest.mark.parametrize(("task", "wordings"), [("ynqa", FOR_QUESTIONS), ("te", FOR_TWO), ("nli", FOR_THREE)])
def test_labels_stand_in_the_order_of_the_task_types_own_sets(task, wordings):
    answer = find_task(task).answer
    for wording in wordings:
        assert [label_place(answer, label) for label in wording.labels] == list(range(len(wording.labels)))


def test_an_instruction_without_its_passage_stays_as_it_is():
    assert reword(find_task("exqa"), "What leaves at nine?", "the ferry", PASSAGE, 0) is None
    assert reword(find_task("exqa"), "What leaves at nine?", "the ferry", "", 0) is None


@pytest.mark.parametrize("task", [task for task in CATALOG if task.short not in ("exqa", "ynqa", "te", "nli")])
def test_a_type_whose_instructions_say_more_than_one_question_stays_as_it_is(task):
    for worked in task.examples:
        instruction = worked.instruction.replace("{{context}}", worked.passage)
        assert reword(task, instruction, worked.response, worked.passage, 0) is None
