"""Train a task generator on pairs of a task type with a passage, and the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from katsuo.errors import UsageError
from katsuo.train.data import Place, allow, count_types, draw_what_fits, hold_out, watch_what_fits
from katsuo.train.encode import Encoder, limits_of
from katsuo.train.job import open_job, run_job
from katsuo.train.load import load_base
from katsuo.train.read import PairFolder
from katsuo.train.recipes import TrainRecipe
from katsuo.train.trained import Job, Trained
from katsuo.train.watch import OnProgress
from katsuo.train.weights.start import begin_from

CODEC = "bonito-v1"


def train_generator(
    pairs: Path, model: str, output: Path, recipe: TrainRecipe, *, start: str | None, on_progress: OnProgress
) -> Trained:
    """
    Fit `model` to a folder of training pairs and leave an adapter (or all weights) in `output`.

    The same call goes on with a training that was stopped, and gives what is there when it was finished.
    """
    _refuse_what_is_for_targets(recipe)
    folder = PairFolder(pairs, is_checked=recipe.data.checked)
    adapter, recipe = begin_from(start, recipe)
    data: dict[str, Any] = {"card": folder.card_hash()}
    if finished := open_job("train-generator", model, output, recipe, data, start=adapter):
        return finished
    base = load_base(model, recipe)
    sources = folder.sources()
    terms = {str(source["source"]): str(source["terms"]) for source in sources}
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    allowed = allow(folder.places(recipe.seed), recipe.data, terms, encoder.ledger.rejected)
    held_out, rest = hold_out(allowed, recipe.data)
    train = draw_what_fits(folder, rest, recipe, encoder)
    watched, ledger = watch_what_fits(folder, held_out, encoder)
    data |= {"sources": _used(sources, train), "types": count_types(train), "held_out": len(watched)}
    job = Job("train-generator", base, recipe, output, data, codec=CODEC, start=adapter)
    return run_job(job, list(train.values()), watched, ledger, on_progress)


def _refuse_what_is_for_targets(recipe: TrainRecipe) -> None:
    settings = {
        "data.replay": recipe.data.replay,
        "data.reword": recipe.data.reword,
        "data.min_response_words": recipe.data.min_response_words,
        "style": recipe.style if recipe.style != "auto" else None,
    }
    if name := next((name for name, value in settings.items() if value), None):
        raise UsageError(
            f'the setting "{name}" is for targets: a generator is trained on its pairs as they stand',
            hint="leave it out; other pairs to mix in go into CTGA_DIR as further Parquet files",
        )


def _used(sources: Sequence[dict[str, Any]], places: Iterable[Place]) -> list[dict[str, Any]]:
    """Name each source that was trained on, with its licence; one that the build does not name has none stated."""
    counts = Counter(place.source for place in places)
    known = {source["source"]: source for source in sources}
    unknown = {"licence": "not recorded", "terms": "not recorded"}
    return [
        {"source": name or "unnamed", **{key: known.get(name, unknown)[key] for key in unknown}, "examples": count}
        for name, count in counts.most_common()
    ]
