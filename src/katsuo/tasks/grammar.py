"""What the decoder may emit for one task type on one passage, as Lark grammars in the dialect of llguidance."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import ceil

from katsuo.tasks.shapes import (
    OPTION_LISTS,
    PLACEHOLDER,
    AnswerShape,
    Frame,
    Labels,
    Options,
    Span,
    Whole,
    allowed_answers,
    find_options,
)
from katsuo.tasks.sketch import sketch_pair

_HALF = 350
"""Most characters before the passage, and after it: an instruction must end before the tokens do."""
_IN_LINE = r"[^<{\n]|< *[^|<{\n ]|\{[^{<\n]"
_CHAR = rf"({_IN_LINE}|\n{{1,3}}[^<{{\n])"
"""
Any character, but never the start of a control marker or of the placeholder, and no `<` that begins a line: a
model that wants to end there would go on with it, line after line.
"""
_STEM_CHAR = rf"({_IN_LINE}|\n{{1,3}}([^<{{\n A-Ha-h1-9(*•-]|[A-Ha-h1-9][^<{{\n).: ]))"
"""The same, but no line that begins as an option does: a stem holds no list, which stands after it."""
_CONTEXT = r"\{\{context\}\}"
_BREAKS = r"\n{0,3}"


def _around_passage(char: str) -> str:
    text_first = f"{char}{{3,{_HALF}}}{_BREAKS}{_CONTEXT}{char}{{0,{_HALF}}}"
    passage_first = f"{char}{{0,2}}{_BREAKS}{_CONTEXT}{char}{{3,{_HALF}}}"
    return f"({text_first}|{passage_first})"


_INSTRUCTION = _around_passage(_CHAR)
_STEM = _around_passage(_STEM_CHAR)
_PARAGRAPHS = rf"[^\s<{{]{_CHAR}{{0,599}}"
_LINE = r"[^\s<{][^\n<{]{1,300}[^\s<{]"
_SEPARATOR = r"\n<\|pipe\|>\n"
_OPTION_LINE = re.compile(r"\n ?(?:[a-d][.):]|-|\([a-d]\)|ending [1-4]:) +([^\n]*)")
_LIST_IN_LINE = re.compile(r"\b(?:options|answers|choices):[ \t]*\S")
_WORD = re.compile(r"\w+")
_ALIKE = 0.7
"""An option may begin as one above it does for less than this share of its words; small models else repeat it."""


@dataclass(frozen=True, slots=True)
class TaskConstraint:
    """
    Hold a decoder to the form of one task type: the instruction first, then an answer that fits what was written.

    The grammars promise: one separator, both parts non-empty, the placeholder once in the instruction (in the response
    where that is the whole passage), and a response of the type's shape.
    """

    shape: AnswerShape
    passage: str
    frame: Frame | None = None

    def instruction(self) -> str:
        """Give the grammar of the instruction, up to and including the line of the separator."""
        if self.frame:
            return _framed(self.frame)
        if isinstance(self.shape, Whole):
            return f"start: /{_CHAR}{{10,{2 * _HALF}}}{_SEPARATOR}/\n"
        if not isinstance(self.shape, Options):
            return f"start: /{_INSTRUCTION}{_SEPARATOR}/\n"
        return f"start: /{_STEM}({OPTION_LISTS}){'' if self.shape.is_required else '?'}{_SEPARATOR}/\n"

    @property
    def is_watched(self) -> bool:
        """Say whether the instruction may list options, which have to differ."""
        return isinstance(self.shape, Options)

    def may_go_on(self, written: str) -> bool:
        """
        Let no option that is being written come close to one that stands above it; no grammar can say that.

        Where options are required, let no list stand within a line beside the one below; to say that takes a grammar
        too many states.
        """
        assert isinstance(self.shape, Options), "only where the instruction may list options"
        folded = written.casefold()
        if self.shape.is_required and _LIST_IN_LINE.search(folded):
            return False
        *above, current = _OPTION_LINE.findall(folded) or [""]
        begun = _letters(current)
        return not any(begun.startswith(start) for option in above if (start := _letters(option, _ALIKE)))

    def answer(self, instruction: str) -> str:
        """Give the grammar of the response to `instruction`."""
        shape = self.shape
        if isinstance(shape, Span):
            piece = json.dumps({"substring_words": self.passage})
            return f"start: SPAN\nSPAN: PIECE & /\\S+(\\s+\\S+){{0,{shape.max_words - 1}}}/\nPIECE: %regex {piece}\n"
        if isinstance(shape, Whole):
            return _one_of((PLACEHOLDER,))
        if isinstance(shape, Labels):
            return _one_of(label_spellings(shape.allowed(instruction), instruction))
        if isinstance(shape, Options) and (options := find_options(instruction)):
            return _one_of(allowed_answers(options))
        return f"start: /{_LINE if self.frame else _PARAGRAPHS}/\n"

    def sketch(self, seed: int) -> str:
        """Give a completion of the right form without a model."""
        return sketch_pair(self.shape, self.passage, seed)


def _letters(option: str, share: float = 1.0) -> str:
    """Join the words that an option begins with, so that neither spaces nor signs tell two apart."""
    words = _WORD.findall(option)
    return "".join(words[: ceil(share * len(words))])


def _framed(frame: Frame) -> str:
    # One expression: the lexer never goes back, so a line and the wording after it must not be tokens of their own.
    return f"start: /{_literal(frame.before)}{frame.line}{_literal(frame.after)}{_SEPARATOR}/\n"


def _literal(text: str) -> str:
    return re.sub(r"[\\.+*?()|\[\]{}^$#&~/-]", r"\\\g<0>", text).replace("\n", r"\n")


def _one_of(answers: tuple[str, ...]) -> str:
    return "start: " + " | ".join(json.dumps(answer, ensure_ascii=False) for answer in answers) + "\n"


def label_spellings(labels: tuple[str, ...], instruction: str) -> tuple[str, ...]:
    """Spell labels in lower case where the instruction names them so, else capitalised, as the field's templates do."""
    if all(label in instruction for label in labels):
        return labels
    return tuple(label[:1].upper() + label[1:] for label in labels)
