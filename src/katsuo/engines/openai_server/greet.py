"""First words with a server: which model it serves, how much that reads, and what else it can be asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from katsuo.engines.base import UNKNOWN_CODEC, EngineSettings
from katsuo.engines.openai_server.dialects import DIALECTS, PLAIN, Dialect
from katsuo.engines.openai_server.line import Line, Refusal, Reply, Trouble
from katsuo.engines.openai_server.patience import Patience, denied
from katsuo.errors import EngineError, ModelError
from katsuo.models import codec_of
from katsuo.models.known import codec_by_name, find_known

PROBE = "Name a tree."
"""A harmless question, to see what a server takes."""
_USUAL_CONTEXT_TOKENS = 4096
_FACTS = ("id", "root", "max_model_len", "meta")
"""What a list of models says about the weights themselves, in the servers that say it."""


@dataclass(frozen=True)
class Served:
    """The model that is asked: its name on the server, and what the server tells of it; 0 for what it does not."""

    name: str
    dialect: Dialect
    context_tokens: int
    revision: str
    codec: str
    vocabulary: int = 0

    @property
    def public_name(self) -> str:
        """The name that rows may carry: a path's last part, any other name as it is."""
        is_path = self.name.startswith(("/", "~", ".")) or "\\" in self.name
        return re.split(r"[/\\]", self.name.rstrip("/\\"))[-1] if is_path else self.name


async def greet(patience: Patience, settings: EngineSettings) -> Served:
    """Ask which models are served and choose; raise `EngineError` when nobody answers or the model is not there."""
    line = patience.line
    async with patience.gate.passed() as place:
        outcome = await patience.ask(place, f"{line.address}/models", is_probe=True)
    if isinstance(outcome, Refusal) and outcome.is_denial:
        await _check_key(patience, settings.model, outcome)
    elif not isinstance(outcome, Reply):
        raise EngineError(
            f'the server at "{line.address}" gives no list of its models: {outcome.words}',
            hint="check --base-url: it ends where the protocol begins, as a rule in /v1",
        )
    listed = [model for model in _listed(outcome) if isinstance(model.get("id"), str)]
    model = _choose(settings.model, listed, line)
    dialect = DIALECTS.get(str(model.get("owned_by", "")), PLAIN)
    told = _first_number((model.get("meta") or {}).get("n_ctx"), model.get("max_model_len"))
    return Served(
        name=str(model["id"]),
        dialect=dialect,
        context_tokens=settings.options.context_tokens or told or _USUAL_CONTEXT_TOKENS,
        revision=settings.options.revision or _revision(model, line),
        codec=_codec(str(model["id"]), settings.model),
        vocabulary=_first_number((model.get("meta") or {}).get("n_vocab")) or 0,
    )


async def _check_key(patience: Patience, model: str, denial: Refusal) -> None:
    """Raise `EngineError` where a key that may not see the list of models may not ask a question either."""
    questions: Mapping[str, Mapping[str, Any]] = {
        "chat/completions": {"messages": [{"role": "user", "content": PROBE}]},
        "completions": {"prompt": PROBE},
    }
    async with patience.gate.passed() as place:
        for path, question in questions.items():
            url = f"{patience.line.address}/{path}"
            told = {"model": model, **question, "max_tokens": 1}
            outcome = await patience.ask(place, url, told, is_probe=True)
            if not (isinstance(outcome, Refusal) and outcome.is_denial):
                return
    raise denied(patience.line, denial)


def _listed(outcome: Reply | Refusal) -> Sequence[Mapping[str, Any]]:
    """Give the models of a list; none where it was not to be seen."""
    listed = outcome.body.get("data") if isinstance(outcome, Reply) else None
    return [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []


def _choose(asked: str, listed: Sequence[Mapping[str, Any]], line: Line) -> Mapping[str, Any]:
    """
    Find the model asked for by name; a server that has one model only may call it as it likes.

    A list without any model is that of a server that loads what it is asked for.
    """
    if not listed:
        return {"id": asked}
    for model in listed:
        if _is_same(asked, str(model["id"])):
            return model
    is_local_name = find_known(asked) is not None or Path(asked).expanduser().is_dir()
    if len(listed) == 1 and is_local_name:
        return listed[0]
    names = ", ".join(f'"{model["id"]}"' for model in listed[:8])
    raise EngineError(
        f'the server at "{line.address}" serves no model "{asked}"',
        hint=f"give `--model` one of those it serves: {names}",
    )


def _is_same(asked: str, served: str) -> bool:
    if asked == served or Path(asked).name == Path(served).name:
        return True
    known = find_known(asked)
    return known is not None and known is find_known(served)


def _codec(served: str, asked: str) -> str:
    if Path(asked).expanduser().is_dir():
        try:
            return codec_of(asked)
        except ModelError:
            return UNKNOWN_CODEC  # the recipe has to name it, and says so where it does not
    if known := find_known(served):
        return known.codec
    return codec_by_name(Path(served).name) or UNKNOWN_CODEC


def _revision(model: Mapping[str, Any], line: Line) -> str:
    """Give a mark of the weights, or of the place they are served from where the server tells nothing of them."""
    facts = {name: model[name] for name in _FACTS if model.get(name)}
    if isinstance(facts.get("meta"), dict):
        facts["meta"] = {name: value for name, value in facts["meta"].items() if name != "n_ctx"}  # set at its start
    if len(facts) < 2:
        facts["address"] = line.address
    return f"served-{blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=6).hexdigest()}"


def _first_number(*values: object) -> int | None:
    return next((value for value in values if isinstance(value, int) and value > 0), None)


async def can_tokenize(patience: Patience, served: Served) -> bool:
    """Say whether the server counts tokens."""
    if served.dialect.tokenize is None:
        return False
    outcome = await ask_tokens(patience, served, "one two three", is_probe=True)
    return isinstance(outcome, int) and outcome > 0


async def ask_tokens(
    patience: Patience, served: Served, text: str, *, is_probe: bool = False
) -> int | Refusal | Trouble:
    """Ask how many tokens a text has."""
    assert served.dialect.tokenize is not None
    async with patience.gate.passed() as place:
        told = served.dialect.tokenize(served.name, text)
        outcome = await patience.ask(place, f"{patience.line.root}/tokenize", told, is_probe=is_probe)
    if not isinstance(outcome, Reply):
        return outcome
    tokens = outcome.body.get("tokens")
    return len(tokens) if isinstance(tokens, list) else Trouble("the server gives no tokens")
