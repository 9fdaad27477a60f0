"""One run, stage by stage: read the documents into passages, then answer every prompt about them."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib import metadata
from itertools import islice
from typing import Any

from katsuo.errors import RunChangedError
from katsuo.pipeline.answer import Outcome, without_duplicates
from katsuo.pipeline.judge import is_duplicate
from katsuo.pipeline.similar import NearDuplicates
from katsuo.runners.local import run_local
from katsuo.sources import fingerprint, iter_documents
from katsuo.store import Run
from katsuo.workshop import Workshop


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
    *("katsuo", "torch", "transformers", "peft", "llguidance"),
    *("pypdfium2", "resiliparse", "mammoth", "semchunk", "rensa", "pyarrow"),
)


def read_documents(run: Run, workshop: Workshop, on_progress: OnProgress) -> None:
    """
    Read, filter and cut all documents into the run's passages; done once, checked when the run is taken up.

    Raise `RunChangedError` when the documents are no longer those that the run was begun with.
    """
    documents_hash = fingerprint(workshop.recipe)
    if run.is_read():
        if run.read_marker("documents")["fingerprint"] != documents_hash:
            raise RunChangedError(
                f'the documents have changed since the run in "{run.path}" was begun',
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
        "seconds": time.monotonic() - started,
    }
    run.write_documents_done(counts)


def answer_passages(run: Run, workshop: Workshop, on_progress: OnProgress) -> None:
    """Answer the shards that are not done yet, in order; each is on disk, whole, before the next begins."""
    answerer = workshop.answerer
    tasks = answerer.by_name
    seen = NearDuplicates(workshop.recipe.checks.duplicate_similarity)
    for example in run.examples():
        is_duplicate(example, tasks[example.task_type], seen)
    progress = _Tally(run, on_progress)
    started = time.monotonic()

    def keep(shard: int, outcome: Outcome) -> None:
        nonlocal started
        outcome = without_duplicates(outcome, tasks, seen)
        counts = {**outcome.counts(), "seconds": time.monotonic() - started}
        run.write_shard_done(shard, outcome.examples, outcome.rejects, counts)
        started = time.monotonic()
        progress.add(outcome)

    done = set(run.done_shards())
    to_do = [shard for shard in run.shards() if shard not in done]
    run_local(to_do, lambda shard: answerer.answer(run.read_passages(shard)), keep)
    seen.close()


class _Tally:
    """Add up outcomes and tell how far the run has come."""

    def __init__(self, run: Run, on_progress: OnProgress) -> None:
        summary = run.summary()
        self._on_progress = on_progress
        self._total, self._kept = summary.prompts, summary.kept
        self._rejected, self._new_tokens = sum(summary.rejected.values()), 0
        self._tell()

    def add(self, outcome: Outcome) -> None:
        self._kept += len(outcome.examples)
        self._rejected += len(outcome.rejects)
        self._new_tokens += outcome.new_tokens
        self._tell()

    def _tell(self) -> None:
        done = self._kept + self._rejected
        self._on_progress(Progress("answer", done, self._total, self._kept, self._rejected, self._new_tokens))


def manifest(workshop: Workshop) -> dict[str, Any]:
    """Give what a later reader needs to know about how a run came to be."""
    return {
        "format": 1,
        "versions": {"python": platform.python_version(), **_versions()},
        "model": asdict(workshop.engine.info),
        "adapter": workshop.recipe.adapter,
        "codec": workshop.codec.name,
        "seed": workshop.recipe.seed,
        "recipe_hash": _hash(workshop.recipe.to_yaml()),
        "tasks": {task.name: _hash(repr((task.description, task.answer, task.examples))) for task in workshop.tasks},
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
