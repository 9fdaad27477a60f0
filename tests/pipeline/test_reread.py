"""An answer that the model does not give twice is left out, with both answers on record."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from katsuo.config import Sampling
from katsuo.engines.base import ModelInfo
from katsuo.pipeline.answer import Answerer
from katsuo.pipeline.reread import is_same_answer
from katsuo.records import Completion, Passage, Reason
from katsuo.tasks import find_task
from katsuo.tasks.codec import find_codec, join_pair

TEXT = "The bridge over the river Tamar opened in 1932."
PASSAGES = [Passage(f"p{number}", TEXT, "a.txt", 0, len(TEXT)) for number in range(3)]


@dataclass
class Reader:
    """Writes the same pair about every passage, and answers it again with what it is told, one after the other."""

    first: str
    again: list[str]
    codec: str = "bonito-v1"
    asked: list = field(default_factory=list)

    @property
    def info(self):
        return ModelInfo("reader", "reader", "1", self.codec, 2048)

    def generate(self, prompts, sampling):
        self.asked.append((prompts, sampling))
        if len(self.asked) == 1:
            return [Completion(self.first, new_tokens=5) for _ in prompts]
        return [one if isinstance(one, Completion) else Completion(one, new_tokens=2) for one in self.again]


def answer(engine, task="exqa", *, codec="bonito-v1", readings=1):
    tasks = (find_task(task),)
    return Answerer(engine, tasks, find_codec(codec), Sampling(), 0, readings=readings).answer(PASSAGES)


def test_an_answer_that_is_not_given_twice_is_left_out():
    engine = Reader(join_pair("{{context}}\nWhen did the bridge open?", "1932"), ["1932", "in 1932.", "Tamar"])
    outcome = answer(engine)
    assert [example.passage_id for example in outcome.examples] == ["p0", "p1"]
    (reject,) = outcome.rejects
    assert (reject.reason, reject.detail, reject.passage_id) == (Reason.READINGS, "Tamar", "p2")
    assert reject.text.endswith("1932")
    assert outcome.new_tokens == 3 * 5 + 3 * 2


def test_a_single_reading_is_greedy_free_and_shows_the_whole_question():
    engine = Reader(join_pair("{{context}}\nWhen did the bridge open?", "1932"), ["1932"] * 3)
    answer(engine)
    prompts, sampling = engine.asked[1]
    assert (sampling.temperature, sampling.grammar) == (0.0, False)
    assert prompts[0].constraint is None
    assert prompts[0].text.endswith(f"{TEXT}\n<|task|>\n{{{{context}}}}\nWhen did the bridge open?\n<|pipe|>\n")


def test_several_readings_are_sampled_and_the_majority_decides():
    said = ["1932", "1932", "Tamar", "in 1932", "Tamar", "the river", "Tamar", "Tamar", "1932"]
    engine = Reader(join_pair("{{context}}\nWhen did the bridge open?", "1932"), said)
    outcome = answer(engine, readings=3)
    assert [example.passage_id for example in outcome.examples] == ["p0"]
    assert [reject.detail for reject in outcome.rejects] == ["Tamar / the river", "Tamar / Tamar"]
    prompts, sampling = engine.asked[1]
    assert sampling.temperature == Sampling().temperature
    assert len({prompt.seed for prompt in prompts[:3]}) == 3
    assert outcome.new_tokens == 3 * 5 + 9 * 2


def test_a_chat_model_is_asked_with_the_passage_in_its_place():
    engine = Reader(join_pair("{{context}}\nDid the bridge open in 1932?", "Yes"), ["Yes, it did."] * 3, "instruct")
    outcome = answer(engine, "ynqa", codec="instruct")
    (message,) = engine.asked[1][0][0].messages
    assert message.content == f"{TEXT}\nDid the bridge open in 1932?"
    assert len(outcome.examples) == 3


@pytest.mark.parametrize("task", ["summarization", "text generation"])
def test_free_answers_are_not_read_again(task):
    pair = join_pair("Write a text about the bridge over the Tamar.", "{{context}}")
    if task == "summarization":
        pair = join_pair("{{context}}\nSum up the text about the bridge.", "The bridge opened.")
    outcome = answer(engine := Reader(pair, []), task)
    assert len(outcome.examples) == 3
    assert engine.asked[1][0] == []


def test_an_option_is_the_same_by_its_label_its_text_or_both():
    asked = "{{context}}\nWhat opened in 1932?\nA. the bridge\nB. the harbour"
    engine = Reader(join_pair(asked, "the bridge"), ["A. the bridge", "A", "B"])
    outcome = answer(engine, "mcqa")
    assert [example.passage_id for example in outcome.examples] == ["p0", "p1"]
    assert [(reject.reason, reject.detail) for reject in outcome.rejects] == [(Reason.READINGS, "B")]


def test_a_reading_that_an_engine_could_not_give_is_said_to_be_that():
    engine = Reader(join_pair("{{context}}\nWhen did the bridge open?", "1932"), [])
    engine.again = ["1932", Completion(finish="error", error="503"), Completion(finish="too_long")]
    outcome = answer(engine)
    assert [example.passage_id for example in outcome.examples] == ["p0"]
    assert [(one.reason, one.detail) for one in outcome.rejects] == [
        (Reason.ENGINE_ERROR, "503"),
        (Reason.TOO_LONG, ""),
    ]


def test_nothing_is_asked_twice_unless_wanted():
    engine = Reader(join_pair("{{context}}\nWhen did the bridge open?", "1932"), [])
    assert len(answer(engine, readings=0).examples) == 3
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("task", "first", "second", "same"),
    [
        ("ynqa", "Yes", "yes.", True),
        ("ynqa", "No", "Not at all", False),
        ("ynqa", "Yes", "No", False),
        ("exqa", "river Tamar", "the river Tamar", True),
        ("exqa", "1932", "", False),
        ("mcqa", "B", "B: the river", True),
    ],
)
def test_answers_are_compared_by_their_words(task, first, second, same):
    assert is_same_answer(find_task(task), first, second) is same
