"""From passages to examples and rejects: ask, let the engine answer, judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from katsuo.config import Sampling
from katsuo.engines.base import CanGenerate, CanRecall
from katsuo.pipeline.ask import ask
from katsuo.pipeline.judge import Origin, drop_duplicate, judge
from katsuo.pipeline.reread import Ask, Readings
from katsuo.pipeline.similar import NearDuplicates
from katsuo.records import Completion, Example, Passage, Prompt, Reject
from katsuo.tasks import TaskType
from katsuo.tasks.codec import Codec


@dataclass(frozen=True)
class Outcome:
    """How the prompts of one shard ended: every one as an example or as a reject."""

    examples: tuple[Example, ...]
    rejects: tuple[Reject, ...]
    new_tokens: int

    def counts(self) -> dict[str, object]:
        """Count what was kept, by task type, and what was not, by reason."""
        return {
            "prompts": len(self.examples) + len(self.rejects),
            "kept": len(self.examples),
            "kept_by_task": dict(Counter(example.task_type for example in self.examples)),
            "rejected": dict(Counter(str(reject.reason) for reject in self.rejects)),
            "new_tokens": self.new_tokens,
        }

    def first(self, count: int) -> Outcome:
        """Give the outcome with its first `count` examples alone; the others count as not answered yet."""
        return replace(self, examples=self.examples[:count])


@dataclass(frozen=True)
class Answerer:
    """Ask one engine about passages; depends on nothing but what it holds and the passages it is given."""

    engine: CanGenerate
    tasks: tuple[TaskType, ...]
    codec: Codec
    sampling: Sampling
    seed: int
    readings: int = 0

    @property
    def by_name(self) -> dict[str, TaskType]:
        """The task types by their full names."""
        return {task.name: task for task in self.tasks}

    def answer(self, passages: Sequence[Passage]) -> Outcome:
        """Ask every task type about every passage and judge what comes back."""
        prompts = self._prompts(passages)
        return self._judged(prompts, self.engine.generate(prompts, self.sampling), self.engine.generate)

    def recall(self, passages: Sequence[Passage]) -> Outcome:
        """Judge what was answered before and ask nothing; a prompt without an answer is left out."""
        assert isinstance(self.engine, CanRecall), "only an engine behind a cache is stopped within a batch"
        prompts = self._prompts(passages)
        recalled = zip(prompts, self.engine.recall(prompts, self.sampling), strict=True)
        known = [(prompt, completion) for prompt, completion in recalled if completion]
        prompts, completions = [prompt for prompt, _ in known], [completion for _, completion in known]
        return self._judged(prompts, completions, self.engine.recall)

    def _prompts(self, passages: Sequence[Passage]) -> list[Prompt]:
        return list(ask(passages, tasks=self.tasks, codec=self.codec, n=self.sampling.n, seed=self.seed))

    def _judged(self, prompts: Sequence[Prompt], completions: Sequence[Completion], ask_again: Ask) -> Outcome:
        origin = Origin(self.engine.info, self.sampling.model_dump_json())
        tasks = self.by_name
        judged: list[Example | Reject | None] = [
            judge(prompt, completion, task=tasks[prompt.task_type], origin=origin)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        new_tokens = sum(completion.new_tokens for completion in completions)
        if self.readings:
            again = Readings(self.codec, tasks, ask_again, self.readings, self.sampling.temperature)
            judged, more_tokens = again.read(prompts, completions, judged)
            new_tokens += more_tokens
        return _outcome([one for one in judged if one], new_tokens)


def without_duplicates(outcome: Outcome, tasks: Mapping[str, TaskType], seen: NearDuplicates) -> Outcome:
    """Move the examples of which much the same was kept before to the rejects; remember the others in `seen`."""
    judged = [drop_duplicate(example, tasks[example.task_type], seen) for example in outcome.examples]
    return _outcome([*outcome.rejects, *judged], outcome.new_tokens)


def _outcome(judged: Sequence[Example | Reject], new_tokens: int) -> Outcome:
    return Outcome(
        tuple(one for one in judged if isinstance(one, Example)),
        tuple(one for one in judged if isinstance(one, Reject)),
        new_tokens,
    )
