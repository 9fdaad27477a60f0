"""Has the model seen the test? Runs of words that test rows share with a run's passages and examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from katsuo.evaluate.suites.items import Item
from katsuo.pipeline.words import runs_of, words_of
from katsuo.store import Run

NGRAM = 13
"""Words in a row that are hardly ever shared by chance (Brown et al. 2020, appendix C)."""
_FEWEST_WORDS = 5
"""A question of fewer words says nothing when it turns up elsewhere."""


@dataclass(frozen=True)
class Overlap:
    """How many test rows share words with a run: by their passage, and by what they ask; `rows` names some of them."""

    items: int
    passages: int
    questions: int
    rows: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """Say it in the verdict's words; empty where nothing is shared."""
        told = [(self.passages, "passage"), (self.questions, "question")]
        parts = [f"{count} by their {what}" for count, what in told if count]
        return f"test rows that stand in the run: {', '.join(parts)} (of {self.items})" if parts else ""


def find_overlap(items: Sequence[Item], texts: Iterable[str], *, ngram: int = NGRAM) -> Overlap:
    """
    Find the items of which a run of `ngram` words stands in one of `texts`, or the whole where it is shorter.

    Does not measure paraphrases.
    """
    known: dict[int, dict[str, set[tuple[int, int]]]] = {}
    for number, item in enumerate(items):
        for part, text in enumerate((item.passage, item.question)):
            words = words_of(text)
            size = min(ngram, len(words))
            if size < _FEWEST_WORDS:
                continue
            runs = known.setdefault(size, {})
            for run in runs_of(words, size):
                runs.setdefault(run, set()).add((number, part))
    found: set[tuple[int, int]] = set()
    for text in texts:
        words = words_of(text)
        for size, runs in known.items():
            for run in runs_of(words, size):
                found |= runs.get(run, set())
    rows = sorted({number for number, _ in found})
    passages = sum(part == 0 for _, part in found)
    return Overlap(len(items), passages, len(found) - passages, tuple(items[number].id for number in rows[:10]))


def texts_of(run: Run) -> Iterable[str]:
    """Give every passage of a run, and of every example what was written about it."""
    for passage in run.passages():
        yield passage.text
    for example in run.examples():
        # The passage inside the instruction has been given already.
        yield example.instruction.replace(example.context, " ") if example.context else example.instruction
        yield example.response
