"""A recipe made ready to work: task types read, codec chosen, engine open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from katsuo.budget import Meter
from katsuo.cache import AnswerCache, CachedEngine
from katsuo.config import SPEED_SETTINGS, Budget, Recipe, Sampling, recipe_from
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.base import CanGenerate, ModelInfo
from katsuo.errors import MissingPackageError, ModelError, RecipeError, SourceError, UsageError
from katsuo.models import locate_parts, state_of
from katsuo.models.known import find_known
from katsuo.pipeline.answer import Answerer
from katsuo.pipeline.clean import HeldOut, PassageFilter
from katsuo.pipeline.prepare import Preparation, passage_size, token_counter
from katsuo.records import Completion, Document, Prompt
from katsuo.runners import RUNNERS, Runner, RunnerSettings
from katsuo.runners.base import Tell
from katsuo.runners.local import LocalRunner
from katsuo.sources import iter_documents
from katsuo.tasks import TaskType, load_task
from katsuo.tasks.codec import CODECS, Codec, find_codec


@dataclass(frozen=True)
class Workshop:
    """
    A recipe with its engine open and its task types read: ready to prepare passages and to answer them.

    `cached` is the same engine behind the cache, None where its answers are not kept.
    """

    recipe: Recipe
    engine: CanGenerate
    tasks: tuple[TaskType, ...]
    codec: Codec
    meter: Meter
    cached: CachedEngine | None

    @property
    def answerer(self) -> Answerer:
        """The step from passages to outcomes."""
        recipe = self.recipe
        return Answerer(
            self.cached or self.engine,
            self.tasks,
            self.codec,
            recipe.sampling,
            recipe.seed,
            readings=recipe.checks.readings,
        )

    @property
    def from_cache(self) -> int:
        """Answers that were found in the cache up to now."""
        return self.cached.found if self.cached else 0

    @property
    def prompts_per_passage(self) -> int:
        """Task types times samples."""
        return len(self.tasks) * self.recipe.sampling.n

    def preparation(self) -> Preparation:
        """Start cutting documents into passages that fit the model."""
        size = passage_size(
            self.recipe.chunk.size,
            engine=self.engine,
            tasks=self.tasks,
            codec=self.codec,
            max_new_tokens=self.recipe.sampling.max_new_tokens,
        )
        checks = self.recipe.checks
        held_out = HeldOut(_held_out_texts(self.recipe), checks.held_out_ngram) if self.recipe.held_out else None
        return Preparation(
            size=size,
            overlap=min(self.recipe.chunk.overlap, size // 2),
            count_tokens=token_counter(self.engine),
            passage_filter=PassageFilter(checks.duplicate_similarity, held_out),
        )


def settled(recipe: Recipe) -> Recipe:
    """Give the recipe with what the table of known models says of sampling, where the recipe leaves it open."""
    known = find_known(recipe.adapter or recipe.model)
    usual = known.sampling if known else {}
    left_open = {name: usual[name] for name in usual if name not in recipe.sampling.model_fields_set}
    return recipe.override({f"sampling.{name}": value for name, value in left_open.items()})


def open_workshop(recipe: Recipe) -> Workshop:
    """Check a recipe as far as that goes without documents, read its task types and load its model."""
    if not recipe.tasks:
        raise UsageError("no task type is given", hint="add `--task ynqa`; `katsuo tasks` lists them all")
    if not recipe.documents:
        raise UsageError(
            "no documents are given", hint="name files or folders: `katsuo generate DOCS --task ynqa -o RUN`"
        )
    meter = Meter(recipe.budget)
    tasks = tuple(dict.fromkeys(load_task(name) for name in recipe.tasks))
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f'two task types are called "{twice}"', hint="give one of them another `name`")
    settings = EngineSettings(recipe.model, recipe.adapter, recipe.engine_options)
    engine = open_engine(recipe.engine, settings)
    codec = _choose_codec(recipe, engine)
    has_cache = recipe.cache and engine.info.is_cacheable
    cached = CachedEngine(engine, AnswerCache(), _identity(recipe, engine), meter) if has_cache else None
    return Workshop(recipe, engine, tasks, codec, meter, cached)


def open_runner(recipe: Recipe) -> Runner[Workshop]:
    """Give the recipe's runner; its workers open workshops of their own."""
    # Workers that are counted together are counted where their outcomes are kept.
    told = recipe if recipe.runner == "local" else recipe.model_copy(update={"budget": Budget()})
    settings = RunnerSettings(partial(open_workshop, told), recipe.runner_options)
    return RUNNERS.get(recipe.runner)(settings)


def workshop_of(runner: Runner[Workshop], recipe: Recipe, meter: Meter) -> Workshop:
    """Give the runner's workshop; where that is another process's, one whose engine asks there."""
    if isinstance(runner, LocalRunner):
        here: Workshop = runner.bench
        return here
    info, tasks, codec = runner.call(_described)
    return Workshop(recipe, EngineElsewhere(info, runner), tasks, codec, meter, None)


def _described(workshop: Workshop, tell: Tell) -> tuple[ModelInfo, tuple[TaskType, ...], Codec]:
    del tell
    return workshop.engine.info, workshop.tasks, workshop.codec


@dataclass(frozen=True)
class EngineElsewhere:
    """The engine of a worker, as another process sees it: it is asked there."""

    info: ModelInfo
    runner: Runner[Workshop]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order, by the engine of one worker."""
        return self.runner.call(partial(_generate, prompts=prompts, sampling=sampling))


def _generate(workshop: Workshop, tell: Tell, *, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    del tell
    return (workshop.cached or workshop.engine).generate(prompts, sampling)


def _identity(recipe: Recipe, engine: CanGenerate) -> dict[str, object]:
    """Tell one model from another, for the cache: an answer of other weights or of another server is no answer."""
    info, options = engine.info, recipe.engine_options.model_dump(mode="json")
    # A server's address counts, although a run may move to another: two servers may call two models by one name.
    speed = {name.rpartition(".")[2] for name in SPEED_SETTINGS} - {"base_url"}
    base = _state_of_base(recipe)
    return {
        "model": (info.engine, info.model, info.revision),
        "files": state_of(recipe.model),
        **({"base": base} if base else {}),
        "adapter": recipe.adapter and (state_of(recipe.adapter) or recipe.adapter),
        "options": {name: value for name, value in options.items() if name not in speed},
    }


def _state_of_base(recipe: Recipe) -> str:
    """Give the state of the base that an adapter given as the model names; empty for a model that stands alone."""
    try:
        base, adapter = locate_parts(recipe.model, recipe.adapter)
    except (ModelError, MissingPackageError):
        return ""  # a server's model, or one that the engine knows by name alone
    return state_of(str(base)) if adapter and not recipe.adapter else ""


def _choose_codec(recipe: Recipe, engine: CanGenerate) -> Codec:
    asked = engine.info.codec if recipe.codec == "auto" else recipe.codec
    if asked not in CODECS and recipe.codec == "auto":
        raise RecipeError(
            f'nothing says which codec the model "{engine.info.model}" was trained with',
            hint="set `codec: bonito-v1` for a task generator, or `codec: instruct` for a chat model",
        )
    return find_codec(asked)


def held_out_alone(recipe: Recipe) -> Recipe:
    """Give the recipe that reads the held-out file as documents."""
    return recipe_from({"documents": (recipe.held_out,), "text_column": recipe.text_column})


def _held_out_texts(recipe: Recipe) -> Iterator[str]:
    """Give the held-out texts; one that cannot be read stops the run, since it could let test data through."""
    for document in iter_documents(held_out_alone(recipe)):
        if isinstance(document, Document):
            yield document.text
        else:
            raise SourceError(
                f'the held-out file "{document.source}" cannot be read: {document.reason}',
                hint="mend it, or leave it out: a passage it holds could be asked about",
            )
