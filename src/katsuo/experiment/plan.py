"""The stages of an experiment, in order, and the command of each."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from katsuo.experiment.folder import ZERO_SHOT, ExperimentFolder, read_json, write_text
from katsuo.experiment.general import GENERAL, SUITES
from katsuo.experiment.settings import OURS, Experiment
from katsuo.experiment.split import DOCUMENTS, HELD_OUT, TEST, TOLD, labels_of
from katsuo.models.locate import MANIFEST, codec_of
from katsuo.store import Run

_KATSUO = (sys.executable, "-m", "katsuo")
_STAGE = (sys.executable, "-m", "katsuo.experiment")
_FOR_EVER = 1e6


@dataclass(frozen=True)
class Stage:
    """
    One process: its name, and how its command is told once the stages before it are done.

    `skip` gives the reason why there is nothing to do, if that is so; `needs` names the stages without which it cannot
    be done; `spent` reads what it used: an amount and its unit.
    """

    name: str
    command: Callable[[], Sequence[str]]
    skip: Callable[[], str] = lambda: ""
    spent: Callable[[], tuple[int, str] | None] = lambda: None
    needs: tuple[str, ...] = ()


def plan(folder: ExperimentFolder) -> list[Stage]:
    """Give every stage, in an order in which each finds what it needs."""
    experiment = folder.experiment
    stages: list[Stage] = []
    for place, name in enumerate(experiment.sets):
        stages += _Planner(folder, experiment, name).stages()
        # Set by set, so that what is told half-way is whole for every set that is done.
        if experiment.forgetting is not None:
            stages += _general(folder, experiment, name, with_zero_shot=place == 0)
    return stages


@dataclass(frozen=True)
class _Planner:
    """The stages of one set."""

    folder: ExperimentFolder
    experiment: Experiment
    name: str

    @property
    def _split(self) -> str:
        return f"{self.name}/split"

    def stages(self) -> Iterator[Stage]:
        yield Stage(self._split, lambda: [*_STAGE, "split", str(self.folder.path), self.name])
        if ZERO_SHOT in self.experiment.baselines:
            yield self._evaluate(self.experiment.seeds[0], ZERO_SHOT)
        for seed in self.experiment.seeds:
            yield from self._seed(seed)

    def _seed(self, seed: int) -> Iterator[Stage]:
        wanted = self.experiment.baselines
        yield self._generate(seed, OURS)
        yield self._adapt(seed, OURS)
        yield self._evaluate(seed, OURS)
        if "self-supervised" in wanted:
            yield self._pretrain(seed)
            yield self._evaluate(seed, "self-supervised")
        if "prompted" in wanted:
            yield self._generate(seed, "prompted")
            yield self._adapt(seed, "prompted")
            yield self._evaluate(seed, "prompted")
        for system in ("shuffled", "supervised"):
            if system in wanted:
                yield self._derive(seed, system)
                yield self._adapt(seed, system)
                yield self._evaluate(seed, system)

    def _generate(self, seed: int, system: str) -> Stage:
        output = self.folder.run(self.name, seed, system)

        def command() -> Sequence[str]:
            recipe = self.folder.settings(self.name, seed) / f"generate-{system}.yaml"
            split = self.folder.split(self.name)
            made = self.experiment.generate_recipe(self.name, prompted=system == "prompted").override(
                {"documents": (str(split / DOCUMENTS),), "text_column": "text", "seed": seed}
            )
            if (split / HELD_OUT).stat().st_size:
                made = made.override({"held_out": str(split / HELD_OUT)})
            write_text(recipe, made.to_yaml())
            return [*_KATSUO, "generate", "-c", str(recipe), "-o", str(output), "--allow-partial"]

        def spent() -> tuple[int, str]:
            return Run(output).summary().new_tokens, "new tokens"

        skip = self._same if system == "prompted" else lambda: ""
        return Stage(self._named(seed, f"generate-{system}"), command, skip, spent, (self._split,))

    def _derive(self, seed: int, system: str) -> Stage:
        told = [str(self.folder.path), self.name, str(seed)]
        skip = self._skip(seed, OURS if system == "shuffled" else system)
        needs = self._split if system == "supervised" else self._named(seed, f"generate-{OURS}")
        return Stage(self._named(seed, f"data-{system}"), lambda: [*_STAGE, system, *told], skip, needs=(needs,))

    def _adapt(self, seed: int, system: str) -> Stage:
        output = self.folder.adapter(self.name, seed, system)

        def command() -> Sequence[str]:
            changes = {} if system == OURS else self._like(seed)
            if system == "supervised":
                # The rows are asked about in the suite's own templates, and all of them count.
                changes |= {"data.reword": False, "data.min_response_words": 0}
            recipe = self._train_settings(seed, system, changes)
            run = str(self.folder.run(self.name, seed, system))
            return [*_KATSUO, "adapt", run, *self._training(output, recipe, seed)]

        made = "generate" if system in (OURS, "prompted") else "data"
        needs = [self._named(seed, f"{made}-{system}")]
        if system != OURS:
            needs.append(_training_of(self.name, seed, OURS))  # it takes as many updates
        name, skip = self._named(seed, f"adapt-{system}"), self._skip(seed, system)
        return Stage(name, command, skip, lambda: _trained_tokens(output), tuple(needs))

    def _pretrain(self, seed: int) -> Stage:
        output = self.folder.adapter(self.name, seed, "self-supervised")

        def command() -> Sequence[str]:
            recipe = self._train_settings(seed, "self-supervised", self._like(seed))
            run = str(self.folder.run(self.name, seed, OURS))
            return [*_KATSUO, "pretrain", run, *self._training(output, recipe, seed)]

        needs = (_training_of(self.name, seed, OURS),)
        return Stage(self._named(seed, "pretrain"), command, spent=lambda: _trained_tokens(output), needs=needs)

    def _training(self, output: Path, recipe: Path, seed: int) -> list[str]:
        return ["-m", self.experiment.model, "-o", str(output), "-r", str(recipe), "--seed", str(seed)]

    def _train_settings(self, seed: int, system: str, changes: dict[str, Any]) -> Path:
        """Write the recipe of a training."""
        path = self.folder.settings(self.name, seed) / f"train-{system}.yaml"
        made = self.experiment.train_recipe(self.name).override(changes)
        write_text(path, yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return path

    def _like(self, seed: int) -> dict[str, Any]:
        """Give the settings with which a baseline takes as many updates as the system itself took, if it took any."""
        ours = self.folder.adapter(self.name, seed, OURS) / MANIFEST
        if not ours.is_file():
            return {}
        steps = read_json(ours)["fitted"]["steps"]
        return {"max_steps": steps, "epochs": _FOR_EVER, "patience": None}

    def _evaluate(self, seed: int, system: str) -> Stage:
        output = self.folder.scores(self.name, seed, system)
        is_adapted = system != ZERO_SHOT

        def command() -> Sequence[str]:
            one, model = self.experiment.sets[self.name], self.experiment.model
            adapted = [str(self.folder.adapter(self.name, seed, system)), "--base", model]
            told = [*_KATSUO, "evaluate", *(adapted if is_adapted else [model]), "-o", str(output)]
            told += ["--suite", one.suite] if one.suite else ["--task", str(one.task)]
            told += ["--data", str(self.folder.split(self.name) / TEST)]
            told += [flag for role, column in one.columns.items() for flag in ("--column", f"{role}={column}")]
            labels = labels_of(self.folder, self.name)
            told += ["--labels", json.dumps(labels, ensure_ascii=False)] if labels else []
            told += _as_flags(self.experiment.evaluate_flags())
            run = self.folder.run(self.name, seed, system)
            return [*told, *(["--run", str(run)] if is_adapted and (run / "recipe.yaml").is_file() else [])]

        name = f"{self.name}/evaluate-{system}" if not is_adapted else self._named(seed, f"evaluate-{system}")
        needs = _training_of(self.name, seed, system) if is_adapted else self._split
        return Stage(name, command, self._skip(seed, system), lambda: _asked_tokens(output), (needs,))

    def _skip(self, seed: int, system: str) -> Callable[[], str]:
        """Give what says why a system cannot be had: no data for it, or the same as the system itself."""
        if system == "supervised":
            told = self.folder.split(self.name) / TOLD
            return lambda: "" if read_json(told)["labelled_rows"] else "there are no labelled rows beside the test rows"
        if system == "prompted":
            return lambda: self._same() or self._empty(seed, system)
        if system == "shuffled":
            return lambda: self._empty(seed, OURS)
        return lambda: self._empty(seed, system) if system == OURS else ""

    def _same(self) -> str:
        """Say so where the prompted generator would be the one that there is."""
        ours, prompted = (self.experiment.generate_recipe(self.name, prompted=one) for one in (False, True))
        if ours.codec == "auto" and ours.engine == "hf":
            ours = ours.override({"codec": codec_of(ours.model, ours.adapter)})
        return "the generator is the prompted model itself" if ours == prompted else ""

    def _empty(self, seed: int, system: str) -> str:
        run = self.folder.run(self.name, seed, system)
        done = (run / "manifest.json").is_file() and "summary" in read_json(run / "manifest.json")
        return "no example was kept" if done and not Run(run).summary().kept else ""

    def _named(self, seed: int, what: str) -> str:
        return f"{self.name}/seed-{seed}/{what}"


def _general(folder: ExperimentFolder, experiment: Experiment, name: str, *, with_zero_shot: bool) -> Iterator[Stage]:
    """Measure general abilities of the model as it is, and of what was trained for a set with the first seed."""
    first = experiment.seeds[0]

    def stage(system: str) -> Stage:
        told = [str(folder.path), name, str(first), system]
        adapter = folder.adapter(name, first, system)
        skip = (lambda: "") if system == ZERO_SHOT else lambda: "" if adapter.is_dir() else "there is no such adapter"
        label = f"general-{system}" if system == ZERO_SHOT else f"{name}/seed-{first}/general-{system}"
        place = folder.general(name, first, system)
        needs = () if system == ZERO_SHOT else (_training_of(name, first, system),)
        return Stage(label, lambda: [*_STAGE, "general", *told], skip, lambda: _general_tokens(place), needs)

    if with_zero_shot:
        yield stage(ZERO_SHOT)
    for system in (OURS, *(one for one in experiment.baselines if one != ZERO_SHOT)):
        yield stage(system)


def _training_of(name: str, seed: int, system: str) -> str:
    return f"{name}/seed-{seed}/{'pretrain' if system == 'self-supervised' else f'adapt-{system}'}"


def _as_flags(settings: dict[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={_yaml_line(value)}")]


def _yaml_line(value: Any) -> str:
    """Write a value on one line: JSON is YAML, but for the two halves that JSON writes of a rare character."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\U{ord(found[0]):08x}", text)


def _trained_tokens(adapter: Path) -> tuple[int, str]:
    return int(read_json(adapter / MANIFEST)["fitted"]["tokens"]), "tokens trained on"


def _asked_tokens(scores: Path) -> tuple[int, str]:
    sets = read_json(scores / "scores.json")["sets"].values()
    return sum(one["prompt_tokens"] for one in sets), "tokens asked"


def _general_tokens(place: Path) -> tuple[int, str]:
    told = read_json(place / GENERAL)
    texts = sum(int(one["tokens"]) for one in told.get("texts", ()))
    return texts + (_asked_tokens(place / SUITES)[0] if told["suites"] else 0), "tokens asked"


__all__ = ["Stage", "plan"]
