"""Turn completions into examples or rejects: parse first, check, substitute the passage last."""

from __future__ import annotations

from dataclasses import dataclass, replace

from katsuo.engines.base import ModelInfo
from katsuo.pipeline.ask import prompt_hash
from katsuo.pipeline.similar import NearDuplicates
from katsuo.records import Completion, Example, Prompt, Reason, Reject
from katsuo.tasks import TaskType
from katsuo.tasks.checks import first_failure
from katsuo.tasks.codec import parse_pair
from katsuo.tasks.shapes import PLACEHOLDER, Span, as_in_passage
from katsuo.tasks.task_type import Draft


@dataclass(frozen=True)
class Origin:
    """What all examples of a run share: the model and how it was sampled, as text."""

    info: ModelInfo
    sampling: str

    @property
    def model(self) -> str:
        """The model and its revision, as one word."""
        return f"{self.info.model}@{self.info.revision}"


NOT_ANSWERED = {"too_long": Reason.TOO_LONG, "error": Reason.ENGINE_ERROR}
"""Ends of a completion that is no answer at all."""
_FINISH_REASONS = {**NOT_ANSWERED, "length": Reason.UNFINISHED}


def judge(prompt: Prompt, completion: Completion, *, task: TaskType, origin: Origin) -> Example | Reject:
    """Give the example that a completion holds, or the reject that says why it holds none."""
    if reason := _FINISH_REASONS.get(completion.finish):
        return reject(prompt, reason, detail=completion.error, text=completion.text)
    pair = parse_pair(completion.text)
    if isinstance(pair, Reason):
        return reject(prompt, pair, text=completion.text)
    if isinstance(task.answer, Span):
        pair = replace(pair, response=as_in_passage(pair.response, prompt.passage.text))
    failure = first_failure(Draft(task, prompt.passage.text, pair.instruction, pair.response))
    if failure:
        return reject(prompt, failure, detail=pair.response, text=completion.text)
    filled = pair.fill(prompt.passage.text)
    return Example(
        id=prompt.id,
        task_type=task.name,
        instruction=filled.instruction,
        response=filled.response,
        passage_id=prompt.passage.id,
        source=prompt.passage.source,
        char_start=prompt.passage.char_start,
        char_end=prompt.passage.char_end,
        context=prompt.passage.text,
        model=origin.model,
        engine=origin.info.engine,
        sampling=origin.sampling,
        prompt_hash=prompt_hash(prompt),
        seed=prompt.seed,
        checks=tuple(check.__name__ for check in task.checks),
    )


def reject(prompt: Prompt, reason: Reason, *, detail: str = "", text: str = "") -> Reject:
    """Give the reject of a prompt."""
    passage = prompt.passage
    return Reject(
        kind="prompt",
        reason=reason,
        source=passage.source,
        id=prompt.id,
        task_type=prompt.task_type,
        passage_id=passage.id,
        char_start=passage.char_start,
        char_end=passage.char_end,
        detail=detail,
        text=text,
    )


def is_duplicate(example: Example, task: TaskType, seen: NearDuplicates) -> bool:
    """
    Say whether much the same was kept before, and remember the example if not. The passage itself is not compared.

    Where the answer is a label, an option or a span, the instruction counts alone: the same question with another
    answer is no new example, and one of the two is wrong. A pair that refers to the passage competes with those of its
    type about the same passage alone: the same question about another passage is another task. One that does not
    competes with all of its type.
    """
    instruction = example.instruction.replace(example.context, PLACEHOLDER)
    whole = f"{instruction} {example.response.replace(example.context, PLACEHOLDER)}"
    written = whole if task.has_free_answer else instruction
    if PLACEHOLDER in whole:
        return seen.is_repeated_nearby(written, f"{example.passage_id}\0{example.task_type}")
    return seen.is_duplicate(written, example.task_type)


def drop_duplicate(example: Example, task: TaskType, seen: NearDuplicates) -> Example | Reject:
    """Give the example, or its reject if much the same was kept before."""
    if not is_duplicate(example, task, seen):
        return example
    return Reject(
        kind="prompt",
        reason=Reason.DUPLICATE,
        source=example.source,
        id=example.id,
        task_type=example.task_type,
        passage_id=example.passage_id,
        char_start=example.char_start,
        char_end=example.char_end,
        detail=example.response,
        text=example.instruction.replace(example.context, PLACEHOLDER),
    )
