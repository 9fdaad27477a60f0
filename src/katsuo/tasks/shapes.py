"""What an answer may be: five shapes, and which answers they allow after an instruction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

PLACEHOLDER = "{{context}}"
"""Stands for the passage in an instruction or a response (paper, section 3)."""


@dataclass(frozen=True)
class Labels:
    """One of a fixed set of labels; of several sets, the one that the instruction names."""

    sets: tuple[tuple[str, ...], ...]

    def allowed(self, instruction: str) -> tuple[str, ...]:
        """
        Give the labels that `instruction` allows: the set it names last and whole, else every label.

        >>> Labels((("yes", "no"), ("true", "false"))).allowed("Is it so? True or false?")
        ('true', 'false')
        """
        return _named_set(self.sets, instruction.casefold()) or tuple(
            dict.fromkeys(label for labels in self.sets for label in labels)
        )


@dataclass(frozen=True)
class Span:
    """A verbatim piece of the passage."""

    max_words: int = 25


@dataclass(frozen=True)
class Options:
    """One of the options that the instruction has just listed; `is_required` says whether it must list any."""

    is_required: bool = True
    max_chars: int = 300


@dataclass(frozen=True)
class Text:
    """Free text."""

    max_chars: int = 600


@dataclass(frozen=True)
class Whole:
    """The whole passage: the instruction asks for it and does not hold it."""


@dataclass(frozen=True)
class Frame:
    """
    A fixed wording around one line that the model writes: what holds an untrained model to the point.

    `line` is a regular expression of llguidance, empty where the wording is all there is to the instruction.
    """

    before: str
    line: str = ""
    after: str = ""


_OPTION = r"(([^\s<{*•0-9-]|-[^\s<{-]|[0-9][^\n<{)])[^\n<{]{0,160}|[0-9])"


def _option_lines(*marks: str) -> str:
    first, second, *others = (rf"\n{mark}{_OPTION}" for mark in marks)
    return first + second + "(".join(["", *others]) + ")?" * len(others)


OPTION_LINES = _option_lines(*(rf"{letter}\. " for letter in "ABCD"))
OPTION_LISTS = "|".join(
    [
        OPTION_LINES,
        _option_lines(*(rf"{letter}\) " for letter in "ABCD")),
        _option_lines(*(f"{letter}: " for letter in "ABCD")),
        _option_lines(*["( )?- "] * 4),
        _option_lines(*(rf"\n?\({letter}\) {{1,2}}" for letter in "abcd")),
    ]
)
"""The lists of two to four options that the field's templates have; `OPTION_LINES` is the one of frames."""
QUESTION = r"[A-Z][^\n<{}?]{8,140}\?"
YES_NO_QUESTION = r"(Is|Are|Was|Were|Do|Does|Did|Can|Could|May|Must|Has|Have|Had|Will|Would|Should) [^\n<{}?]{8,140}\?"
STATEMENT = r"[A-Z][^\n<{}\"?]{8,140}\."
TOPIC = r"[a-z][^\n<{}.]{8,140}"
TOPICS = r"[a-z][a-z ]{2,30}(, [a-z][a-z ]{2,30}){1,4}"
WORD_FOR_WORD = r"\"[^\n<{}\"]{1,30}\" stand for [^\n<{}\"?]{1,60}"
SECOND_USE = r"[A-Z][^\n<{}]{8,120}\.\nDoes \"[^\n<{}\" ]{2,30}\""
"""What a model writes, as regular expressions of llguidance."""

AnswerShape = Labels | Span | Options | Text | Whole


@lru_cache(maxsize=256)
def _word(label: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(label.casefold())}(?!\w)")


def _named_set(sets: tuple[tuple[str, ...], ...], folded: str) -> tuple[str, ...] | None:
    """Find the set whose labels all stand in the text, the one named last where there are several."""
    best: tuple[int, int, tuple[str, ...]] | None = None
    for labels in sets:
        if not all(label.casefold() in folded for label in labels):
            continue
        ends = [[match.end() for match in _word(label).finditer(folded)] for label in labels]
        if all(ends):
            candidate = (max(found[-1] for found in ends), len(labels), labels)
            best = candidate if best is None or candidate[:2] > best[:2] else best
    return best[2] if best else None


@dataclass(frozen=True)
class Option:
    """One option of a multiple-choice instruction: `label` is its letter or number, empty in a bulleted list."""

    label: str
    text: str


_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(?P<text>\S.*?)[ \t]*$", re.M)
_LETTERED = re.compile(r"^[ \t]*\(?(?P<label>[A-Ha-h]|[1-9])(?:[).:]+[ \t]*|[ \t]+)(?P<text>\S.*?)[ \t]*$", re.M)
_NAMED = re.compile(
    r"^[ \t]*(?P<label>(?:Ending|Option|Choice|Answer) [1-9A-H])[ \t]*[:.)][ \t]*(?P<text>\S.*?)[ \t]*$", re.M
)
_INLINE = re.compile(
    r"(?:options|choices|possible answers|choose (?:from|between)|one of)\b[^:\n?]*:[ \t]*(?P<all>[^\n]+)", re.I
)
_COMMA = re.compile(r"\s*(?:,\s*(?:or|and)\s+|,\s+|;\s*|\s+or\s+)")


def find_options(instruction: str) -> list[Option]:
    """
    Read the options that an instruction lists: bulleted, lettered or named lines, else one line after «options:».

    >>> [option.text for option in find_options("Options: red, blue")]
    ['red', 'blue']
    """
    for pattern in (_NAMED, _LETTERED, _BULLET):
        found = [Option(m.groupdict().get("label") or "", m["text"]) for m in pattern.finditer(instruction)]
        if pattern is _LETTERED:
            found = _consecutive(found)
        if len(found) >= 2:
            return found
    inline = list(_INLINE.finditer(instruction))
    parts = [part.strip(" .?\"'") for part in _COMMA.split(inline[-1]["all"])] if inline else []
    parts = [part for part in parts if part]
    return [Option("", part) for part in parts] if len(parts) >= 2 else []


def _consecutive(found: list[Option]) -> list[Option]:
    """Keep the last run of labels that starts at A, a or 1 and misses none, so that prose is not taken for options."""
    run: list[Option] = []
    best: list[Option] = []
    for option in found:
        if option.label in ("A", "a", "1"):
            run = [option]
        elif run and ord(option.label) == ord(run[-1].label) + 1:
            run.append(option)
        if len(run) >= 2:
            best = list(run)
    return best


def allowed_answers(options: list[Option]) -> tuple[str, ...]:
    """List what may answer these options: each text, and each label where they have one."""
    return tuple(dict.fromkeys([o.text for o in options] + [o.label for o in options if o.label]))


_WORD = re.compile(r"\w+")


def as_in_passage(answer: str, passage: str) -> str:
    """
    Spell an answer as the passage does where only case, punctuation and white space differ, else leave it.

    >>> as_in_passage("the old Mill.", "The Old Mill, built 1821")
    'The Old Mill'
    """
    words = _WORD.findall(answer)
    if not words or answer in passage:
        return answer
    spelled = re.compile(r"(?<!\w)" + r"\W{1,3}".join(map(re.escape, words)) + r"(?!\w)", re.I)
    found = spelled.search(passage)
    return found[0] if found else answer
