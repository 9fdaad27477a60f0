"""One run, stage by stage: read the documents into passages, then answer every prompt about them."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from importlib import metadata
from itertools import islice
from typing import Any

from katsuo.budget import BudgetReached
from katsuo.config import Recipe
from katsuo.errors import RunChangedError
from katsuo.pipeline.answer import Outcome, without_duplicates
from katsuo.pipeline.judge import is_duplicate
from katsuo.pipeline.similar import NearDuplicates
from katsuo.resume import refuse_other
from katsuo.runners import Runner
from katsuo.sources import fingerprint, iter_documents, open_sources
from katsuo.store import Run
from katsuo.workshop import Workshop, held_out_alone


@dataclass(frozen=True)
class Progress:
    """How far a stage has come; `total` is 0 while it is not known."""

    stage: str
    done: int
    total: int
    kept: int = 0
    rejected: int = 0
    new_tokens: int = 0


OnProgress = Callable[[Progress], None]
_PACKAGES = (
    *("katsuo", "torch", "transformers", "peft", "llguidance", "xllamacpp"),
    *("pypdfium2", "resiliparse", "mammoth", "semchunk", "rensa", "pyarrow"),
)


def find_documents(workshop: Workshop, on_progress: OnProgress) -> None:
    """Raise what cannot be read at all before there is a run folder."""
    del on_progress
    open_sources(workshop.recipe)


def read_documents(run: Run, workshop: Workshop, on_progress: OnProgress) -> None:
    """
    Read, filter and cut all documents into the run's passages; done once, checked when the run is taken up.

    Raise `RunChangedError` when the documents are no longer those that the run was begun with.
    """
    documents_hash = _input_hash(workshop.recipe)
    if run.is_read():
        if run.read_marker("documents")["fingerprint"] != documents_hash:
            raise RunChangedError(
                f'the documents have changed, or the held-out file, since the run in "{run.path}" was begun',
                hint="choose another folder with `-o`, or bring the old documents back",
            )
        return
    run.clear_passages()
    started = time.monotonic()
    preparation = workshop.preparation()
    per_shard = max(1, workshop.recipe.shard_size // workshop.prompts_per_passage)
    passages = preparation.passages(iter_documents(workshop.recipe), workshop.recipe.limit)
    left_out: Counter[tuple[str, str]] = Counter()
    count = shard = 0
    while True:
        batch = list(islice(passages, per_shard))
        rejects = preparation.take_rejects()
        if not batch and not rejects:
            break
        left_out.update((reject.kind, str(reject.reason)) for reject in rejects)
        run.write_passages(shard, batch, rejects)
        count, shard = count + len(batch), shard + 1
        on_progress(Progress("read", count, 0, rejected=left_out.total()))
    preparation.passage_filter.close()
    counts = {
        "fingerprint": documents_hash,
        "documents": preparation.documents,
        "documents_rejected": {reason: n for (kind, reason), n in left_out.items() if kind == "document"},
        "passages": count,
        "passages_rejected": {reason: n for (kind, reason), n in left_out.items() if kind == "passage"},
        "prompts": count * workshop.prompts_per_passage,
        "shards": shard,
        "seconds": time.monotonic() - started,
    }
    run.write_documents_done(counts)


def _input_hash(recipe: Recipe) -> str:
    """Give a hash of the documents and, where there is one, of the held-out file."""
    if not recipe.held_out:
        return fingerprint(recipe)
    return _hash(fingerprint(recipe) + fingerprint(held_out_alone(recipe)))


@dataclass(frozen=True)
class Ended:
    """
    How the answering ended: what stopped it where a budget did, else nothing, and how many answers the cache had.

    `not_taken` is what was asked for and answers of the run, also of earlier commands, do not follow.
    """

    stopped: str
    from_cache: int
    not_taken: tuple[str, ...]


def answer_passages(run: Run, workshop: Workshop, runner: Runner[Workshop], on_progress: OnProgress) -> Ended:
    """
    Answer the shards that are not done yet; they are written in order, each whole, its marker last.

    A shard that is cut short by a budget is written as a part. Raise `StoreError` where not all that a worker has read
    can be seen here.
    """
    run.check_read()
    done = set(run.done_shards())
    to_do = [shard for shard in run.shards() if shard not in done]
    progress = _Tally(run, on_progress)
    if not to_do:
        return progress.ended()
    answerer = workshop.answerer
    seen = NearDuplicates(workshop.recipe.checks.duplicate_similarity)
    for shard in sorted(done):
        for example in run.read_examples(shard):
            is_duplicate(example, answerer.by_name[example.task_type], seen)
    keeper = _Keeper(run, workshop, seen, progress, last=to_do[-1])
    try:
        workshop.meter.check_kept(run.summary().kept)
        runner.run(to_do, partial(answer_shard, run), keeper.keep)
    except BudgetReached as reached:
        return progress.ended(str(reached))
    finally:
        seen.close()
    return progress.ended()


@dataclass(frozen=True)
class Answered:
    """
    A shard's outcome, or what it had when a budget cut it short (`reached`, the budget's words), and how it came to be.

    It tells what only the worker knows: what its engine's answers do not follow, and how many the cache had.
    """

    outcome: Outcome
    not_taken: tuple[str, ...]
    from_cache: int
    reached: str = ""


def answer_shard(run: Run, workshop: Workshop, shard: int) -> Answered:
    """Answer one shard, or as much of it as the budget allows; the outcome depends on its own passages alone."""
    answerer, passages = workshop.answerer, run.read_passages(shard)
    found_before, reached = workshop.from_cache, ""
    try:
        outcome = answerer.answer(passages)
    except BudgetReached as stop:
        outcome, reached = answerer.recall(passages), str(stop)
    return Answered(outcome, answerer.engine.info.not_taken, workshop.from_cache - found_before, reached)


class _Keeper:
    """Write the outcomes of shards, in order, as far as the budget goes."""

    def __init__(self, run: Run, workshop: Workshop, seen: NearDuplicates, progress: _Tally, *, last: int) -> None:
        self._run = run
        self._meter = workshop.meter
        self._is_metered = workshop.cached is not None
        self._tasks = workshop.answerer.by_name
        self._seen = seen
        self._progress = progress
        self._last = last
        self._started = time.monotonic()

    def keep(self, shard: int, answered: Answered) -> None:
        """Write a whole shard, or the part of it that the run may hold; stop before the next where the budget ends."""
        outcome = without_duplicates(answered.outcome, self._tasks, self._seen)
        answered = replace(answered, outcome=outcome)
        if answered.reached:
            self._write_part(shard, answered)
            raise BudgetReached(answered.reached)
        if not self._is_metered:
            self._meter.spend(outcome.new_tokens)
        if self._room(outcome) < len(outcome.examples):
            self._write_part(shard, answered)
            self._meter.check_kept(self._progress.kept)
        self._run.write_shard_done(shard, outcome.examples, outcome.rejects, self._counts(answered))
        self._started = time.monotonic()
        self._progress.add(answered)
        if shard != self._last:
            self._meter.check_kept(self._progress.kept)
            self._meter.check()

    def _room(self, outcome: Outcome) -> int:
        return self._meter.room(self._progress.kept, len(outcome.examples))

    def _write_part(self, shard: int, answered: Answered) -> None:
        outcome = answered.outcome.first(self._room(answered.outcome))
        answered = replace(answered, outcome=outcome)
        self._run.write_shard_part(shard, outcome.examples, outcome.rejects, self._counts(answered))
        self._progress.add(answered)

    def _counts(self, answered: Answered) -> dict[str, object]:
        seconds = time.monotonic() - self._started
        return {**answered.outcome.counts(), "not_taken": answered.not_taken, "seconds": seconds}


class _Tally:
    """Add up shards and tell how far the run has come; one that is to be done again does not count yet."""

    def __init__(self, run: Run, on_progress: OnProgress) -> None:
        markers = [run.read_marker(shard) for shard in run.done_shards()]
        self._on_progress = on_progress
        self._total, self.kept = run.summary().prompts, sum(marker["kept"] for marker in markers)
        self._rejected, self._new_tokens = sum(sum(marker["rejected"].values()) for marker in markers), 0
        self._not_taken = {name for marker in markers for name in marker.get("not_taken", ())}
        self._from_cache = 0
        self._tell()

    def add(self, answered: Answered) -> None:
        self.kept += len(answered.outcome.examples)
        self._rejected += len(answered.outcome.rejects)
        self._new_tokens += answered.outcome.new_tokens
        self._not_taken.update(answered.not_taken)
        self._from_cache += answered.from_cache
        self._tell()

    def ended(self, stopped: str = "") -> Ended:
        return Ended(stopped, self._from_cache, tuple(sorted(self._not_taken)))

    def _tell(self) -> None:
        done = self.kept + self._rejected
        self._on_progress(Progress("answer", done, self._total, self.kept, self._rejected, self._new_tokens))


def manifest(workshop: Workshop, before: Mapping[str, Any], not_taken: Sequence[str] = ()) -> dict[str, Any]:
    """
    Give what a later reader needs to know about how a run came to be.

    `before` is the manifest that the run had: what its earlier answers did not follow stays told beside `not_taken`.
    """
    not_followed = {*before.get("model", {}).get("not_taken", ()), *not_taken}
    return {
        "format": 1,
        "versions": {"python": platform.python_version(), **_versions()},
        "model": {**asdict(workshop.engine.info), "not_taken": sorted(not_followed)},
        "adapter": workshop.recipe.adapter,
        "codec": workshop.codec.name,
        "sampling": workshop.recipe.sampling.model_dump(mode="json"),
        "seed": workshop.recipe.seed,
        "recipe_hash": _hash(workshop.recipe.to_yaml()),
        "tasks": {task.name: _hash(repr((task.description, task.answer, task.examples))) for task in workshop.tasks},
    }


def refuse_other_makers(run: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """
    Raise `RunChangedError` where the run was begun with another model, or with task types that said something else.

    The recipe names both, and what lies under a name may change: a file that was edited, a model trained again.
    """
    if before:
        refuse_other(run.path, "run", _makers(before), _makers(now))


def _makers(manifest: Mapping[str, Any]) -> dict[str, Any]:
    model = manifest.get("model", {})
    return {
        "codec": manifest.get("codec"),
        "model": model.get("model"),
        "revision": model.get("revision"),
        "tasks": manifest.get("tasks", {}),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an extra that this run did not need
    return found


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
