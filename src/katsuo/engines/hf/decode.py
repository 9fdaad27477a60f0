"""The decoding loop: a finished row leaves, the next prompt takes its place, and nobody waits for the longest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from katsuo.config import Sampling
from katsuo.engines.hf.grammar import SEPARATOR, GrammarError, GrammarRow, Grammars
from katsuo.engines.hf.memory import Memory, Question
from katsuo.engines.hf.numbers import no_numbers
from katsuo.engines.hf.sample import Draw, sample
from katsuo.records import Completion


@dataclass
class Row:
    """One prompt on its way: what it asked, what it has written, and why it ended."""

    index: int
    question: Question
    seed: int
    grammar: GrammarRow | None = None
    written: list[int] = field(default_factory=list)
    is_answering: bool = False
    finish: str = ""
    error: str = ""

    @property
    def last_token(self) -> int:
        """Give the token that the model reads next."""
        return self.written[-1] if self.written else int(self.question.tokens[-1])


@dataclass(frozen=True)
class Decoder:
    """One model's loop: its memory, its grammars, its end tokens and its way back to text."""

    memory: Memory
    grammars: Grammars
    end_tokens: Collection[int]
    decode: Callable[[Sequence[int]], str]
    batch_size: int

    def run(self, rows: Sequence[Row], sampling: Sampling) -> Iterator[Row]:
        """
        Write every row to its end and give each as it ends.

        Long prompts go first, so that no long row is left alone at the end. A caller may stop early: what lies in the
        memory then is a beginning like any other.
        """
        ordered = sorted(rows, key=lambda row: (-len(row.question.tokens), row.question.tokens.tobytes()))
        queue = deque(ordered)
        places = min(self.batch_size, len(ordered))
        self.memory.reserve(places, len(ordered[0].question.tokens) + sampling.max_new_tokens)
        active: list[Row] = []
        while queue or active:
            if self._has_room(places, active, queue):
                active += self._admit(queue, first=len(active), count=places - len(active))
            self._step(active, sampling)
            yield from self._leave(active)

    def completion(self, row: Row) -> Completion:
        """Say how a row ended."""
        text = self.decode([token for token in row.written if token not in self.end_tokens])
        return Completion(text=text, finish=row.finish, new_tokens=len(row.written), error=row.error)

    def _has_room(self, places: int, active: Sequence[Row], queue: Collection[Row]) -> bool:
        return bool(queue) and (not active or (self.memory.is_refillable and len(active) < places))

    def _admit(self, queue: deque[Row], *, first: int, count: int) -> list[Row]:
        rows = [queue.popleft() for _ in range(min(count, len(queue)))]
        self.memory.admit(first, [row.question for row in rows])
        return rows

    def _step(self, active: Sequence[Row], sampling: Sampling) -> None:
        logits = self.memory.step([row.last_token for row in active])
        if logits[:, 0].isnan().any():
            raise no_numbers()
        draws = [self._draw(row, sampling) for row in active]
        refused = [
            line
            for line, (row, token) in enumerate(zip(active, sample(logits, draws, sampling.top_p), strict=True))
            if not self._take(row, token)
        ]
        if refused:
            self._draw_again([active[line] for line in refused], logits[refused], sampling)
        for row in active:
            if not row.finish and len(row.written) >= sampling.max_new_tokens:
                row.finish = "length"

    def _draw_again(self, rows: Sequence[Row], logits: torch.Tensor, sampling: Sampling) -> None:
        """
        Draw among what the grammars allow, for rows whose first draw was refused.

        Most draws are well formed anyway, so the costly masks are computed for these rows alone.
        """
        while rows:
            masks = self.grammars.masks([row.grammar for row in rows if row.grammar])
            logits = logits[:, : masks.shape[1]].masked_fill(~masks.to(logits.device), float("-inf"))
            draws = [self._draw(row, sampling) for row in rows]
            refused = []
            for line, (row, token) in enumerate(zip(rows, sample(logits, draws, sampling.top_p), strict=True)):
                if not masks[line].any():
                    row.finish, row.error = "error", "the grammar leaves no token to take"
                elif not self._take(row, token):
                    refused.append(line)
            rows, logits = [rows[line] for line in refused], logits[refused]

    def _draw(self, row: Row, sampling: Sampling) -> Draw:
        is_greedy = row.is_answering and sampling.answer == "greedy"
        return Draw(row.seed, len(row.written), 0.0 if is_greedy else sampling.temperature)

    def _take(self, row: Row, token: int) -> bool:
        """Write one token, unless the row's grammar refuses it; end the row where it ends."""
        if row.grammar is None:
            row.written.append(token)
            row.finish = "stop" if token in self.end_tokens else ""
            row.is_answering = row.is_answering or self._has_separator(row)
            return True
        try:
            if not row.grammar.accept(token, row.written):
                return False
        except GrammarError as error:
            row.finish, row.error = "error", str(error)
            return True
        row.written.append(token)
        row.finish = "stop" if row.grammar.is_finished else ""
        row.is_answering = row.grammar.is_answering
        return True

    def _has_separator(self, row: Row) -> bool:
        """Say whether the last token completed the line of the separator, which ends with a line break."""
        return "\n" in self.decode(row.written[-1:]) and SEPARATOR in self.decode(row.written)

    def _leave(self, active: list[Row]) -> list[Row]:
        """Take finished rows out; the last row moves into each gap, so that places stay without holes."""
        finished = []
        for place in reversed(range(len(active))):
            if not active[place].finish:
                continue
            finished.append(active[place])
            last = active.pop()
            if place < len(active):
                self.memory.move(len(active), place)
                active[place] = last
        return finished
