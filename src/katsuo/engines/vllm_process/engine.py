"""The engine `vllm`: start vLLM's server with a model of this machine, and speak to it as to any other server."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from katsuo.config import Sampling
from katsuo.engines.base import UNKNOWN_CODEC, Choices, EngineSettings, ModelInfo, Scores
from katsuo.engines.openai_server.engine import converse
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.line import Line
from katsuo.engines.openai_server.score import ScoringEngine
from katsuo.engines.openai_server.width import Width
from katsuo.engines.vllm_process.command import BASE_NAME, Plan, environment, make_plan
from katsuo.engines.vllm_process.control import ControlTokens
from katsuo.engines.vllm_process.interpreter import find_python
from katsuo.engines.vllm_process.process import ServerProcess, make_folder
from katsuo.errors import EngineError, ModelError
from katsuo.models import codec_of, locate, public_name, revision_of
from katsuo.records import Completion, Prompt

_ADDRESS = "http://localhost/v1"
_MOST_UNDER_WAY = 1024
"""vLLM decides how many prompts it decodes together; all that a shard has may lie before it."""
_LONGEST_ANSWER_S = 3600.0
"""A prompt may wait for its turn among the others, and a process of our own is watched: time tells little."""
_START_S = 3600.0
_FIRST_ANSWER_S = 60.0
_HINT = (
    "for a model too large for the memory lower engine_options.context_tokens, or set engine_options.tensor_parallel "
    "or engine_options.vllm_arguments; the same command then goes on"
)


class VllmEngine:
    """Write completions with vLLM, in a process that ends with this engine."""

    def __init__(self, settings: EngineSettings, plan: Plan, process: ServerProcess, engine: ScoringEngine) -> None:
        self._settings = settings
        self._process = process
        self._engine = engine
        self._control = ControlTokens(plan.base)

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        adapter = self._settings.adapter
        return ModelInfo(
            engine="vllm",
            model=public_name(self._settings.model) + (f" + {public_name(adapter)}" if adapter else ""),
            revision=revision_of(locate(self._settings.model, self._settings.options.revision)),
            codec=self._codec(),
            context_tokens=self._engine.info.context_tokens,
            not_taken=self._engine.info.not_taken,
        )

    def _codec(self) -> str:
        """Name the codec that the model's files speak of; a recipe that names one does not need them to."""
        try:
            return codec_of(self._settings.model, self._settings.adapter, self._settings.options.revision)
        except ModelError:
            return UNKNOWN_CODEC

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; raise `EngineError` when the process has ended."""
        completions = dict(self.stream(prompts, sampling))
        return [completions[place] for place in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as it comes in."""
        places = []
        for place, prompt in enumerate(prompts):
            if objection := self._control.objection(prompt):
                yield place, Completion(finish="error", error=objection)
            else:
                places.append(place)
        if places:
            with closing(self._engine.stream([prompts[place] for place in places], sampling)) as stream:
                for number, completion in stream:
                    yield places[number], completion

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text."""
        return self._engine.count_tokens(texts)

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer, as it would have to be typed; empty where the server does not tell."""
        return self._engine.end_text(is_chat=is_chat)

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give how likely every answer is after its prompt, one `Scores` per question, in order."""
        objections = {place: self._control.objection(one.prompt) for place, one in enumerate(questions)}
        asked = [one for place, one in enumerate(questions) if not objections[place]]
        scores = iter(self._engine.score(asked))
        return [Scores(finish="error", error=words) if words else next(scores) for words in objections.values()]

    def close(self) -> None:
        """End the process and give its memory back."""
        self._process.close()


def open_vllm(settings: EngineSettings) -> VllmEngine:
    """
    Start vLLM with the model that `settings` name, and wait until it answers.

    Raise `MissingPackageError` where there is no vLLM, `ModelError` where there is no such model, and `EngineError`
    with vLLM's own words where it does not start.
    """
    plan = make_plan(settings)
    python = find_python(settings.options.python)
    key = secrets.token_urlsafe(32)
    folder = make_folder()
    path = folder / "socket"
    process = ServerProcess(folder, plan.command(python, path), environment(python, key, folder), hint=_HINT)
    try:
        listed = _wait(process, path, key)
        line = Line(_ADDRESS, key=key, timeout_s=_LONGEST_ANSWER_S, socket=path, on_trouble=process.check)
        told = {"context_tokens": _context(listed), "batch_size": _MOST_UNDER_WAY}
        asked = EngineSettings(plan.served_name, options=settings.options.model_copy(update=told))
        engine = converse(line, asked, _open_gate)
    except BaseException:
        process.close()
        raise
    if not isinstance(engine, ScoringEngine):
        process.close()
        raise EngineError("this vLLM gives no log-probabilities of a text", hint="pip install -U 'vllm>=0.11'")
    return VllmEngine(settings, plan, process, engine)


def _open_gate(widest: int) -> Gate:
    return Gate(Width(widest, _LONGEST_ANSWER_S, first=widest))


def _wait(process: ServerProcess, path: Path, key: str) -> Sequence[Mapping[str, Any]]:
    """Give the server's list of models as soon as it answers."""
    deadline = time.monotonic() + _START_S
    while not _listens(path):
        process.check()
        if time.monotonic() > deadline:
            raise EngineError(
                f"vLLM did not start within {_START_S:g} s; it last said: {process.last_words()}", hint=_HINT
            )
        time.sleep(0.1)
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), timeout=_FIRST_ANSWER_S) as client:
        try:
            response = client.get(f"{_ADDRESS}/models", headers={"Authorization": f"Bearer {key}"})
            listed: Sequence[Mapping[str, Any]] = response.raise_for_status().json()["data"]
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            process.check()
            raise EngineError(f"vLLM's server gives no list of its models: {error!r}", hint=_HINT) from error
    return listed


def _listens(path: Path) -> bool:
    """Say whether somebody answers at a socket; a server has its socket before it listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _context(listed: Sequence[Mapping[str, Any]]) -> int:
    """Give how many tokens the model takes, which is told of the base alone."""
    return int(next(model["max_model_len"] for model in listed if model["id"] == BASE_NAME))
