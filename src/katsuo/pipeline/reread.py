"""Ask a model its own question again: an answer that it does not stand by is one that it guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from katsuo.config import Sampling
from katsuo.pipeline.judge import NOT_ANSWERED, reject
from katsuo.records import Completion, Example, Prompt, Reason, Reject
from katsuo.tasks import TaskType
from katsuo.tasks.checks import normalise
from katsuo.tasks.codec import Codec, Pair, parse_pair
from katsuo.tasks.shapes import Labels, Option, Options, Span, find_options

Judged = Example | Reject
Ask = Callable[[Sequence[Prompt], Sampling], Sequence[Completion | None]]
"""An engine's `generate`, or what it remembers: None stands for what was never asked."""

_MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Readings:
    """Ask again for the responses whose type makes them comparable: labels, options and spans."""

    codec: Codec
    tasks: Mapping[str, TaskType]
    ask: Ask
    count: int
    """One reading is greedy; several are sampled."""
    temperature: float

    def read(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], judged: Sequence[Judged | None]
    ) -> tuple[list[Judged | None], int]:
        """
        Give every outcome again, an example as a reject unless most readings agree, its own included; and new tokens.

        None stands for an example of which `ask` does not know all readings.
        """
        first = {place: one for place, one in enumerate(judged) if isinstance(one, Example) and self._is_read(one)}
        questions = [self._question(prompts[place], completions[place].text, k) for place in first for k in self._range]
        answers = list(self.ask(questions, self._sampling))
        outcomes = list(judged)
        for number, (place, example) in enumerate(first.items()):
            own = answers[number * self.count : (number + 1) * self.count]
            known = [answer.text.strip() for answer in own if answer]
            failed = next((answer for answer in own if answer and answer.finish in NOT_ANSWERED), None)
            if len(known) < self.count:
                outcomes[place] = None
            elif failed:
                reason, text = NOT_ANSWERED[failed.finish], completions[place].text
                outcomes[place] = reject(prompts[place], reason, detail=failed.error, text=text)
            elif other := self._disagreeing(example, known):
                text = completions[place].text
                outcomes[place] = reject(prompts[place], Reason.READINGS, detail=" / ".join(other), text=text)
        return outcomes, sum(answer.new_tokens for answer in answers if answer)

    def _disagreeing(self, example: Example, known: Sequence[str]) -> list[str]:
        """Give the answers that differ where they are at least half of all, the example's own included."""
        task = self.tasks[example.task_type]
        options = find_options(example.instruction) if isinstance(task.answer, Options) else []
        asked, given = _named(options, example.response), [_named(options, text) for text in known]
        other = [text for text, one in zip(known, given, strict=True) if not is_same_answer(task, asked, one)]
        return other if 2 * len(other) >= self.count + 1 else []

    @property
    def _range(self) -> range:
        return range(self.count)

    @property
    def _sampling(self) -> Sampling:
        # Free: a grammar would hide that the model says something else.
        temperature = self.temperature if self.count > 1 else 0.0
        return Sampling(temperature=temperature, max_new_tokens=_MAX_NEW_TOKENS, grammar=False)

    def _is_read(self, example: Example) -> bool:
        return isinstance(self.tasks[example.task_type].answer, Labels | Options | Span)

    def _question(self, prompt: Prompt, written: str, number: int) -> Prompt:
        pair = parse_pair(written)
        assert isinstance(pair, Pair)  # it was judged to be one
        task = self.tasks[prompt.task_type]
        text, messages = self.codec.render_question(task, prompt.passage.text, pair.instruction)
        return replace(prompt, seed=prompt.seed ^ number, text=text, messages=messages, constraint=None)


def _named(options: Sequence[Option], answer: str) -> str:
    """Give the text of the option that an answer names by its label, its text or both; else the answer."""
    said = normalise(answer)
    for option in options:
        label, text = normalise(option.label), normalise(option.text)
        if said in (label, text, f"{label} {text}") and said:
            return option.text
    return answer


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
