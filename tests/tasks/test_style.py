from __future__ import annotations

import pytest

from katsuo.errors import UsageError
from katsuo.records import Message
from katsuo.tasks.style import asker, choose_style


def test_an_instruction_is_written_in_its_style():
    assert asker("chat")(" Who? ") == (Message("user", "Who?"),)
    assert asker("input-output")(" Who? ") == "<|input|>\nWho?\n<|output|>\n"
    assert asker("template", "Q: {instruction}\nA:")("Who?") == "Q: Who?\nA:"


@pytest.mark.parametrize("template", [None, "no place", "{instruction} {instruction}"])
def test_a_template_has_one_place_for_the_instruction(template):
    with pytest.raises(UsageError, match="instruction"):
        asker("template", template)


def test_auto_takes_the_chat_template_where_there_is_one():
    assert choose_style("auto", model="m", has_chat_template=True) == "chat"
    assert choose_style("auto", model="m", has_chat_template=False) == "input-output"
    with pytest.raises(UsageError, match='"m" has no chat template'):
        choose_style("chat", model="m", has_chat_template=False)
    with pytest.raises(UsageError, match="no style"):
        choose_style("verse", model="m", has_chat_template=True)
