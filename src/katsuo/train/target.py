"""Adapt a target model to a run's examples, or train it further on the run's raw passages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from katsuo.errors import UsageError
from katsuo.models.locate import read_manifest
from katsuo.store import Run
from katsuo.tasks.style import choose_style
from katsuo.train.data import allow, count_types, draw_what_fits, hash_of, hold_out, watch_what_fits
from katsuo.train.encode import Encoded, Encoder, Ledger, Styler, limits_of, styler
from katsuo.train.job import open_job, run_job
from katsuo.train.load import Base, load_base
from katsuo.train.read import RunExamples, passage_places, passage_texts, read_instructions, run_hash
from katsuo.train.recipes import TrainRecipe
from katsuo.train.trained import Job, Trained
from katsuo.train.watch import OnProgress
from katsuo.train.weights.start import begin_from


def adapt(
    run: Run, model: str, output: Path, recipe: TrainRecipe, *, start: str | None, on_progress: OnProgress
) -> Trained:
    """
    Fine-tune `model` on a run's examples, with the loss on the responses.

    The same call goes on with a training that was stopped, and gives what is there when it was finished.
    """
    adapter, recipe = begin_from(start, recipe)
    data: dict[str, Any] = {"examples": run_hash(run, "examples")}
    if finished := open_job("adapt", model, output, recipe, data, start=adapter):
        return finished
    base = load_base(model, recipe)
    style, style_name = style_of(base, recipe)
    source = RunExamples(run, style, recipe.data.reword)
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    allowed = allow(source.places(recipe.seed), recipe.data, {}, encoder.ledger.rejected)
    held_out, rest = hold_out(allowed, recipe.data)
    drawn = draw_what_fits(source, rest, recipe, encoder)
    watched, ledger = watch_what_fits(source, held_out, encoder)
    train, replayed = _mix(list(drawn.values()), base, style, recipe, ledger)
    data |= {"types": count_types(drawn), "held_out": len(watched), "replayed": replayed, "style": style_name}
    data |= {"reworded": len(source.reworded)}
    job = Job("adapt", base, recipe, output, data, start=adapter)
    return run_job(job, train, watched, ledger, on_progress)


def pretrain(
    run: Run, model: str, output: Path, recipe: TrainRecipe, *, start: str | None, on_progress: OnProgress
) -> Trained:
    """
    Train `model` on a run's raw passages by next-word prediction: the self-supervised baseline of the paper.

    Of a run that was stopped, the passages that were asked about are read. A passage longer than `data.max_tokens` is
    split into windows; nothing is left out.
    """
    adapter, recipe = begin_from(start, recipe)
    data: dict[str, Any] = {"passages": run_hash(run, "passages")}
    if finished := open_job("pretrain", model, output, recipe, data, start=adapter):
        return finished
    base = load_base(model, recipe)
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    held_out, rest = hold_out(allow(passage_places(run, recipe.seed), recipe.data, {}), recipe.data)
    windows = list(encoder.windows(passage_texts(run, rest[: recipe.data.examples])))
    ledger = replace(encoder.ledger, rejected=Counter(encoder.ledger.rejected))
    watched = list(encoder.windows(passage_texts(run, held_out)))
    train, replayed = _mix(windows, base, style_of(base, recipe)[0], recipe, ledger)
    data |= {"windows": len(windows), "held_out": len(watched), "replayed": replayed}
    job = Job("pretrain", base, recipe, output, data, start=adapter)
    return run_job(job, train, watched, ledger, on_progress)


def as_many_steps_as(recipe: TrainRecipe, trained: Path) -> TrainRecipe:
    """Give a recipe that takes as many updates as the training in the folder `trained` took, for a fair comparison."""
    steps = read_manifest(trained).get("fitted", {}).get("steps")
    if not steps:
        raise UsageError(f'"{trained}" holds no finished training', hint="give --like the output of `katsuo adapt`")
    # Passages are fewer than examples: they are read as often as it takes.
    return recipe.override({"max_steps": steps, "epochs": 1e6, "patience": None})


def style_of(base: Base, recipe: TrainRecipe) -> tuple[Styler, str]:
    """Give how the target is asked: by its chat template if it has one, else as the paper asks base models."""
    has_template = bool(getattr(base.tokenizer, "chat_template", None))
    name = choose_style(recipe.style, model=base.name, has_chat_template=has_template)
    return styler(name, recipe.prompt_template), name


def _mix(
    train: Sequence[Encoded], base: Base, style: Styler, recipe: TrainRecipe, ledger: Ledger
) -> tuple[list[Encoded], int]:
    """Add general instructions until they are `replay_share` of all; give how many, and count what did not fit."""
    share, place = recipe.data.replay_share, recipe.data.replay
    if not place or not share:
        return list(train), 0
    wanted = max(1, round(len(train) * share / (1 - share)))
    told = sorted(read_instructions(Path(place)), key=lambda pair: hash_of(f"{recipe.seed} {json.dumps(pair)}"))
    encoder = Encoder(base.tokenizer, end_tokens=base.end_tokens, limits=limits_of(recipe))
    encoded = encoder.encode(style(instruction, response) for instruction, response in told)
    replayed = list(islice(filter(None, encoded), wanted))
    ledger.rejected.update({f"{reason} (replayed)": count for reason, count in encoder.ledger.rejected.items()})
    if len(replayed) < wanted:
        raise UsageError(
            f'"{place}" gives {len(replayed)} of the {wanted} examples that data.replay_share asks for',
            hint="lower data.replay_share, or give more instructions",
        )
    return [*train, *replayed], len(replayed)
