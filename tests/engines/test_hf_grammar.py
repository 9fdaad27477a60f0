"""Decoding under grammars: what comes out satisfies both, whatever a model with random weights would like to write."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import llguidance
import llguidance.hf
import pytest
from transformers import AutoTokenizer

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.records import Passage, Prompt

WARM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=120)
PASSAGE = "The bridge opened in 1932. It is 503 m long; nobody paid a toll."
LABELS = {"yes": "Yes or no?", "true": "True or false?"}


@dataclass(frozen=True)
class Toy:
    """An instruction of up to 40 characters that ends with a choice, then one of the labels or a span."""

    kind: str = "labels"

    @property
    def is_watched(self) -> bool:
        return self.kind == "watched"

    def may_go_on(self, written: str) -> bool:
        return "a" not in written.casefold()

    def instruction(self) -> str:
        ending = r"(Yes or no\?|True or false\?)" if self.kind == "labels" else r"\?"
        return f"start: /[ -;=-~]{{1,40}}/ /{ending}\\n<\\|pipe\\|>\\n/\n"

    def answer(self, instruction: str) -> str:
        if self.kind == "span":
            return f"start: %regex {json.dumps({'substring_words': PASSAGE})}\n"
        if self.kind == "free":
            return "start: /[a-z][a-z ]{0,20}/\n"
        return 'start: "yes" | "no"\n' if "Yes or no?" in instruction else 'start: "true" | "false"\n'


@dataclass(frozen=True)
class Broken:
    """A grammar that llguidance refuses: in the instruction or only in the answer."""

    where: str
    is_watched: bool = False

    def instruction(self) -> str:
        return "start: /(/\n" if self.where == "instruction" else 'start: "ok\\n<|pipe|>\\n"\n'

    def answer(self, instruction: str) -> str:
        return "start: %regex {\n"


def prompt(constraint, number: int = 0) -> Prompt:
    return Prompt(
        f"{number}", Passage("p", PASSAGE, "f", 0, 9), "qa", 0, number, text="in the " * 9, constraint=constraint
    )


@pytest.fixture(scope="module")
def engine(tiny_model):
    options = EngineOptions(device="cpu", batch_size=5)
    return open_engine("hf", EngineSettings(model=str(tiny_model("llama")), options=options))


def finished(engine, constraint, sampling=WARM, count: int = 12) -> list[str]:
    answers = engine.generate([prompt(constraint, number) for number in range(count)], sampling)
    assert {answer.finish for answer in answers} == {"stop"}, answers
    return [answer.text for answer in answers]


def test_every_row_has_the_form_and_the_answer_that_its_own_instruction_offers(engine):
    texts = finished(engine, Toy())
    for text in texts:
        found = re.fullmatch(r"[ -;=-~]{1,40}(Yes or no\?|True or false\?)\n<\|pipe\|>\n(yes|no|true|false)", text)
        assert found, text
        assert (found[1] == "Yes or no?") == (found[2] in ("yes", "no"))
    assert len(set(texts)) > 1


def test_an_extractive_answer_is_a_run_of_words_of_the_passage(engine):
    for text in finished(engine, Toy("span")):
        answer = text.split("\n<|pipe|>\n")[1]
        assert answer
        assert answer in PASSAGE


def test_the_written_text_satisfies_both_grammars_when_it_is_read_again(engine, tiny_model):
    tokenizer = llguidance.hf.from_tokenizer(AutoTokenizer.from_pretrained(tiny_model("llama")))
    for text in finished(engine, Toy("free")):
        instruction, separator, answer = text.partition("\n<|pipe|>\n")
        for grammar, part in ((Toy("free").instruction(), instruction + separator), (Toy("free").answer(""), answer)):
            matcher = llguidance.LLMatcher(tokenizer, grammar)
            tokens = tokenizer.tokenize_str(part)
            assert matcher.try_consume_tokens(tokens) == len(tokens)
            assert matcher.is_accepting()


def test_the_separator_stands_exactly_once_although_tokens_could_straddle_it(engine):
    tokenizer = engine._loaded.tokenizer
    assert tokenizer.tokenize("\ne") == ["Ċe"]
    texts = finished(engine, Toy("free"), count=40)
    assert any("<|pipe|>\ne" in text for text in texts)
    assert all(text.count("<|pipe|>") == 1 for text in texts)


def test_a_greedy_answer_follows_a_sampled_instruction(engine):
    sampling = WARM.model_copy(update={"answer": "greedy"})
    sampled, greedy = finished(engine, Toy("free")), finished(engine, Toy("free"), sampling)
    assert [text.split("\n<|pipe|>\n")[0] for text in sampled] == [text.split("\n<|pipe|>\n")[0] for text in greedy]
    assert sampled != greedy
    assert greedy == finished(engine, Toy("free"), sampling)


def test_one_broken_grammar_is_one_error_and_the_others_go_on(engine):
    asked = [Toy(), Broken("instruction"), Broken("answer"), Toy()]
    answers = engine.generate([prompt(constraint, number) for number, constraint in enumerate(asked)], WARM)
    assert [answer.finish for answer in answers] == ["stop", "error", "error", "stop"]
    assert all(answer.error for answer in answers[1:3])


def test_too_few_tokens_end_a_row_with_length_and_not_with_an_error(engine):
    answers = engine.generate(
        [prompt(Toy(), number) for number in range(6)], WARM.model_copy(update={"max_new_tokens": 8})
    )
    assert {answer.finish for answer in answers} == {"length"}


def test_a_constraint_may_refuse_what_its_grammar_would_take(engine):
    prompts = [prompt(Toy("watched"), number) for number in range(12)]
    texts = [completion.text.split("\n<|pipe|>\n") for completion in engine.generate(prompts, WARM)]
    assert all(len(parts) == 2 for parts in texts)
    assert not any("a" in instruction.casefold() for instruction, _ in texts)
    plain = engine.generate([prompt(Toy("span"), number) for number in range(12)], WARM)
    assert any("a" in completion.text.casefold().split("\n<|pipe|>\n")[0] for completion in plain)


def test_the_grammar_can_be_turned_off(engine):
    free = WARM.model_copy(update={"grammar": False})
    constrained = engine.generate([prompt(Toy(), number) for number in range(3)], free)
    assert constrained == engine.generate([prompt(None, number) for number in range(3)], free)


def test_rows_under_grammars_do_not_depend_on_the_batch(engine):
    together = engine.generate([prompt(Toy("free"), number) for number in range(12)], WARM)
    assert together[:3] == [engine.generate([prompt(Toy("free"), number)], WARM)[0] for number in range(3)]


def test_rows_with_and_without_grammar_mix(engine):
    asked = [prompt(Toy() if number % 2 else None, number) for number in range(6)]
    assert engine.generate(asked, WARM) == [engine.generate([one], WARM)[0] for one in asked]
