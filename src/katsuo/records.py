"""The nouns that travel through katsuo: values, frozen, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Reason(str, Enum):
    """Why something was left out. Every loss in katsuo is one of these words."""

    UNREADABLE = "unreadable document"
    NOT_TEXT = "not text"
    ENCRYPTED = "encrypted document"
    EMPTY_DOCUMENT = "empty document"
    UNSUPPORTED = "unsupported format"
    DUPLICATE_DOCUMENT = "duplicate document"
    EMPTY_PASSAGE = "empty passage"
    CONTROL_MARKER = "control marker in passage"
    DUPLICATE_PASSAGE = "duplicate passage"
    HELD_OUT = "in held-out data"
    TOO_LONG = "prompt too long"
    TOO_SHORT = "response too short"
    ENGINE_ERROR = "engine error"
    UNFINISHED = "unfinished answer"
    PARSE_FAILURE = "parse failure"
    EMPTY_PART = "empty part"
    NO_PLACEHOLDER = "passage not referred to"
    NOT_IN_CHOICES = "answer not in choices"
    NOT_IN_PASSAGE = "span not in passage"
    NOT_WHOLE_PASSAGE = "response not the passage"
    NO_OPTIONS = "no options in instruction"
    NOT_AN_OPTION = "answer not an option"
    ANSWER_GIVEN_AWAY = "answer stands in instruction"
    OFF_TOPIC = "instruction not about passage"
    COPIES_EXAMPLE = "copies worked example"
    READINGS = "readings disagree"
    DUPLICATE = "duplicate"
    FORBIDDEN = "forbidden in a template"
    TEMPLATE_ERROR = "template error"
    TIME_LIMIT = "time limit"
    OUTPUT_LIMIT = "output limit"
    ABSENT_COLUMN = "absent column"
    OVER_CAP = "over the cap"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Document:
    """One text as a source read it; `source` names the file and, in a table, the row (`a.csv#row=3`)."""

    source: str
    text: str
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that fits into one prompt: `document.text[char_start:char_end]` is `text`."""

    id: str
    text: str
    source: str
    char_start: int
    char_end: int


class Constraint(Protocol):
    """What a decoder may emit for one prompt, as Lark grammars of llguidance: the instruction, then the answer."""

    def instruction(self) -> str:
        """Give the grammar of the instruction, up to and including the separator."""
        ...

    @property
    def is_watched(self) -> bool:
        """Whether `may_go_on` has anything to say; an engine that cannot ask it leaves the rest to the checks."""
        ...

    def may_go_on(self, written: str) -> bool:
        """Say, beyond the grammar, whether an instruction may begin with `written`."""
        ...

    def answer(self, instruction: str) -> str:
        """Give the grammar of the answer to `instruction`."""
        ...

    def sketch(self, seed: int) -> str:
        """Give a whole well-formed completion without a model."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a task generator: a raw `text` or chat `messages`, never both."""

    id: str
    passage: Passage
    task_type: str
    draw: int
    seed: int
    text: str = ""
    messages: tuple[Message, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """
    What came back for one prompt.

    `finish` is "stop" (the model ended it), "length" (`max_new_tokens` ended it), "too_long" (the prompt does not fit
    the model) or "error" (with the engine's own words in `error`).
    """

    text: str = ""
    finish: str = "stop"
    new_tokens: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction-response pair that passed every check, and where it came from."""

    id: str
    task_type: str
    instruction: str
    response: str
    passage_id: str
    source: str
    char_start: int
    char_end: int
    context: str
    model: str
    engine: str
    sampling: str
    prompt_hash: str
    seed: int
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """
    One thing that was left out, with its reason.

    `kind` is "document", "passage" or "prompt"; `detail` is the value that failed, `text` what the model wrote.
    """

    kind: str
    reason: Reason
    source: str
    id: str = ""
    task_type: str = ""
    passage_id: str = ""
    char_start: int = 0
    char_end: int = 0
    detail: str = ""
    text: str = ""


@dataclass(frozen=True)
class Summary:
    """
    The ledger of a run, at three levels that each add up.

    documents = documents read + `documents_rejected`; passages cut = `passages` + `passages_rejected`;
    `prompts` = `kept` + `rejected` (+ what is still to do in an unfinished run).
    """

    documents: int = 0
    documents_rejected: Mapping[str, int] = field(default_factory=dict)
    passages: int = 0
    passages_rejected: Mapping[str, int] = field(default_factory=dict)
    prompts: int = 0
    kept: int = 0
    kept_by_task: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """True when every prompt has ended as kept or as rejected."""
        return self.kept + sum(self.rejected.values()) == self.prompts

    @property
    def is_short(self) -> bool:
        """True when fewer examples were kept than prompts were asked."""
        return self.kept < self.prompts
