from __future__ import annotations

import pytest

from katsuo.engines import CanScore, EngineSettings, ModelInfo, Scores, open_engine
from katsuo.errors import EngineError, RecipeError, UsageError
from katsuo.evaluate.ask import Examiner, normalised
from katsuo.evaluate.fit import Fitted, fit
from katsuo.evaluate.settings import make_settings
from katsuo.evaluate.suites import Item, Question
from katsuo.records import Completion
from katsuo.tasks.style import asker


def count_words(texts):
    return [len(text.split()) for text in texts]


def question(
    passage: str, *, near: str = "", choices=(), parts=("", "\n\nIs it so?"), golds=("yes",), row: int = 3
) -> Question:
    item = Item("i", row, passage, "Is it so?", near, golds)
    return Question(item, "t", parts, choices, 0 if choices else -1)


class Stub:
    """An engine that says what it is told to say, and keeps what it was asked."""

    info = ModelInfo("stub", "stub", "1", "instruct", 200)

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def generate(self, prompts, sampling):
        self.asked += prompts
        return [Completion(answer) if isinstance(answer, str) else answer for answer in self.answers]

    def score(self, questions):
        self.asked += questions
        return self.answers

    def end_text(self, *, is_chat):
        return "<turn>" if is_chat else "</s>"


def examiner(engine, *, style="chat", **settings) -> Examiner:
    return Examiner(engine, asker(style), style == "chat", make_settings(settings), count_words)


def test_a_passage_that_fits_stays_whole_and_a_longer_one_loses_its_end_and_never_the_question():
    short, long = question("one two", row=1), question("w" + " w" * 99, row=2)
    whole, cut = fit([short, long], 20, count_words)
    assert whole == Fitted("one two", 5)
    assert cut == Fitted(" ".join("w" * 17), 20)
    assert long.instruction(cut.passage).endswith("Is it so?")
    assert fit([long], 2, count_words)[0].passage is None
    assert fit([long], 3, count_words) == [Fitted("", 3)]


def test_all_templates_ask_about_the_same_part_of_a_long_passage():
    text = "w" + " w" * 99
    questions = [question(text, row=1), question(text, row=1, parts=("Read this, then say: ", " is it?"))]
    fitted = fit([*questions, question("one two", row=2)], 20, count_words)
    assert [one.passage for one in fitted] == [" ".join("w" * 14), " ".join("w" * 14), "one two"]
    assert [one.tokens for one in fitted] == [17, 20, 5]


def test_a_long_passage_is_cut_to_where_it_speaks_of_the_matter():
    words = ["filler"] * 60
    words[40:43] = ["the", "Receiving", "Party"]
    (cut,) = fit([question(" ".join(words), near="Receiving Party may keep copies")], 13, count_words)
    assert "Receiving Party" in cut.passage
    assert len(cut.passage.split()) == 10


def test_the_likeliest_choice_is_taken_and_ties_go_to_the_first():
    engine = Stub(Scores((-2.0, -1.0), (1, 1)), Scores((-1.0, -1.0), (1, 1)))
    asked = [question("a b", choices=("yes", "no"))] * 2
    first, second = examiner(engine).examine(asked)
    assert (first.prediction, first.score, first.choice, first.gold_choice) == ("no", 0, 1, 0)
    assert (second.prediction, second.score) == ("yes", 100)
    assert engine.asked[0].prompt.messages[0].content == "a b\n\nIs it so?"


def test_scores_may_be_divided_by_tokens_or_bytes():
    scores = Scores((-4.0, -3.0), (4, 1))
    assert normalised(scores, ("a", "bb"), "none") == [-4, -3]
    assert normalised(scores, ("a", "bb"), "tokens") == [-1, -3]
    assert normalised(scores, ("a", "é"), "bytes") == [-4, -1.5]
    engine = Stub(scores)
    assert examiner(engine, normalise="tokens").examine([question("x", choices=("a", "bb"))])[0].prediction == "a"


@pytest.mark.parametrize(
    ("style", "eos", "choices", "has_end"),
    [
        ("chat", "auto", ("yes", "no"), False),
        ("chat", "auto", ("true", "true in part"), True),
        ("input-output", "auto", ("yes", "no"), True),
        ("input-output", "no", ("yes", "no"), False),
        ("chat", "yes", ("yes", "no"), True),
    ],
)
def test_the_end_of_an_answer_is_scored_except_in_a_chat(style, eos, choices, has_end):
    engine = Stub(Scores((-1.0, -2.0), (1, 1)))
    examiner(engine, style=style, eos=eos).examine([question("x", choices=choices)])
    assert engine.asked[0].has_end == has_end


def test_a_written_answer_is_compared_with_all_golds_or_with_the_first():
    asked = question("x", golds=("the old inn", "inn"))
    (all_golds,) = examiner(Stub(" Inn. ")).examine([asked])
    assert (all_golds.prediction, all_golds.score, all_golds.exact) == ("Inn.", 100, 100)
    (first,) = examiner(Stub(" Inn. "), first_gold=True).examine([asked])
    assert (first.score, first.exact, first.golds) == (pytest.approx(200 / 3), 0, ("the old inn",))


def test_a_question_that_cannot_be_answered_stops_the_evaluation_with_its_row():
    with pytest.raises(EngineError, match="row 3"):
        examiner(Stub(Scores(finish="too_long"))).examine([question("x", choices=("a", "b"))])
    with pytest.raises(EngineError, match="broken pipe"):
        examiner(Stub(Completion(finish="error", error="broken pipe"))).examine([question("x")])
    with pytest.raises(UsageError, match='template "t" alone is longer'):
        examiner(Stub(), max_prompt_tokens=32).examine([question("x", parts=("w " * 40, ""))])


def test_an_engine_without_log_probabilities_is_refused_for_ranking():
    class Mute:
        info = Stub.info

        def generate(self, prompts, sampling):
            return []

    assert not isinstance(Mute(), CanScore)
    examiner(Mute()).check(is_ranked=False)
    with pytest.raises(UsageError, match="no log-probabilities"):
        examiner(Mute()).check(is_ranked=True)


def test_the_fake_engine_scores_by_prompt_and_answer_alone():
    engine = open_engine("fake", EngineSettings("fake"))
    assert isinstance(engine, CanScore)
    ask = examiner(engine)
    one, other = (ask.choices(question("x", choices=("a", "b")), text) for text in ("p", "q"))
    assert engine.score([one, other]) == [engine.score([one])[0], engine.score([other])[0]]
    assert engine.score([one]) != engine.score([other])


def count_characters(texts):
    return [len(text) for text in texts]


def test_a_passage_without_spaces_is_cut_at_characters():
    text = "橋は一九〇一年に開通した。" * 20
    (cut,) = fit([question(text)], 30, count_characters)
    assert (cut.passage, cut.tokens) == (text[:19], 30)
    near = "あ" * 40 + "灯台守" + "い" * 40
    (cut,) = fit([question(near, near="灯台守は誰か")], 16, count_characters)
    assert cut.passage == "ああ灯台守"


@pytest.mark.parametrize("by", ["none", "tokens", "bytes"])
def test_a_choice_without_a_number_is_an_error_and_an_impossible_one_is_not(by):
    asked = question("x", choices=("yes", "no"))
    with pytest.raises(EngineError, match=r'no number for row 3 with template "t"(.|\n)*bfloat16 or float32'):
        examiner(Stub(Scores((-1.0, float("nan")), (1, 1))), normalise=by).examine([asked])
    (told,) = examiner(Stub(Scores((float("-inf"), -3.0), (1, 1))), normalise=by).examine([asked])
    assert told.prediction == "no"


@pytest.mark.parametrize("templates", [0, -1, []])
def test_no_template_at_all_is_refused(templates):
    with pytest.raises(RecipeError, match=r'"templates".* at least 1'):
        make_settings({"templates": templates})
