"""The functions that tie the parts together: what the command line does, for a Python program."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from katsuo.config import Recipe, recipe_from
from katsuo.export import export_run
from katsuo.generation import OnProgress, Progress, answer_passages, manifest, read_documents
from katsuo.pipeline.ask import ask
from katsuo.pipeline.prepare import token_counter
from katsuo.records import Example, Passage, Reject
from katsuo.sources import iter_documents
from katsuo.store import Run, create_run
from katsuo.workshop import Workshop, open_workshop


def _silent(progress: Progress) -> None:
    del progress


def generate(
    documents: Sequence[str | Path] | str | Path = (),
    tasks: Sequence[str] | str = (),
    output: str | Path = "run",
    *,
    recipe: Recipe | None = None,
    resume: str = "if-possible",
    on_progress: OnProgress = _silent,
    **settings: Any,
) -> Run:
    """
    Turn documents into checked instruction-response pairs, in the run folder `output`.

    `settings` are those of a recipe, laid over `recipe`; dotted ones are written with two underscores
    (`sampling__n=2`). A run that was stopped is taken up where its last finished shard ended.

    >>> run = generate("contracts/", ["ynqa", "exqa"], "runs/contracts")  # doctest: +SKIP
    >>> print(run.summary().kept)  # doctest: +SKIP
    """
    recipe = build_recipe(documents, tasks, recipe, settings)
    workshop = open_workshop(recipe)
    run = create_run(Path(output), recipe, resume=resume)
    run.write_manifest(manifest(workshop))
    read_documents(run, workshop, on_progress)
    answer_passages(run, workshop, on_progress)
    run.write_manifest({**manifest(workshop), "summary": asdict(run.summary())})
    return run


def build_recipe(
    documents: Sequence[str | Path] | str | Path,
    tasks: Sequence[str] | str,
    recipe: Recipe | None,
    settings: dict[str, Any],
) -> Recipe:
    """Lay documents, task types and settings over a recipe."""
    changes: dict[str, Any] = {key.replace("__", "."): value for key, value in settings.items()}
    if documents:
        paths = [documents] if isinstance(documents, str | Path) else documents
        changes["documents"] = tuple(str(path) for path in paths)
    if tasks:
        changes["tasks"] = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    return (recipe or recipe_from({})).override(changes)


def preview(recipe: Recipe, count: int = 3) -> list[Example | Reject]:
    """Ask about the first `count` passages and give how every prompt ended; nothing is written."""
    workshop = open_workshop(recipe)
    passages = list(islice(workshop.preparation().passages(iter_documents(recipe), recipe.limit), count))
    outcome = workshop.answerer.answer(passages)
    return [*outcome.examples, *outcome.rejects]


@dataclass(frozen=True)
class Estimate:
    """What a run would ask and how long it would take, measured on a few of its own prompts."""

    documents: int
    passages: int
    prompts: int
    prompt_tokens: int
    new_tokens: int
    minutes: float
    measured_prompts: int


def estimate(recipe: Recipe, *, measured_passages: int = 4) -> Estimate:
    """Read and cut every document, answer a few prompts, and tell from them what the whole would take."""
    workshop = open_workshop(recipe)
    preparation = workshop.preparation()
    count_tokens = token_counter(workshop.engine)
    frame = _prompt_tokens(workshop, [Passage("", "", "", 0, 0)])
    sample: list[Passage] = []
    passages = tokens = 0
    for passage in preparation.passages(iter_documents(recipe), recipe.limit):
        passages += 1
        tokens += count_tokens([passage.text])[0]
        if len(sample) < measured_passages:
            sample.append(passage)
    started = time.monotonic()
    outcome = workshop.answerer.answer(sample)
    seconds = time.monotonic() - started
    per_passage = workshop.prompts_per_passage
    measured = len(sample) * per_passage
    share = passages * per_passage / max(1, measured)
    return Estimate(
        documents=preparation.documents,
        passages=passages,
        prompts=passages * per_passage,
        prompt_tokens=tokens * per_passage + passages * frame,
        new_tokens=round(outcome.new_tokens * share),
        minutes=round(seconds * share / 60, 2),
        measured_prompts=measured,
    )


def _prompt_tokens(workshop: Workshop, passages: list[Passage]) -> int:
    prompts = ask(passages, tasks=workshop.tasks, codec=workshop.codec, n=workshop.recipe.sampling.n, seed=0)
    texts = [prompt.text + "\n".join(message.content for message in prompt.messages) for prompt in prompts]
    return sum(token_counter(workshop.engine)(texts))


__all__ = ["Estimate", "OnProgress", "Progress", "build_recipe", "estimate", "export_run", "generate", "preview"]
