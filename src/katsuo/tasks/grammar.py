"""What the decoder may emit for one task type on one passage, as Lark grammars in the dialect of llguidance."""

from __future__ import annotations

import json
from dataclasses import dataclass

from katsuo.tasks.shapes import AnswerShape, Labels, Options, Span, allowed_answers, find_options
from katsuo.tasks.sketch import sketch_pair

MAX_INSTRUCTION_CHARS = 700
_CHAR = r"([^<{]|<[^|<{]|\{[^{<])"
"""Any character, but never the start of a control marker or of the placeholder."""
_SEPARATOR = r"\n<\|pipe\|>\n"


@dataclass(frozen=True, slots=True)
class TaskConstraint:
    """
    Hold a decoder to the form of one task type: the instruction first, then an answer that fits what was written.

    The grammars promise: one separator, both parts non-empty, the placeholder once in the instruction, and a response
    of the type's shape.
    """

    shape: AnswerShape
    passage: str

    def instruction(self) -> str:
        """Give the grammar of the instruction, up to and including the line of the separator."""
        half = MAX_INSTRUCTION_CHARS // 2
        if isinstance(self.shape, Options) and self.shape.is_required:
            return (
                f"start: /{_CHAR}{{0,{half}}}/ CONTEXT /{_CHAR}{{3,{half}}}/ OPTIONS /{_SEPARATOR}/\n"
                'CONTEXT: "{{context}}"\n'
                r"OPTIONS: /\nA\. [^\s<{][^\n<{]{0,80}\nB\. [^\s<{][^\n<{]{0,80}"
                r"(\nC\. [^\s<{][^\n<{]{0,80}(\nD\. [^\s<{][^\n<{]{0,80})?)?/" + "\n"
            )
        return f"start: /{_CHAR}{{0,{half}}}\\{{\\{{context\\}}\\}}{_CHAR}{{3,{half}}}{_SEPARATOR}/\n"

    def answer(self, instruction: str) -> str:
        """Give the grammar of the response to `instruction`."""
        shape = self.shape
        if isinstance(shape, Span):
            return f"start: %regex {json.dumps({'substring_words': self.passage})}\n"
        if isinstance(shape, Labels):
            return _one_of(label_spellings(shape.allowed(instruction), instruction))
        if isinstance(shape, Options) and (options := find_options(instruction)):
            return _one_of(allowed_answers(options))
        return f"start: /[^\\s<{{]{_CHAR}{{0,{shape.max_chars - 1}}}/\n"

    def sketch(self, seed: int) -> str:
        """Give a completion of the right form without a model."""
        return sketch_pair(self.shape, self.passage, seed)


def _one_of(answers: tuple[str, ...]) -> str:
    return "start: " + " | ".join(json.dumps(answer, ensure_ascii=False) for answer in answers) + "\n"


def label_spellings(labels: tuple[str, ...], instruction: str) -> tuple[str, ...]:
    """Spell labels as the instruction does where it names them, else capitalised: the field's templates do both."""
    return tuple(label if label in instruction else label[:1].upper() + label[1:] for label in labels)
