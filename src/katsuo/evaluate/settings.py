"""Every setting of an evaluation, and what makes two evaluations comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from katsuo.config import EngineOptions
from katsuo.settings import Settings, build, flat, lay_over


class EvaluateSettings(Settings):
    """How test questions are asked and judged; the defaults are the paper's."""

    engine: str = "hf"
    """Who answers: the name of an engine."""
    engine_options: EngineOptions = EngineOptions()
    style: Literal["auto", "chat", "input-output", "template"] = "auto"
    """How the model is asked; auto takes what an adapter was trained with, else the chat template if there is one."""
    prompt_template: str | None = None
    """A prompt with `{instruction}` in it, for `style: template`."""
    normalise: Literal["none", "tokens", "bytes"] = "none"
    """Divide a choice's log-probability by its length in tokens or bytes."""
    eos: Literal["auto", "yes", "no"] = "auto"
    """Score the end of the answer, too; auto does so except in a chat, as in the paper."""
    max_prompt_tokens: int = Field(default=1024, ge=32)
    """Longest instruction; what is longer is cut from the passage's side."""
    max_new_tokens: int = Field(default=25, ge=8)
    """Longest written answer."""
    first_gold: bool = False
    """Compare a written answer with the first gold answer alone, as the paper does, instead of with all."""
    templates: tuple[str, ...] | int | None = None
    """Only these templates, or the first so many."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many items of a set, drawn by hash."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of that draw."""

    @field_validator("templates")
    @classmethod
    def _names_a_template(cls, templates: tuple[str, ...] | int | None) -> tuple[str, ...] | int | None:
        if templates is not None and (templates < 1 if isinstance(templates, int) else not templates):
            raise ValueError("give the names of templates, or a number of at least 1")
        return templates


_MAY_CHANGE = (
    *("engine_options.batch_size", "engine_options.device", "engine_options.trust_remote_code"),
    *("engine_options.base_url", "engine_options.timeout_s", "engine_options.retries"),
)
PAIRED = ("normalise", "max_prompt_tokens", "max_new_tokens", "first_gold", "templates", "limit", "seed")
"""Settings in which two evaluations must agree to be compared."""


def make_settings(values: Mapping[str, Any]) -> EvaluateSettings:
    """Make settings from plain values, dotted keys included; raise `RecipeError` for the first that cannot be."""
    return build(EvaluateSettings, lay_over({}, values), listed="docs/evaluation.md")


def identity(settings: EvaluateSettings) -> dict[str, Any]:
    """Give all that decides what comes out."""
    told = flat(settings.model_dump(mode="json"))
    return {key: value for key, value in told.items() if key not in _MAY_CHANGE}
