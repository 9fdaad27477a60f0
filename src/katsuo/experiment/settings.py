"""The recipe of an experiment: every setting of `katsuo run`, YAML in and out, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from katsuo.config import Recipe, recipe_from
from katsuo.errors import RecipeError
from katsuo.evaluate.settings import EvaluateSettings, make_settings
from katsuo.evaluate.suites import Suite, load_suite, task_suite
from katsuo.settings import Settings, build, flat, lay_over, read_yaml
from katsuo.train.recipes import TrainRecipe, named_recipe

Baseline = Literal["zero-shot", "self-supervised", "prompted", "shuffled", "supervised"]
BASELINES: tuple[Baseline, ...] = ("zero-shot", "self-supervised", "prompted", "shuffled", "supervised")
OURS = "katsuo"


class SetSettings(Settings):
    """One domain: its documents, what is asked about them, and the labelled rows that judge."""

    documents: tuple[str, ...] = Field(min_length=1)
    """Files, folders, or `hf://owner/name`."""
    include: tuple[str, ...] = ()
    """Take only files whose name or path matches one of these globs."""
    exclude: tuple[str, ...] = ()
    """Leave out files whose name or path matches one of these globs."""
    text_column: str = "text"
    """Column that holds the text in tables."""
    tasks: tuple[str, ...] = ()
    """Task types to generate; the suite's own where none is named."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many passages."""
    suite: str | None = None
    """A known suite or a YAML file that tells how the labelled rows are asked about."""
    task: str | None = None
    """The task type of your own labelled rows, in place of a suite."""
    data: str | None = None
    """The labelled rows: a file, or the folder that holds a suite's."""
    columns: dict[str, str] = Field(default_factory=dict)
    """What your columns are, such as `passage: abstract`."""
    labels: tuple[str, ...] = ()
    """The labels in your data, in the suite's order."""
    document_column: str | None = None
    """Column of the labelled rows that names their document; otherwise it is found by its words."""
    labelled: str | None = None
    """A file of further labelled rows, in the columns of the test rows, for the supervised upper bound."""
    generate: dict[str, Any] = Field(default_factory=dict)
    """Settings of the generation for this set alone."""
    adapt: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training for this set alone."""

    @model_validator(mode="after")
    def _has_one_way_to_ask(self) -> SetSettings:
        if bool(self.suite) == bool(self.task):
            raise ValueError("give either suite or task")
        return self

    def read_suite(self) -> Suite:
        """Give the suite that the rows are asked with."""
        suite = load_suite(self.suite) if self.suite else task_suite(str(self.task))
        return suite.renamed(self.columns).relabelled(self.labels)


class Forgetting(Settings):
    """What shows whether a model has lost general abilities."""

    built_in: bool = True
    """Perplexity on general text, and whether answers have the form that was asked for."""
    suites: tuple[str, ...] = ()
    """Suites of other task types, judged for every system."""
    data: str | None = None
    """The folder that holds the rows of those suites."""
    limit: int = Field(default=100, ge=1)
    """At most this many rows of each suite."""


class Experiment(Settings):
    """Every setting of `katsuo run`."""

    model: str = "smollm2-135m-instruct"
    """The model that is adapted: a known name, a hub name or a folder."""
    sets: dict[str, SetSettings] = Field(min_length=1)
    """Domains by name; each is adapted to and judged by itself."""
    baselines: tuple[Baseline, ...] = BASELINES
    """What to compare with; the supervised upper bound is left out where there are no labelled rows for it."""
    generate: dict[str, Any] = Field(default_factory=dict)
    """Settings of the generation, as in a recipe of `katsuo generate`."""
    prompted: dict[str, Any] = Field(default_factory=dict)
    """Settings of the prompted generator, laid over those of `generate` and of the set; by default the model itself,
    prompted."""
    adapt: dict[str, Any] = Field(default_factory=dict)
    """Settings of every training, as in a training recipe; `recipe: paper` begins with that one."""
    evaluate: dict[str, Any] = Field(default_factory=dict)
    """Settings of every evaluation."""
    forgetting: Forgetting | None = Forgetting()
    """What else is measured; null measures nothing else."""
    test_share: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the labelled documents that are held out; the rows of the others serve the supervised upper bound."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Generation and training are done once with each seed; all are judged on the same rows."""

    @model_validator(mode="after")
    def _names_are_folders(self) -> Experiment:
        for name in self.sets:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f'the set "{name}" cannot be a folder: use letters, digits, - and _')
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    def generate_recipe(self, name: str, *, prompted: bool = False) -> Recipe:
        """Give the recipe of a set's generation, its documents aside."""
        one = self.sets[name]
        tasks = one.tasks or tuple(filter(None, [one.read_suite().task_type]))
        recipe = recipe_from({"tasks": tasks}).override({**_free("generate", self.generate), "limit": one.limit})
        recipe = recipe.override(_free(f"sets.{name}.generate", one.generate))
        if not prompted:
            return recipe
        itself = {"engine": "hf", "model": self.model, "adapter": None, "codec": "instruct"}
        return recipe.override(itself).override(_free("prompted", self.prompted))

    def train_recipe(self, name: str) -> TrainRecipe:
        """Give the recipe of a set's trainings."""
        told = lay_over({}, _free("adapt", self.adapt, _OF_TRAINING))
        told = lay_over(told, _free(f"sets.{name}.adapt", self.sets[name].adapt, _OF_TRAINING))
        return named_recipe(str(told.pop("recipe", "laptop")), "target").override(told)

    def evaluate_settings(self) -> EvaluateSettings:
        """Give the settings of every evaluation."""
        return make_settings(flat(self.evaluate))

    def evaluate_flags(self) -> dict[str, Any]:
        """Give the same as dotted keys."""
        return flat(self.evaluate)

    def check(self) -> None:
        """Raise `RecipeError` for the first setting that cannot be."""
        self.evaluate_settings()
        for name in self.sets:
            self.train_recipe(name)
            self.generate_recipe(name)
            self.generate_recipe(name, prompted=True)


def read_experiment(path: Path) -> Experiment:
    """Read and check a recipe; raise `RecipeError` that names the file and the nearest known key."""
    return experiment_from(read_yaml(path), where=f' in "{path}"')


def experiment_from(values: Mapping[str, Any], *, where: str = "") -> Experiment:
    """Build an experiment from plain values and check all of it."""
    experiment = build(Experiment, values, where=where, listed="docs/run.md")
    experiment.check()
    return experiment


_OF_GENERATION = {
    "documents": "sets.NAME.documents",
    "tasks": "sets.NAME.tasks",
    "held_out": "the labelled rows themselves",
    "limit": "sets.NAME.limit",
    "seed": "seeds",
}
_OF_TRAINING = {"seed": "seeds"}


def _free(where: str, values: Mapping[str, Any], made: Mapping[str, str] = _OF_GENERATION) -> dict[str, Any]:
    """Give settings of a generation or a training, none of which the experiment makes itself."""
    for key, instead in made.items():
        if key in values:
            raise RecipeError(f'setting "{where}.{key}" is made by the experiment', hint=f"say it with {instead}")
    return dict(values)
