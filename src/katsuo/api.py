"""The functions that tie the parts together: what the command line does, for a Python program."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from katsuo.budget import Meter
from katsuo.config import Budget, Recipe, recipe_from
from katsuo.errors import RunnerError, UsageError
from katsuo.evaluate.folder import Evaluation
from katsuo.evaluate.harness import export_harness as write_harness
from katsuo.evaluate.judge import Progress as EvaluationProgress
from katsuo.evaluate.judge import judge, read_sheet
from katsuo.evaluate.settings import EvaluateSettings, make_settings
from katsuo.evaluate.suites import Sheet, load_suite, task_suite
from katsuo.evaluate.system import find_system, open_examiner
from katsuo.experiment.conduct import Step, conduct
from katsuo.experiment.folder import ExperimentFolder, is_experiment, look_at, open_folder
from katsuo.experiment.rehearse import rehearse
from katsuo.experiment.results import gather
from katsuo.experiment.settings import Experiment, read_experiment
from katsuo.export import export_run
from katsuo.generation import (
    OnProgress,
    Progress,
    answer_passages,
    find_documents,
    manifest,
    read_documents,
    refuse_other_makers,
)
from katsuo.pipeline.ask import ask
from katsuo.pipeline.prepare import token_counter
from katsuo.records import Example, Passage, Reject
from katsuo.sources import iter_documents
from katsuo.store import Run, create_run
from katsuo.workshop import Workshop, open_runner, open_workshop, settled, workshop_of


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
    (`sampling__n=2`). A run that was stopped is taken up where its last finished shard ended. Where a budget stopped
    it, `run.manifest["stopped"]` says which.

    >>> run = generate("contracts/", ["ynqa", "exqa"], "runs/contracts")  # doctest: +SKIP
    >>> print(run.summary().kept)  # doctest: +SKIP
    """
    recipe = settled(build_recipe(documents, tasks, recipe, settings))
    meter = Meter(recipe.budget)
    with open_runner(recipe) as runner:
        workshop = workshop_of(runner, recipe, meter)
        runner.call(find_documents, _silent)
        run = create_run(output, recipe, resume=resume)
        with run.alone():
            before = run.manifest
            begun = manifest(workshop, before)
            refuse_other_makers(run, before, begun)
            runner.call(partial(read_documents, run), on_progress)
            run.write_manifest(begun)
            ended = answer_passages(run, workshop, runner, on_progress)
            told = {"summary": asdict(run.summary()), "stopped": ended.stopped, "from_cache": ended.from_cache}
            run.write_manifest({**manifest(workshop, before, ended.not_taken), **told})
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
    workshop = open_workshop(settled(recipe).model_copy(update={"budget": Budget()}))
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
    # An answer out of the cache takes no time: the estimate would be of nothing.
    workshop = open_workshop(settled(recipe).override({"cache": False}))
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


def evaluate(
    model: str,
    output: str | Path,
    suites: Sequence[str | Path] | str | Path = (),
    *,
    data: str | Path | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    base: str | None = None,
    run: str | Path | None = None,
    on_progress: Callable[[EvaluationProgress], None] = lambda _: None,
    **settings: Any,
) -> Evaluation:
    """
    Score a model, or an adapter with the model it was trained on, on labelled data; leave scores and predictions.

    Either `suites` (known names or YAML files, whose rows lie under `data`), or `task` with `data`, a file of your own.
    `settings` are those of `EvaluateSettings`, with two underscores for a dot. A stopped evaluation is taken up again.

    >>> evaluate("adapter/", "scores", task="ynqa", data="test.jsonl").scores["mean"]  # doctest: +SKIP
    """
    made = make_settings({key.replace("__", "."): value for key, value in settings.items()})
    sheets = read_sheets(suites, made, data=data, task=task, columns=columns, labels=labels)
    place = Path(run) if run is not None else None
    return judge(find_system(model, base=base), sheets, Path(output), made, run=place, on_progress=on_progress)


def read_sheets(
    suites: Sequence[str | Path] | str | Path,
    settings: EvaluateSettings,
    *,
    data: str | Path | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[Sheet]:
    """Read the rows of known or own suites, or of a test set of a task type, and write their questions."""
    names = [suites] if isinstance(suites, str | Path) else list(suites)
    if bool(names) == bool(task):
        raise UsageError(
            "say what to judge by: a suite or a task type",
            hint="`--suite pubmed_qa --data FOLDER`, or `--task ynqa --data test.jsonl`",
        )
    found = [load_suite(str(name)) for name in names] if names else [task_suite(str(task))]
    found = [suite.renamed(columns or {}).relabelled(labels) for suite in found]
    return [read_sheet(suite, Path(data) if data is not None else None, settings) for suite in found]


def export_harness(
    model: str, folder: str | Path, sheets: Sequence[Sheet], settings: EvaluateSettings, *, base: str | None = None
) -> list[str]:
    """Write ranked sets as tasks of lm-evaluation-harness, for `model`; give the names to call them by."""
    examiner, _ = open_examiner(find_system(model, base=base), settings)
    return write_harness(sheets, examiner, Path(folder))


def run(
    recipe: str | Path | Experiment,
    output: str | Path,
    *,
    on_step: Callable[[Step], None] = lambda _: None,
) -> dict[str, Any]:
    """
    Go from documents and labelled rows to a verdict: split, generate, adapt, baselines, scores, report.

    Each stage is a process of its own; those that are done are left alone. Give the numbers of `results.json`. Raise
    `RunnerError` where stages failed, once all that do not need them are done and reported.

    >>> run("examples/quick.yaml", "runs/quick")["verdict"]  # doctest: +SKIP
    """
    experiment = recipe if isinstance(recipe, Experiment) else read_experiment(Path(recipe))
    rehearse(look_at(Path(output), experiment))
    folder = open_folder(Path(output), experiment)
    try:
        conduct(folder, on_step)
    except RunnerError:
        report(folder.path)
        raise
    report(folder.path)
    return folder.results()


def report(run: str | Path, output: str | Path | None = None, *, examples: int = 3) -> list[Path]:
    """
    Write report.html, report.md and report.json about a run folder or an experiment, into it or into `output`.

    `examples` of each task type and of each reason for a reject are shown. The numbers of an experiment are put
    together anew; one that is not finished is told as far as it is. A run behind a URL needs an `output` here.
    """
    from katsuo.report.write import write_report  # the drawing library takes a second to load

    if is_experiment(Path(run)):
        folder = ExperimentFolder(Path(run))
        folder.write_results(gather(folder))
    return write_report(Path(run), Path(output) if output is not None else Path(run), examples=examples)


def _prompt_tokens(workshop: Workshop, passages: list[Passage]) -> int:
    prompts = ask(passages, tasks=workshop.tasks, codec=workshop.codec, n=workshop.recipe.sampling.n, seed=0)
    texts = [prompt.text + "\n".join(message.content for message in prompt.messages) for prompt in prompts]
    return sum(token_counter(workshop.engine)(texts))


__all__ = [
    "Estimate",
    "Evaluation",
    "Experiment",
    "OnProgress",
    "Progress",
    "build_recipe",
    "estimate",
    "evaluate",
    "export_harness",
    "export_run",
    "generate",
    "judge",
    "preview",
    "read_sheets",
    "report",
    "run",
]
