"""Which model is judged, with which adapter, and how it is to be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from katsuo.engines import CanCountTokens, CanGenerate, EngineSettings, open_engine
from katsuo.errors import MissingPackageError, ModelError, UsageError
from katsuo.evaluate.ask import Examiner
from katsuo.evaluate.settings import EvaluateSettings
from katsuo.models import locate, public_name, revision_of
from katsuo.models.known import find_known
from katsuo.models.locate import has_chat_template, read_manifest
from katsuo.pipeline.chunk import approximate_tokens
from katsuo.tasks.style import asker, choose_style

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class System:
    """A model, perhaps with an adapter beside it."""

    model: str
    adapter: str | None = None

    @property
    def name(self) -> str:
        """Give the name that tables may carry."""
        return public_name(self.adapter or self.model)


def find_system(name: str, *, base: str | None = None) -> System:
    """
    Tell a model from an adapter: an adapter's folder names the model that it was trained on.

    `base` says which model is meant instead, such as a folder that holds it. Raise `ModelError` for an adapter that was
    trained on another one, or that names none.
    """
    folder = Path(name).expanduser()
    if not (folder / _ADAPTER).is_file():
        return System(name)
    named = read_manifest(folder).get("base_model") or _read(folder / _ADAPTER).get("base_model_name_or_path")
    if base is None and not named:
        raise ModelError(f'the adapter in "{folder}" does not name its model', hint="give --base the model")
    if base is not None and named and not _is_same(base, str(named), read_manifest(folder).get("base_revision")):
        raise ModelError(
            f'the adapter in "{folder}" was trained on "{named}", not on "{base}"', hint="leave --base out"
        )
    return System(str(base or named), str(folder))


def open_examiner(system: System, settings: EvaluateSettings) -> tuple[Examiner, dict[str, Any]]:
    """Load a system; give who asks it, and what it is, for the record."""
    engine = open_engine(settings.engine, EngineSettings(system.model, system.adapter, options=settings.engine_options))
    style, template = _style(system, settings, engine.info.codec)
    examiner = Examiner(engine, asker(style, template), style == "chat", settings, _counter(engine))
    told = {
        "model": engine.info.model,
        "revision": engine.info.revision,
        "adapter": fingerprint(Path(system.adapter)) if system.adapter else None,
        "style": style,
        "prompt_template": template,
    }
    return examiner, told


def fingerprint(adapter: Path) -> str:
    """Give a hash of an adapter's weights."""
    digest = blake2b(digest_size=8)
    for path in sorted(adapter.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _style(system: System, settings: EvaluateSettings, codec: str = "") -> tuple[str, str | None]:
    """Give the style that the settings ask for, or else the one that the system was trained with."""
    if settings.prompt_template:
        return "template", settings.prompt_template
    if settings.engine == "fake":
        return ("input-output" if settings.style == "auto" else settings.style), None
    trained = _trained(system) if settings.style == "auto" else {}
    if style := trained.get("style"):
        return str(style), trained.get("prompt_template")
    return choose_style(settings.style, model=system.model, has_chat_template=_is_chat(system, settings, codec)), None


def _is_chat(system: System, settings: EvaluateSettings, codec: str) -> bool:
    """Say whether a model takes a chat: by its files, or for one that is a server's by its name or as it is told."""
    # What a server's revision is called says nothing about the files here.
    revision = None if settings.engine == "openai" else settings.engine_options.revision
    try:
        return has_chat_template(locate(system.model, revision))
    except (ModelError, MissingPackageError):
        if settings.style != "auto" or codec == "instruct":
            return True
        raise UsageError(
            f'nothing here says how "{system.model}" is to be asked', hint="add --style chat, or --style input-output"
        ) from None


def _trained(system: System) -> Mapping[str, Any]:
    """Give the style of an adaptation and its template; nothing for any other model."""
    folder = Path(system.adapter or system.model).expanduser()
    manifest = read_manifest(folder) if folder.is_dir() else {}
    template = manifest.get("recipe", {}).get("prompt_template")
    return {"style": manifest.get("data", {}).get("style"), "prompt_template": template}


def _counter(engine: CanGenerate) -> Any:
    return engine.count_tokens if isinstance(engine, CanCountTokens) else approximate_tokens


def _is_same(base: str, named: str, revision: str | None) -> bool:
    one, other = find_known(base), find_known(named)
    if one or other:
        return one is other or (revision is not None and revision == revision_of(locate(base)))
    return public_name(base) == public_name(named) or (revision is not None and revision == revision_of(locate(base)))


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f'cannot read "{path}": {error}', hint="train the adapter again") from error
    return told
