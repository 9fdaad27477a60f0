"""How a target model is asked: the one wording for its training and its evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from katsuo.errors import UsageError
from katsuo.records import Message

Style = Literal["chat", "input-output", "template"]
Asked = str | tuple[Message, ...]
"""A raw prompt, or the messages of a chat."""


def choose_style(wanted: str, *, model: str, has_chat_template: bool) -> Style:
    """Give the style for a model: by its chat template if it has one, else as the paper asks base models."""
    if wanted == "auto":
        return "chat" if has_chat_template else "input-output"
    if wanted == "chat" and not has_chat_template:
        raise UsageError(f'the model "{model}" has no chat template', hint="set style to input-output")
    if wanted not in ("chat", "input-output", "template"):
        raise UsageError(f'there is no style "{wanted}"', hint="choose auto, chat, input-output or template")
    return wanted  # type: ignore[return-value]


def asker(style: str, template: str | None = None) -> Callable[[str], Asked]:
    """Give the function that writes an instruction in a style; `template` holds `{instruction}`."""
    if style == "chat":
        return lambda instruction: (Message("user", instruction.strip()),)
    if style == "template":
        if template is None or template.count("{instruction}") != 1:
            raise UsageError(f"a prompt template has to hold {{instruction}} once, not as in {template!r}",
                             hint='write one such as "Instruct: {instruction}\\nAnswer:"')  # fmt: skip
        return lambda instruction: template.replace("{instruction}", instruction)
    return lambda instruction: f"<|input|>\n{instruction.strip()}\n<|output|>\n"
