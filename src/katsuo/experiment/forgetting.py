"""What systems lost beside the task, against the model as it is."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy

from katsuo.errors import UsageError
from katsuo.evaluate.folder import Evaluation
from katsuo.evaluate.statistics import Gain, Outcomes, mean_gain, paired_bootstrap
from katsuo.evaluate.verdict import Claim
from katsuo.experiment.folder import ZERO_SHOT, ExperimentFolder, read_json
from katsuo.experiment.general import GENERAL, SUITES
from katsuo.experiment.settings import BASELINES, OURS

ABILITY = "general instruction following"


def forgetting_of(folder: ExperimentFolder) -> dict[str, Any]:
    """
    Give perplexity, requests followed and scores on general suites, by set and system, with the change of each.

    Empty where nothing was measured. Changes are those against the model as it is, on the same items (`items` says how
    many); that of perplexity is in nats per token, where less is better. `mean` holds each system's change of the
    abilities over all sets. Raise `UsageError` where not all were asked the same.
    """
    seed = folder.experiment.seeds[0]
    first = next(iter(folder.experiment.sets))
    before = folder.general(first, seed, ZERO_SHOT)
    if not (before / GENERAL).is_file():
        return {}
    base = _outcomes(before)
    told: dict[str, Any] = {ZERO_SHOT: _measured(before), "sets": {}}
    told["items"] = {key: outcomes.values.shape[1] for key, outcomes in base.items()}
    abilities: dict[str, list[Gain]] = defaultdict(list)
    for name in folder.experiment.sets:
        found = {}
        for system in (OURS, *BASELINES):
            place = folder.general(name, seed, system)
            if system == ZERO_SHOT or not (place / GENERAL).is_file():
                continue
            _check_protocol(name, system, before, place)
            after = _outcomes(place)
            gains = {key: paired_bootstrap(after[key], base[key], name=key) for key in after if key in base}
            following = [gain for key, gain in gains.items() if key != "perplexity"]
            if following:
                gains[ABILITY] = mean_gain(following)
                abilities[system].append(gains[ABILITY])
            found[system] = {**_measured(place), "changes": {key: _plain(gain) for key, gain in gains.items()}}
        told["sets"][name] = found
    # The same items were asked after every training, and are drawn alike: their number does not grow with the sets.
    told["mean"] = {
        system: _plain(replace(mean_gain(gains), items=gains[0].items)) for system, gains in abilities.items()
    }
    return told


def loss_of_ability(told: dict[str, Any], system: str) -> Claim | None:
    """Give the change of general abilities for the verdict, the mean over the sets; None where none was measured."""
    if not (mean := told.get("mean", {}).get(system)):
        return None
    return Claim(ABILITY, mean["difference"], mean["low"], mean["high"], mean["items"], "accuracy")


def _check_protocol(name: str, system: str, before: Any, after: Any) -> None:
    """Raise `UsageError` where a system was asked other general questions than the model as it is."""
    one, other = (_asked(place) for place in (before, after))
    if any(one[key] != other[key] for key in one.keys() & other.keys()):
        raise UsageError(
            f'"{name}": not all that was asked of {system} and {ZERO_SHOT} about general abilities was the same: '
            "a suite or katsuo changed on the way",
            hint="begin in a new folder with -o",
        )


def _asked(place: Any) -> dict[str, Any]:
    """Give what tells whether the same was asked, by what was measured; of texts there is only their number."""
    general = read_json(place / GENERAL)
    told: dict[str, Any] = {}
    if texts := general.get("texts"):
        told["perplexity"] = len(texts)
    if requests := general.get("requests"):
        told["requests followed"] = [one["ask"] for one in requests]
    if general["suites"]:
        scores = Evaluation(place / SUITES).scores["sets"]
        told |= {name: one["asked"] for name, one in scores.items()}
    return told


def _measured(place: Any) -> dict[str, Any]:
    """Give the numbers of one system."""
    general = read_json(place / GENERAL)
    told: dict[str, Any] = {}
    if texts := general.get("texts"):
        told["perplexity"] = math.exp(sum(one["nats"] for one in texts) / sum(one["tokens"] for one in texts))
    if requests := general.get("requests"):
        told["requests followed"] = 100.0 * sum(one["followed"] for one in requests) / len(requests)
    if general["suites"]:
        scores = Evaluation(place / SUITES).scores["sets"]
        told |= {name: one["mean"] for name, one in scores.items()}
    return told


def _outcomes(place: Any) -> dict[str, Outcomes]:
    """Give what can be compared item by item."""
    general = read_json(place / GENERAL)
    found: dict[str, Outcomes] = {}
    if texts := general.get("texts"):
        found["perplexity"] = Outcomes(numpy.array([[one["nats"] / one["tokens"] for one in texts]]))
    if requests := general.get("requests"):
        found["requests followed"] = Outcomes(numpy.array([[100.0 * one["followed"] for one in requests]]))
    if general["suites"]:
        evaluation = Evaluation(place / SUITES)
        found |= {name: evaluation.outcomes(name)[0] for name in evaluation.sets}
    return found


def _plain(gain: Gain) -> dict[str, Any]:
    low, high = gain.interval
    told = {"difference": gain.difference, "low": low, "high": high, "items": gain.items}
    return {**told, "is_significant": gain.is_significant}
