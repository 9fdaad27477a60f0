"""All numbers of an experiment, put together from its folders: scores, gains, the verdict, forgetting, cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from katsuo.errors import UsageError
from katsuo.evaluate.folder import Evaluation, scores_beside
from katsuo.evaluate.judge import left_out_words
from katsuo.evaluate.overlap import Overlap
from katsuo.evaluate.statistics import Gain, Outcomes, mean_gain, paired_bootstrap
from katsuo.evaluate.verdict import Claim, verdict
from katsuo.experiment.folder import ZERO_SHOT, ExperimentFolder, read_json
from katsuo.experiment.forgetting import forgetting_of, loss_of_ability
from katsuo.experiment.plan import plan
from katsuo.experiment.settings import BASELINES, OURS
from katsuo.experiment.split import TOLD
from katsuo.models import public_name
from katsuo.models.locate import MANIFEST

FORMAT = "katsuo-results-1"
MAJORITY = "majority"
_MOST_NAMED = 3
NAMES = {
    OURS: "katsuo's data",
    MAJORITY: "majority class",
    "zero-shot": "zero-shot",
    "self-supervised": "self-supervision",
    "prompted": "the prompted generator's data",
    "shuffled": "shuffled passages",
    "supervised": "labelled data",
}
MEANINGS = {
    OURS: "adapted to the examples that the task generator wrote",
    MAJORITY: "always says the label that is most frequent among the test rows",
    "zero-shot": "the model as it is",
    "self-supervised": "trained on the raw passages by next-word prediction",
    "prompted": "adapted to examples that a prompted chat model wrote",
    "shuffled": "adapted to the same examples, each beside a passage of another one",
    "supervised": "adapted to labelled rows: an upper bound",
}


@dataclass(frozen=True)
class Judged:
    """What one system did on one set, the wordings of all seeds side by side."""

    outcomes: Outcomes
    templates: list[str]
    seeds: list[float]
    asked: frozenset[str] = frozenset()

    def by_template(self) -> dict[str, float]:
        """Give the score of each template, over the seeds."""
        scores = self.outcomes.scores(numpy.ones((1, self.outcomes.values.shape[1])))[0]
        return {
            name: float(numpy.mean([score for score, one in zip(scores, self.templates, strict=True) if one == name]))
            for name in dict.fromkeys(self.templates)
        }


def gather(folder: ExperimentFolder) -> dict[str, Any]:
    """
    Give all numbers of an experiment that are there: of a stage that was left out or is not done yet there are none.

    A set counts once katsuo's own system is judged on it; `to_do` names the stages that are not done.
    """
    experiment = folder.experiment
    costs = _costs(folder)
    to_do = [one["stage"] for one in costs if len(one) == 1]
    sets, gains, metrics = {}, {}, set()
    for name in experiment.sets:
        if _judged(folder, name, OURS) is None:
            continue
        sets[name], gains[name] = _set(folder, name)
        metrics.add(sets[name]["metric"])
    metric = metrics.pop() if len(metrics) == 1 else "points"
    shared = [one for one in (MAJORITY, *BASELINES) if gains and all(one in found for found in gains.values())]
    means = {system: mean_gain([found[system] for found in gains.values()]) for system in shared}
    forgotten = forgetting_of(folder)
    warnings = warnings_of(sets)
    warnings += [f"{name}: {reason}" for name in experiment.sets if (reason := _without_data(folder, name))]
    if to_do:
        warnings.append(f"not finished: {len(to_do)} of {len(costs)} stages are to do")
    compared = [system for system in BASELINES if system in means and system != "supervised"]
    return {
        "format": FORMAT,
        "name": f"{public_name(experiment.model)} adapted to {_adapted_to(sets, experiment.sets)}",
        "verdict": verdict(
            [_claim(system, means[system], metric) for system in compared],
            forgetting=loss_of_ability(forgotten, OURS),
            warnings=warnings,
        ),
        "warnings": warnings,
        "metric": metric,
        "systems": {
            key: {"name": NAMES[key].removeprefix("the "), "meaning": MEANINGS[key]}
            for key in (OURS, MAJORITY, *BASELINES)
        },
        "sets": sets,
        "mean": {
            "scores": _mean_scores(sets),
            "gains": {system: _plain(gain) for system, gain in means.items()},
        },
        "forgetting": forgotten,
        "cost": costs,
        "to_do": to_do,
        "seeds": list(experiment.seeds),
        "runs": _places(folder, folder.run, "manifest.json"),
        "adapters": _places(folder, folder.adapter, MANIFEST),
        "recipe": experiment.to_yaml(),
        "machines": sorted({one["machine"] for one in costs if "machine" in one}),
    }


def warnings_of(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Give the warnings of all sets: rows left out are added up, whatever else there is stands with its set."""
    left_out: Counter[str] = Counter()
    for told in sets.values():
        left_out.update(told["left_out"])
    added_up = [left_out_words(count, reason) for reason, count in left_out.items()]
    return [*added_up, *(f"{name}: {text}" for name, told in sets.items() for text in told["warnings"])]


def _without_data(folder: ExperimentFolder, name: str) -> str:
    """Say why there is no system of ours for a set, if that is known."""
    found = [folder.marker(f"{name}/seed-{seed}/adapt-{OURS}") for seed in folder.experiment.seeds]
    return next((one["left_out"] for one in found if one and "left_out" in one), "")


def _set(folder: ExperimentFolder, name: str) -> tuple[dict[str, Any], dict[str, Gain]]:
    experiment = folder.experiment
    found = {system: _judged(folder, name, system) for system in (OURS, *BASELINES)}
    judged = {system: one for system, one in found.items() if one is not None}
    _check_protocol(name, judged)
    scores = _evaluation(folder, name, experiment.seeds[0], OURS)
    assert scores is not None, "the caller has looked"
    split = read_json(folder.split(name) / TOLD)
    told = next(iter(scores.scores["sets"].values()))
    if "majority" in told:
        judged[MAJORITY] = _majority(judged[OURS])
    gains = {
        system: paired_bootstrap(judged[OURS].outcomes, one.outcomes, name=name)
        for system, one in judged.items()
        if system != OURS
    }
    return {
        **{key: told[key] for key in ("task_type", "metric", "items", "rows")},
        "left_out": split.get("left_out", told["left_out"]),
        "templates": list(dict.fromkeys(judged[OURS].templates)),
        "scores": {
            system: {
                "mean": one.outcomes.score(),
                "templates": one.by_template(),
                "seeds": one.seeds,
                "beside": _beside(folder, name, system),
            }
            for system, one in judged.items()
        },
        "gains": {
            system: {**_plain(gain), "templates": _template_gains(judged[OURS], judged[system])}
            for system, gain in gains.items()
        },
        "chosen": {system: _chosen(folder, name, system) for system in judged if system != MAJORITY},
        "gold": _gold(folder, name, judged[OURS]),
        "split": split,
        "overlap": told.get("overlap"),
        "cut_prompts": told["cut_prompts"],
        "warnings": [*told["warnings"], *_labels_seen(folder, name)],
    }, gains


def _judged(folder: ExperimentFolder, name: str, system: str) -> Judged | None:
    """Put the seeds of a system side by side, or the one evaluation of the model as it is as often."""
    evaluations = [_evaluation(folder, name, seed, system) for seed in folder.experiment.seeds]
    found = [one.outcomes(one.sets[0]) for one in evaluations if one is not None]
    if len(found) < len(evaluations):
        return None
    first = found[0][0]
    if any(items != found[0][1] for _, items, _ in found):
        raise UsageError(f'the seeds of "{system}" were judged on different rows', hint="begin in a new folder with -o")
    asked = frozenset(told["asked"] for one in evaluations if one is not None for told in one.scores["sets"].values())
    values: Any = numpy.concatenate([outcomes.values for outcomes, _, _ in found])
    scores = [outcomes.score() for outcomes, _, _ in found]
    templates = [template for _, _, names in found for template in names]
    outcomes = Outcomes(values, first.golds, first.labels, seeds=len(found))
    return Judged(outcomes, templates, scores[:1] if system == ZERO_SHOT else scores, asked)


def _check_protocol(name: str, judged: Mapping[str, Judged]) -> None:
    """Raise `UsageError` where systems were asked different things."""
    others = [system for system, one in judged.items() if one.asked != judged[OURS].asked]
    if others or len(judged[OURS].asked) > 1:
        who = " and ".join(dict.fromkeys([OURS, *others[:1]]))
        raise UsageError(
            f'"{name}": not all that was asked of {who} was the same: the suite or katsuo changed on the way',
            hint="begin in a new folder with -o",
        )


def _evaluation(folder: ExperimentFolder, name: str, seed: int, system: str) -> Evaluation | None:
    place = folder.scores(name, seed, system)
    return Evaluation(place) if (place / "scores.json").is_file() else None


def _majority(ours: Judged) -> Judged:
    """Say the most frequent label every time."""
    golds = ours.outcomes.golds
    assert golds is not None, "only labels have a majority"
    label = int(numpy.bincount(golds, minlength=ours.outcomes.labels).argmax())
    values: Any = numpy.full(ours.outcomes.values.shape, label, dtype=numpy.int64)
    outcomes = Outcomes(values, golds, ours.outcomes.labels, seeds=ours.outcomes.seeds)
    return Judged(outcomes, ours.templates, [outcomes.score()])


def _template_gains(ours: Judged, theirs: Judged) -> dict[str, float]:
    other = theirs.by_template()
    return {name: score - other[name] for name, score in ours.by_template().items()}


def _beside(folder: ExperimentFolder, name: str, system: str) -> dict[str, float]:
    """Give the scores beside the one that counts (accuracy, exact match): means over templates and seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in folder.experiment.seeds if system != MAJORITY else ():
        if evaluation := _evaluation(folder, name, seed, system):
            for key, value in scores_beside(next(iter(evaluation.scores["sets"].values()))).items():
                found[key].append(value)
    return {key: float(numpy.mean(values)) for key, values in found.items()}


def _labels_seen(folder: ExperimentFolder, name: str) -> list[str]:
    """Warn of test rows that stand in the labelled data of the upper bound."""
    evaluation = _evaluation(folder, name, folder.experiment.seeds[0], "supervised")
    told = next(iter(evaluation.scores["sets"].values())).get("overlap") if evaluation else None
    warning = Overlap(**told).warning if told else ""
    return [warning.replace("in the run", "in the labelled data")] if warning else []


def _chosen(folder: ExperimentFolder, name: str, system: str) -> dict[str, int]:
    """Count the labels that a system chose, over the templates of the first seed."""
    evaluation = _evaluation(folder, name, folder.experiment.seeds[0], system)
    counts: dict[str, int] = {}
    for scores in next(iter(evaluation.scores["sets"].values()))["templates"].values() if evaluation else ():
        for label, count in scores.get("chosen", {}).items():
            counts[label] = counts.get(label, 0) + count
    return counts


def _gold(folder: ExperimentFolder, name: str, ours: Judged) -> dict[str, int]:
    """Count the right labels as often as they were asked for, over the templates of the first seed."""
    labels = list(_chosen(folder, name, OURS))
    if ours.outcomes.golds is None or not labels:
        return {}
    counts = numpy.bincount(ours.outcomes.golds, minlength=len(labels)) * len(set(ours.templates))
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}


def _mean_scores(sets: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Give the mean over the sets of every system that was judged on all of them."""
    shared = [system for system in NAMES if sets and all(system in told["scores"] for told in sets.values())]
    return {system: float(numpy.mean([told["scores"][system]["mean"] for told in sets.values()])) for system in shared}


def _costs(folder: ExperimentFolder) -> list[dict[str, Any]]:
    return [{"stage": stage.name, **(folder.marker(stage.name) or {})} for stage in plan(folder)]


def _places(folder: ExperimentFolder, place: Callable[[str, int, str], Any], mark: str) -> dict[str, dict[str, str]]:
    """Give the folders of the first seed that hold `mark`, by set and system, as paths below the experiment."""
    seed = folder.experiment.seeds[0]
    return {
        name: {
            system: str(place(name, seed, system).relative_to(folder.path))
            for system in (OURS, *BASELINES)
            if system != ZERO_SHOT and (place(name, seed, system) / mark).is_file()
        }
        for name in folder.experiment.sets
    }


def _adapted_to(done: Collection[str], wanted: Collection[str]) -> str:
    """Name the data sets, or say how many there are scores of."""
    if len(done) < len(wanted):
        return f"{len(done)} of {len(wanted)} data sets so far"
    return ", ".join(wanted) if len(wanted) <= _MOST_NAMED else f"{len(wanted)} data sets"


def _claim(system: str, gain: Gain, metric: str) -> Claim:
    low, high = gain.interval
    return Claim(NAMES[system], gain.difference, low, high, gain.items, metric)


def _plain(gain: Gain) -> dict[str, Any]:
    low, high = gain.interval
    told = {"difference": gain.difference, "low": low, "high": high, "items": gain.items}
    return {**told, "is_significant": gain.is_significant}


__all__: Sequence[str] = ("FORMAT", "gather")
