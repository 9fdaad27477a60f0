"""The wire format between katsuo and a task generator: render a prompt, parse a completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from katsuo.errors import UsageError
from katsuo.records import Message, Reason
from katsuo.registry import unknown_name
from katsuo.tasks.shapes import PLACEHOLDER
from katsuo.tasks.task_type import TaskType

SEPARATOR = "<|pipe|>"
MARKERS = ("<|tasktype|>", "<|context|>", "<|task|>", SEPARATOR, "<|input|>", "<|output|>", PLACEHOLDER)
"""Texts with a meaning on the wire. They are plain text, not added tokens, so a passage that holds one is refused."""
_OF_PROMPTS = ("<|tasktype|>", "<|context|>", "<|task|>")
"""In a completion they say that the model has gone on to another prompt."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a task generator wrote: `{{context}}` still stands for the passage in either part."""

    instruction: str
    response: str

    def fill(self, passage: str) -> Pair:
        """Put the passage where the placeholder stands. The passage itself is never read again."""
        return Pair(self.instruction.replace(PLACEHOLDER, passage), self.response.replace(PLACEHOLDER, passage))


def join_pair(instruction: str, response: str) -> str:
    """Write a pair as the generator does: instruction, separator, response, one line break around the separator."""
    return f"{instruction}\n{SEPARATOR}\n{response}"


def parse_pair(text: str) -> Pair | Reason:
    """Read a completion: exactly one separator, no marker of a prompt, two non-empty parts, or the reason why not."""
    instruction, separator, response = text.partition(SEPARATOR)
    if not separator or any(marker in text for marker in _OF_PROMPTS) or SEPARATOR in response:
        return Reason.PARSE_FAILURE
    pair = Pair(instruction.strip(), response.strip())
    return pair if pair.instruction and pair.response else Reason.EMPTY_PART


def render_bonito(task_type_name: str, passage: str) -> str:
    """Write the prompt of the published `bonito-v1` models, to the byte (paper, appendix; model card)."""
    return f"<|tasktype|>\n{task_type_name}\n<|context|>\n{passage.strip()}\n<|task|>\n"


def read_bonito(prompt: str) -> tuple[str, str]:
    """Give the task type's name and the passage of a `bonito-v1` prompt; two empty texts for another prompt."""
    head, _, rest = prompt.partition("\n<|context|>\n")
    name = head.removeprefix("<|tasktype|>\n")
    passage, marker, _ = rest.rpartition("\n<|task|>\n")
    return (name, passage) if marker and name != head else ("", "")


class Codec(Protocol):
    """
    Render one question about a passage, as raw text or as chat messages; the other of the two is empty.

    `is_framed` says that the model was never trained to write tasks, so that a fixed wording is to hold it.
    """

    name: str
    is_framed: bool

    def render(self, task: TaskType, passage: str) -> tuple[str, tuple[Message, ...]]:
        """Give raw text, or messages."""
        ...

    def render_question(self, task: TaskType, passage: str, instruction: str) -> tuple[str, tuple[Message, ...]]:
        """Ask for the response to an instruction that is there already, as raw text or as messages."""
        ...


class BonitoV1:
    """The format of trained task generators."""

    name = "bonito-v1"
    is_framed = False

    def render(self, task: TaskType, passage: str) -> tuple[str, tuple[Message, ...]]:
        """Give the raw prompt."""
        return render_bonito(task.name, passage), ()

    def render_question(self, task: TaskType, passage: str, instruction: str) -> tuple[str, tuple[Message, ...]]:
        """Give the raw prompt with the instruction and the separator behind it."""
        return render_bonito(task.name, passage) + join_pair(instruction, ""), ()


class Instruct:
    """
    A chat with the task type's description and worked examples, for any instruction-tuned model.

    All but the last turn is the same for every passage, so an engine can keep its keys and values.
    """

    name = "instruct"
    is_framed = True

    def render(self, task: TaskType, passage: str) -> tuple[str, tuple[Message, ...]]:
        """Give the chat messages."""
        return "", (*_opening(task), Message("user", _ask(task, passage.strip())))

    def render_question(self, task: TaskType, passage: str, instruction: str) -> tuple[str, tuple[Message, ...]]:
        """Give the instruction, with the passage in it, as a chat of one message."""
        del task
        return "", (Message("user", Pair(instruction, "").fill(passage.strip()).instruction),)


def _opening(task: TaskType) -> tuple[Message, ...]:
    system = (
        f"You write one {task.name} task about each passage. {task.description} "
        f"Write the instruction, with {PLACEHOLDER} where the passage is to stand, "
        f"then a line {SEPARATOR}, then the response."
    )
    turns = [Message("system", system)]
    for example in task.examples:
        turns.append(Message("user", _ask(task, example.passage)))
        turns.append(Message("assistant", join_pair(example.instruction, example.response)))
    return tuple(turns)


def _ask(task: TaskType, passage: str) -> str:
    return f"Passage: {passage}\n\nWrite a new {task.name} task about this passage."


CODECS: dict[str, Codec] = {codec.name: codec for codec in (BonitoV1(), Instruct())}


def find_codec(name: str) -> Codec:
    """Give the codec called `name`; raise `UnknownNameError` otherwise."""
    if name not in CODECS:
        raise unknown_name("codec", name, CODECS)
    return CODECS[name]


def find_marker(text: str) -> str | None:
    """Give the first control marker that stands in `text`, if any."""
    if "<|" not in text and "{{" not in text:
        return None
    return next((marker for marker in MARKERS if marker in text), None)


def require_marker_free(text: str, *, where: str) -> None:
    """Refuse a text of the user's own settings that holds a control marker other than the placeholder."""
    marker = find_marker(text.replace(PLACEHOLDER, ""))
    if marker:
        raise UsageError(f'{where} holds the control marker "{marker}"', hint="write it without the marker")
