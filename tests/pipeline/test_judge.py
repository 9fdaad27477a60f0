from __future__ import annotations

from katsuo.config import Sampling
from katsuo.engines.base import ModelInfo
from katsuo.pipeline.judge import Origin, drop_duplicate, judge
from katsuo.pipeline.similar import NearDuplicates
from katsuo.records import Completion, Example, Passage, Prompt, Reason, Reject
from katsuo.tasks import load_task

TEXT = "The ferry to Ven leaves Landskrona at nine in the morning."
ORIGIN = Origin(ModelInfo("fake", "fake", "1", "bonito-v1", 100), Sampling().model_dump_json())


def example(instruction: str, response: str, task: str = "ynqa", passage_id: str = "p1") -> Example:
    passage = Passage(passage_id, TEXT, "a.txt", 0, len(TEXT))
    prompt = Prompt(id=instruction, passage=passage, task_type=load_task(task).name, draw=0, seed=1, text="x")
    judged = judge(prompt, Completion(f"{instruction}\n<|pipe|>\n{response}"), task=load_task(task), origin=ORIGIN)
    assert isinstance(judged, Example), judged
    return judged


def is_dropped(seen: NearDuplicates, one: Example, task: str = "ynqa") -> bool:
    ended = drop_duplicate(one, load_task(task), seen)
    assert ended == one or (isinstance(ended, Reject) and ended.reason is Reason.DUPLICATE)
    return isinstance(ended, Reject)


def test_a_span_is_spelled_as_in_the_passage() -> None:
    asked = "{{context}} Where does the ferry leave from?"
    assert example(asked, "landskrona.", "exqa").response == "Landskrona"
    assert example(asked, "ferry to  ven", "exqa").response == "ferry to Ven"
    assert example("{{context}} Does it leave at nine? Yes or no?", "yes").response == "yes"


def test_the_same_question_with_another_label_is_a_repetition() -> None:
    seen = NearDuplicates(0.8)
    assert not is_dropped(seen, example("{{context}} Does the ferry leave at nine? Yes or no?", "Yes"))
    assert is_dropped(seen, example("{{context}} Does the ferry leave at nine? Yes or no?", "No"))


def test_the_same_question_about_another_passage_is_another_task() -> None:
    seen, asked = NearDuplicates(0.8), "{{context}} Does the ferry leave at nine? Yes or no?"
    assert not is_dropped(seen, example(asked, "Yes"))
    assert not is_dropped(seen, example(asked, "Yes", passage_id="p2"))


def test_two_free_answers_to_one_instruction_are_both_kept() -> None:
    seen, asked = NearDuplicates(0.8), "Summarise the following text in one sentence: {{context}}"
    assert not is_dropped(seen, example(asked, "A ferry goes to Ven.", "summarization"), "summarization")
    other = "Each morning at nine one can leave Landskrona by boat and see Ven before noon comes."
    assert not is_dropped(seen, example(asked, other, "summarization"), "summarization")
    assert is_dropped(seen, example(asked, other, "summarization"), "summarization")
