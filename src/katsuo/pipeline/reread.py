"""Ask a model its own question again: an answer that it does not give twice is one that it guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from katsuo.config import Sampling
from katsuo.pipeline.judge import reject
from katsuo.records import Completion, Example, Prompt, Reason, Reject
from katsuo.tasks import TaskType
from katsuo.tasks.checks import normalise
from katsuo.tasks.codec import Codec, Pair, parse_pair
from katsuo.tasks.shapes import Labels, Options, Span

Judged = Example | Reject
Ask = Callable[[Sequence[Prompt], Sampling], Sequence[Completion | None]]
"""An engine's `generate`, or what it remembers: None stands for what was never asked."""

AGAIN = Sampling(temperature=0.0, max_new_tokens=64, grammar=False)
"""Greedy, and free: a grammar would hide that the model says something else."""


@dataclass(frozen=True)
class SecondReading:
    """Ask again for the responses whose type makes them comparable: labels, options and spans."""

    codec: Codec
    tasks: Mapping[str, TaskType]
    ask: Ask

    def read(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], judged: Sequence[Judged | None]
    ) -> tuple[list[Judged | None], int]:
        """
        Give every outcome again, an example as a reject where the second reading differs, and the new tokens.

        None stands for an example whose second reading `ask` does not know.
        """
        first = {place: one for place, one in enumerate(judged) if isinstance(one, Example) and self._is_read(one)}
        questions = [self._question(prompts[place], completions[place].text) for place in first]
        outcomes = list(judged)
        new_tokens = 0
        for (place, example), second in zip(first.items(), self.ask(questions, AGAIN), strict=True):
            new_tokens += second.new_tokens if second else 0
            if second is None:
                outcomes[place] = None
            elif not is_same_answer(self.tasks[example.task_type], example.response, second.text):
                text = completions[place].text
                outcomes[place] = reject(prompts[place], Reason.SECOND_READING, detail=second.text.strip(), text=text)
        return outcomes, new_tokens

    def _is_read(self, example: Example) -> bool:
        return isinstance(self.tasks[example.task_type].answer, Labels | Options | Span)

    def _question(self, prompt: Prompt, written: str) -> Prompt:
        pair = parse_pair(written)
        assert isinstance(pair, Pair)  # it was judged to be one
        task = self.tasks[prompt.task_type]
        text, messages = self.codec.render_question(task, prompt.passage.text, pair.instruction)
        return replace(prompt, text=text, messages=messages, constraint=None)


def is_same_answer(task: TaskType, first: str, second: str) -> bool:
    """
    Compare two answers, case and punctuation aside.

    Of two spans one may stand in the other; a label or an option may go on with an explanation. Does not measure
    whether either is right.
    """
    one, other = normalise(first), normalise(second)
    if isinstance(task.answer, Span) and one and other:
        return f" {one} " in f" {other} " or f" {other} " in f" {one} "
    return one == other or other.startswith(f"{one} ")
