from __future__ import annotations

import pytest

from katsuo.records import Reason
from katsuo.tasks import find_task
from katsuo.tasks.checks import first_failure
from katsuo.tasks.task_type import Draft

PASSAGE = "The contract between Nordhav AB and the city ends on 3 May 2021. Either side may  renew it once."


def judge(short: str, instruction: str, response: str, passage: str = PASSAGE) -> Reason | None:
    return first_failure(Draft(find_task(short), passage, instruction, response))


def test_an_extractive_answer_must_stand_in_the_passage() -> None:
    assert judge("exqa", "{{context}} When does the contract end?", "3 May 2021") is None
    assert judge("exqa", "{{context}} When does the contract end?", "4 May 2021") is Reason.NOT_IN_PASSAGE


def test_white_space_alone_does_not_unground_an_answer() -> None:
    assert judge("exqa", "{{context}} What may the contract sides do?", "Either side may renew it") is None


def test_an_answer_that_the_question_gives_away_is_rejected() -> None:
    asked = "{{context}} On 3 May 2021 the contract ends: when does it end?"
    assert judge("exqa", asked, "3 May 2021") is Reason.ANSWER_GIVEN_AWAY


def test_a_question_about_something_else_is_rejected() -> None:
    assert judge("ynqa", "{{context}} Do whales sing?", "Yes") is Reason.OFF_TOPIC
    assert judge("ynqa", "{{context}} Does the contract end in 2021?", "Yes") is None


@pytest.mark.parametrize("response", ["Yes", "yes", "no", "No."])
def test_labels_are_compared_without_case_and_final_stop(response: str) -> None:
    assert judge("ynqa", "{{context}} Does the contract end in 2021? Yes or no?", response) is None


def test_a_label_of_another_set_than_the_named_one_is_rejected() -> None:
    asked = "{{context}} Does the contract end in 2021? True or false?"
    assert judge("ynqa", asked, "Yes") is Reason.NOT_IN_CHOICES
    assert judge("nli", "{{context}} The contract ends. Yes, no, or maybe?", "neither") is Reason.NOT_IN_CHOICES


def test_a_choice_must_be_one_of_the_options_or_its_letter() -> None:
    asked = "{{context}} Who made the contract?\nA. the city\nB. the king"
    assert judge("mcqa", asked, "the city") is None
    assert judge("mcqa", asked, "A") is None
    assert judge("mcqa", asked, "C") is Reason.NOT_AN_OPTION
    assert judge("mcqa", "{{context}} Who made the contract?", "the city") is Reason.NO_OPTIONS
    assert judge("mcqa", "{{context}} The contract?\nA. same\nB. same", "same") is Reason.NO_OPTIONS


def test_a_copied_worked_example_is_rejected_on_another_passage() -> None:
    task = find_task("exqa")
    example = task.examples[0]
    copied = Draft(task, PASSAGE + " Tamar bridge.", example.instruction, "the city")
    assert first_failure(copied) is Reason.COPIES_EXAMPLE
    assert first_failure(Draft(task, example.passage, example.instruction, example.response)) is None


def test_a_template_without_a_fact_of_its_own_may_be_used_again() -> None:
    asked = find_task("summarization").examples[0].instruction
    assert judge("summarization", asked, "The contract of Nordhav ends in 2021.") is None


def test_a_text_to_be_generated_may_be_the_passage_itself() -> None:
    assert judge("text_gen", "Write about a contract with Nordhav.", "{{context}}") is None
    assert judge("text_gen", "Write about whales.", "{{context}}") is Reason.OFF_TOPIC
    assert judge("text_gen", "Write about a contract.", "A {{context}}") is Reason.NOT_WHOLE_PASSAGE
    assert judge("text_gen", "Say this of a contract: {{context}}", "{{context}}") is Reason.ANSWER_GIVEN_AWAY
