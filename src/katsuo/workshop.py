"""A recipe made ready to work: task types read, codec chosen, engine open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from katsuo.config import Recipe, recipe_from
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.base import CanGenerate
from katsuo.errors import RecipeError, SourceError, UsageError
from katsuo.pipeline.answer import Answerer
from katsuo.pipeline.clean import HeldOut, PassageFilter
from katsuo.pipeline.prepare import Preparation, passage_size, token_counter
from katsuo.records import Document
from katsuo.sources import iter_documents
from katsuo.tasks import TaskType, load_task
from katsuo.tasks.codec import CODECS, Codec, find_codec


@dataclass(frozen=True)
class Workshop:
    """A recipe with its engine open and its task types read: ready to prepare passages and to answer them."""

    recipe: Recipe
    engine: CanGenerate
    tasks: tuple[TaskType, ...]
    codec: Codec

    @property
    def answerer(self) -> Answerer:
        """The step from passages to outcomes."""
        return Answerer(self.engine, self.tasks, self.codec, self.recipe.sampling, self.recipe.seed)

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


def open_workshop(recipe: Recipe) -> Workshop:
    """Check a recipe as far as that goes without documents, read its task types and load its model."""
    if not recipe.tasks:
        raise UsageError("no task type is given", hint="add `--task ynqa`; `katsuo tasks` lists them all")
    if not recipe.documents:
        raise UsageError(
            "no documents are given", hint="name files or folders: `katsuo generate DOCS --task ynqa -o RUN`"
        )
    tasks = tuple(dict.fromkeys(load_task(name) for name in recipe.tasks))
    settings = EngineSettings(recipe.model, recipe.adapter, recipe.engine_options)
    engine = open_engine(recipe.engine, settings)
    return Workshop(recipe, engine, tasks, _choose_codec(recipe, engine))


def _choose_codec(recipe: Recipe, engine: CanGenerate) -> Codec:
    asked = engine.info.codec if recipe.codec == "auto" else recipe.codec
    if asked not in CODECS and recipe.codec == "auto":
        raise RecipeError(
            f'nothing says which codec the model "{engine.info.model}" was trained with',
            hint="set `codec: bonito-v1` for a task generator, or `codec: instruct` for a chat model",
        )
    return find_codec(asked)


def _held_out_texts(recipe: Recipe) -> Iterator[str]:
    """Give the held-out texts; one that cannot be read stops the run, since it could let test data through."""
    asked = recipe_from({"documents": (recipe.held_out,), "text_column": recipe.text_column})
    for document in iter_documents(asked):
        if isinstance(document, Document):
            yield document.text
        else:
            raise SourceError(
                f'the held-out file "{document.source}" cannot be read: {document.reason}',
                hint="mend it, or leave it out: a passage it holds could be asked about",
            )
