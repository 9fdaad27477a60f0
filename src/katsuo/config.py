"""The recipe: every setting of a run, typed, checked when built, read from YAML and written back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from katsuo.errors import RecipeError
from katsuo.settings import Settings, build, lay_over, read_yaml


class Chunk(Settings):
    """How documents are cut into passages."""

    size: int = Field(default=384, ge=16, le=32768)
    """Longest passage, in tokens of the generator."""
    overlap: int = Field(default=0, ge=0)
    """Tokens that a passage repeats from the one before it; at most half of `size`."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Chunk:
        if 2 * self.overlap > self.size:
            raise ValueError(f"overlap {self.overlap} is more than half of size {self.size}")
        return self


class Sampling(Settings):
    """How the task generator writes. The defaults are the paper's."""

    temperature: float = Field(default=0.5, ge=0.0, le=2.0)
    """0 decodes greedily."""
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Nucleus: the smallest set of tokens whose probabilities reach this share."""
    max_new_tokens: int = Field(default=256, ge=8)
    """Longest answer (instruction and response together), in tokens."""
    n: int = Field(default=1, ge=1, le=64)
    """Samples per passage and task type."""
    answer: Literal["sampled", "greedy"] = "sampled"
    """`greedy` samples the instruction and then decodes the response greedily."""
    grammar: bool = True
    """Let the decoder emit only what is well formed for the task type, where the engine can."""


class Checks(Settings):
    """What an example must pass beyond the form of its task type."""

    duplicate_similarity: float = Field(default=0.8, gt=0.0, le=1.0)
    """Estimated Jaccard similarity (word 3-grams) from which two texts are near-duplicates; 1 means equal texts."""
    readings: int = Field(default=0, ge=0, le=16)
    """Ask the model its own question again, once greedily or several times by sampling, and leave out a label, an
    option or a span unless most answers agree with it, its own included."""
    held_out_ngram: int = Field(default=13, ge=3)
    """A passage that shares a run of this many words with the held-out file is left out."""


class Budget(Settings):
    """Where `katsuo generate` stops before every prompt is asked; the next command goes on from there."""

    max_minutes: float | None = Field(default=None, gt=0)
    """Minutes that one command may take, loading the model and reading documents included."""
    max_tokens: int | None = Field(default=None, ge=1)
    """New tokens that one command may have written; answers out of the cache cost none."""
    max_examples: int | None = Field(default=None, ge=1)
    """Examples that the run may hold."""


class EngineOptions(Settings):
    """How the engine runs its model; an engine reads what concerns it."""

    batch_size: int = Field(default=32, ge=1)
    """Prompts decoded together."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights; auto takes the model's own."""
    device: str = "auto"
    """auto takes a GPU where there is one, else the processor."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless asked."""
    base_url: str | None = None
    """Address of the server that the engine `openai` asks, as a rule ending in `/v1`."""
    timeout_s: float = Field(default=180.0, gt=0)
    """Longest wait for one answer of a server, in seconds."""
    retries: int = Field(default=6, ge=0)
    """How often a request that a server did not answer is made again, later and later."""
    context_tokens: int | None = Field(default=None, ge=64)
    """What a model behind a server takes; None asks the server, and assumes 4096 where it does not say."""
    python: str | None = None
    """The Python that has vLLM, for the engine `vllm`; unset: `KATSUO_VLLM_PYTHON`, else katsuo's own."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that hold one model together, for the engine `vllm`."""
    vllm_arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, such as `[--gpu-memory-utilization, "0.5"]`."""


class RunnerOptions(Settings):
    """Workers that answer shards; `runner: local` has one, in its own process, and reads none of these."""

    workers: int | None = Field(default=None, ge=1)
    """Workers, each with an engine of its own; unset: as many as there is room for when the run begins."""
    cpus_per_worker: float = Field(default=1.0, ge=0.0)
    """Processors that a worker reserves."""
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    """GPUs that a worker reserves; 0.5 puts two workers on one."""
    address: str = "local"
    """local starts Ray on this machine for this run alone; auto joins the cluster that it belongs to; or host:port."""


class Recipe(Settings):
    """Every setting of `katsuo generate`."""

    documents: tuple[str, ...] = ()
    """Files, folders, or `hf://owner/name[:config][/split]`."""
    include: tuple[str, ...] = ()
    """Take only files whose name or path matches one of these globs."""
    exclude: tuple[str, ...] = ()
    """Leave out files whose name or path matches one of these globs."""
    text_column: str = "text"
    """Column that holds the text in tables and data sets."""
    held_out: str | None = None
    """A file of texts (any format `documents` takes) that no passage may share."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many passages."""
    tasks: tuple[str, ...] = ()
    """Task types: names, short names or YAML files."""
    engine: str = "hf"
    """Who answers: the name of an engine."""
    model: str = "katsuo-135m"
    """The task generator: a known name, a hub name or a folder."""
    adapter: str | None = None
    """A LoRA adapter beside the model: a folder or a hub name."""
    codec: Literal["auto", "bonito-v1", "instruct"] = "auto"
    """The wire format; auto asks the model's manifest."""
    engine_options: EngineOptions = EngineOptions()
    chunk: Chunk = Chunk()
    sampling: Sampling = Sampling()
    checks: Checks = Checks()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the run; every sample derives its own from it."""
    shard_size: int = Field(default=128, ge=1)
    """Prompts per shard: what a killed run does again at most."""
    runner: str = "local"
    """Where it runs: local (this process) or ray (workers of a Ray cluster)."""
    runner_options: RunnerOptions = RunnerOptions()
    budget: Budget = Budget()
    cache: bool = True
    """Keep every answer, and ask nothing again that was answered before."""

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """Give a recipe with `changes` laid over this one; dotted keys reach into groups (`sampling.n`)."""
        # Only what was set is carried on, so that it can still be told from what was left open.
        return recipe_from(lay_over(self.model_dump(exclude_unset=True), changes))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raise `RecipeError` that names the file and the nearest known key."""
    return recipe_from(read_yaml(path), where=f' in "{path}"')


def recipe_from(values: Mapping[str, Any], *, where: str = "") -> Recipe:
    """Build a recipe from plain values; raise `RecipeError` for the first that cannot be."""
    return build(Recipe, values, where=where, listed="docs/recipe.md")


SPEED_SETTINGS = (
    *("engine_options.batch_size", "engine_options.device"),
    *("engine_options.base_url", "engine_options.timeout_s", "engine_options.retries"),
    *("engine_options.python", "engine_options.tensor_parallel"),
)
"""Settings that change how fast a run goes, or where its model is found, but not what it asks."""


def cache_dir() -> Path:
    """Give katsuo's cache folder: `KATSUO_CACHE`, else `katsuo` under `XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("KATSUO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "katsuo"


def answers_dir() -> Path:
    """Give the folder that holds the cache of answers, on a local disk: `KATSUO_ANSWERS`, else `cache_dir`."""
    return Path(own) if (own := os.environ.get("KATSUO_ANSWERS")) else cache_dir()


def api_key() -> str | None:
    """
    Give the key for a server: `KATSUO_API_KEY`, else `OPENAI_API_KEY`, None where neither is set.

    White space around it is left out. Raise `RecipeError`, without the key, for one that cannot be sent.
    """
    for name in ("KATSUO_API_KEY", "OPENAI_API_KEY"):
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise RecipeError(
                    f"the key in {name} holds a character that no key has",
                    hint="copy it again: letters, digits and signs of ASCII, in one line",
                )
            return key
    return None


def vllm_python() -> str | None:
    """Give the Python that has vLLM: `KATSUO_VLLM_PYTHON`, None where it is not set."""
    return os.environ.get("KATSUO_VLLM_PYTHON") or None
