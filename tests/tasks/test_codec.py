from __future__ import annotations

import pytest

from katsuo.errors import UnknownNameError
from katsuo.records import Reason
from katsuo.tasks import find_task
from katsuo.tasks.codec import Pair, find_codec, find_marker, parse_pair, render_bonito


def test_the_published_prompt_is_written_to_the_byte() -> None:
    task = find_task("nli")
    text, messages = find_codec("bonito-v1").render(task, "\n A passage.\t\n")
    assert text == "<|tasktype|>\nnatural language inference\n<|context|>\nA passage.\n<|task|>\n"
    assert text == render_bonito(task.name, "A passage.")
    assert messages == ()


def test_the_chat_prompt_opens_alike_for_every_passage() -> None:
    codec, task = find_codec("instruct"), find_task("exqa")
    first, second = codec.render(task, "One.")[1], codec.render(task, "Two.")[1]
    assert first[:-1] == second[:-1]
    assert [message.role for message in first] == ["system", *["user", "assistant"] * len(task.examples), "user"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no separator at all", Reason.PARSE_FAILURE),
        ("one\n<|pipe|>\ntwo\n<|pipe|>\nthree", Reason.PARSE_FAILURE),
        ("one\n<|pipe|>\ntwo\n<|tasktype|>\nthree", Reason.PARSE_FAILURE),
        ("\n<|pipe|>\nonly a response", Reason.EMPTY_PART),
        ("only an instruction\n<|pipe|>\n \n", Reason.EMPTY_PART),
    ],
)
def test_a_completion_that_is_no_pair_says_why(text: str, reason: Reason) -> None:
    assert parse_pair(text) is reason


def test_the_passage_is_put_in_after_parsing_and_never_read_again() -> None:
    passage = "x <|pipe|> {{context}} y"
    pair = parse_pair("Is it so? {{context}}\n<|pipe|>\nyes, {{context}}")
    assert isinstance(pair, Pair)
    assert pair.fill(passage) == Pair(f"Is it so? {passage}", f"yes, {passage}")


@pytest.mark.parametrize("marker", ["<|pipe|>", "<|task|>", "{{context}}", "<|context|>", "<|tasktype|>"])
def test_control_markers_are_found(marker: str) -> None:
    assert find_marker(f"a {marker} b") == marker
    assert find_marker("a <b> {c} | d") is None


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UnknownNameError, match='did you mean "bonito-v1"'):
        find_codec("bonito-v2")
