"""What every task type promises, whoever wrote it: one run over the whole table."""

from __future__ import annotations

import pytest

from katsuo.errors import UnknownNameError
from katsuo.records import Reason
from katsuo.tasks import CATALOG, TaskType, find_task, known_tasks
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import CODECS, join_pair, parse_pair
from katsuo.tasks.grammar import TaskConstraint
from katsuo.tasks.shapes import Labels, Options, Span
from katsuo.tasks.task_type import Draft

pytestmark = pytest.mark.contract
every_task = pytest.mark.parametrize(
    "task", list({task.name: task for task in known_tasks().values()}.values()), ids=lambda t: t.short
)
PASSAGE = (
    "The county archive in Lund keeps 4,200 maps of the coast. Most were drawn by Karin Holm between 1871 and 1902, "
    "and visitors may see them on Tuesdays without paying."
)


def test_the_table_holds_the_sixteen_types_of_the_paper() -> None:
    assert [task.short for task in CATALOG] == [
        *("exqa", "mcqa", "qg", "qa", "ynqa", "coref", "paraphrase", "paraphrase_id", "sent_comp", "sentiment"),
        *("summarization", "text_gen", "topic_class", "wsd", "te", "nli"),
    ]


@every_task
def test_full_and_short_names_give_the_same_type(task: TaskType) -> None:
    assert find_task(task.name) is find_task(task.short) is task


def test_a_misspelt_type_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "summarization"'):
        find_task("sumarisation")


@every_task
def test_worked_examples_pass_their_own_checks(task: TaskType) -> None:
    assert len(task.examples) >= 1
    for example in task.examples:
        assert first_failure(Draft(task, example.passage, example.instruction, example.response)) is None


@every_task
def test_a_worked_example_written_down_parses_back(task: TaskType) -> None:
    for example in task.examples:
        pair = parse_pair(join_pair(example.instruction, example.response))
        assert (pair.instruction, pair.response) == (example.instruction.strip(), example.response)


@every_task
def test_an_instruction_that_forgets_the_passage_is_rejected(task: TaskType) -> None:
    example = task.examples[0]
    draft = Draft(task, example.passage, example.instruction.replace("{{context}}", ""), "nothing of it")
    assert first_failure(draft) is Reason.NO_PLACEHOLDER


CLOSED = {Span: Reason.NOT_IN_PASSAGE, Labels: Reason.NOT_IN_CHOICES, Options: Reason.NOT_AN_OPTION}


@pytest.mark.parametrize("task", [t for t in CATALOG if type(t.answer) in CLOSED], ids=lambda t: t.short)
def test_a_wrong_answer_is_rejected_where_the_type_has_a_closed_set(task: TaskType) -> None:
    example = task.examples[0]
    failure = first_failure(Draft(task, example.passage, example.instruction, "Quetzalcoatlus"))
    is_open = isinstance(task.answer, Options) and not task.answer.is_required
    assert failure is (None if is_open else CLOSED[type(task.answer)])


@every_task
def test_a_sketch_is_well_formed_and_passes_the_checks(task: TaskType) -> None:
    for seed in range(0, 400_000, 7919):
        pair = parse_pair(TaskConstraint(task.answer, PASSAGE).sketch(seed))
        assert not isinstance(pair, Reason)
        assert first_failure(Draft(task, PASSAGE, pair.instruction, pair.response)) is None, pair


@every_task
@pytest.mark.parametrize("codec", CODECS.values(), ids=lambda c: c.name)
def test_each_codec_shows_the_passage_and_the_type_once_more(task: TaskType, codec) -> None:
    text, messages = codec.render(task, f"  {PASSAGE}\n")
    shown = text or messages[-1].content
    assert shown.count(PASSAGE) == 1
    assert task.name in shown
    assert bool(text) != bool(messages)
