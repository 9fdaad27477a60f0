"""The engine `openai`: ask a server for completions, many at once, and lose none of them to its bad days."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Generator, Sequence

from katsuo.config import Sampling, api_key
from katsuo.engines.base import EngineSettings, ModelInfo
from katsuo.engines.openai_server.background import Background
from katsuo.engines.openai_server.endpoint import Endpoint
from katsuo.engines.openai_server.gate import Gate
from katsuo.engines.openai_server.greet import Served, ask_tokens, can_tokenize, greet
from katsuo.engines.openai_server.line import Line
from katsuo.engines.openai_server.not_taken import NotTaken
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.score import ScoringEngine, find_way
from katsuo.engines.openai_server.width import Width
from katsuo.engines.openai_server.writing import write
from katsuo.errors import EngineError, UsageError
from katsuo.records import Completion, Prompt

_COUNTS_AT_ONCE = 8
_FIRST_RETRIES = 2
"""Of the first question of all: an address where nobody listens is soon told."""
_Arrivals = queue.SimpleQueue["tuple[int, Completion] | None"]


class OpenAIEngine:
    """Write completions with a model behind a server; `engine_options.batch_size` is the most requests under way."""

    def __init__(self, served: Served, patience: Patience, background: Background) -> None:
        self._served = served
        self._background = background
        self._not_taken = NotTaken()
        self._endpoints = {chat: Endpoint(served, patience, chat, self._not_taken) for chat in (False, True)}
        self._opening = {is_chat: asyncio.Lock() for is_chat in self._endpoints}
        self._open: set[bool] = set()
        self._gate = patience.gate

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        served = self._served
        told = (served.public_name, served.revision, served.codec, served.context_tokens)
        return ModelInfo("openai", *told, not_taken=self._not_taken.names)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; raise `EngineError` when the server answers no more."""
        completions = dict(self.stream(prompts, sampling))
        return [completions[place] for place in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as it comes in."""
        arrivals: _Arrivals = queue.SimpleQueue()
        future = self._background.start(self._answer_all(prompts, sampling, arrivals))
        future.add_done_callback(lambda _: arrivals.put(None))
        try:
            while (arrival := arrivals.get()) is not None:
                yield arrival
            future.result()
        finally:
            future.cancel()

    async def _answer_all(self, prompts: Sequence[Prompt], sampling: Sampling, arrivals: _Arrivals) -> None:
        async def answer(place: int, prompt: Prompt) -> None:
            arrivals.put((place, await self._answer(prompt, sampling)))

        tasks = [asyncio.create_task(answer(place, prompt)) for place, prompt in enumerate(prompts)]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        finally:
            for open_task in tasks:
                open_task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if not prompt.text and not prompt.messages:
            return Completion(finish="error", error="the prompt is empty")
        endpoint = await self._opened(is_chat=bool(prompt.messages))
        async with self._gate.passed() as place:
            return await write(endpoint, place, prompt, sampling)

    async def _opened(self, *, is_chat: bool) -> Endpoint:
        endpoint = self._endpoints[is_chat]
        async with self._opening[is_chat]:
            if is_chat not in self._open:
                await endpoint.open()
                self._open.add(is_chat)
        return endpoint


class CountingEngine:
    """Hold an engine whose server also counts tokens."""

    def __init__(self, engine: OpenAIEngine, served: Served, patience: Patience, background: Background) -> None:
        self._engine = engine
        self._served = served
        self._patience = patience
        self._background = background

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        return self._engine.info

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order."""
        return self._engine.generate(prompts, sampling)

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as it comes in."""
        return self._engine.stream(prompts, sampling)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Ask the server how many tokens each text has; raise `EngineError` when it does not say."""
        return self._background.run(self._count_all(texts))

    async def _count_all(self, texts: Sequence[str]) -> list[int]:
        return list(await asyncio.gather(*(self._count(text) for text in texts)))

    async def _count(self, text: str) -> int:
        outcome = await ask_tokens(self._patience, self._served, text)
        if isinstance(outcome, int):
            return outcome
        raise EngineError(
            f"the server no longer counts tokens, as it did at first: {outcome.words}",
            hint="start it again; the same command then goes on",
        )


def open_openai(settings: EngineSettings) -> OpenAIEngine | CountingEngine | ScoringEngine:
    """
    Greet the server that `engine_options.base_url` names, choose the model, and find out what else it can be asked.

    Nothing is sent anywhere else. Raise `EngineError` when the server cannot be reached or has no such model.
    """
    options = settings.options
    if not options.base_url:
        raise UsageError(
            "the engine openai needs the address of a server",
            hint="add `--base-url http://127.0.0.1:8080/v1`, or wherever your server listens",
        )
    if settings.adapter:
        raise UsageError(
            "the engine openai cannot add an adapter to what a server holds",
            hint="let the server load it, and give `--model` the name that it serves it by",
        )
    line = Line(options.base_url, key=api_key(), timeout_s=options.timeout_s)
    return converse(line, settings, lambda widest: Gate(Width(widest, options.timeout_s)))


def converse(
    line: Line, settings: EngineSettings, open_gate: Callable[[int], Gate]
) -> OpenAIEngine | CountingEngine | ScoringEngine:
    """
    Greet the server at the other end of the line, and give the engine that can do what the server can.

    `open_gate` makes a gate that at most so many pass at once.
    """
    options = settings.options
    background = Background()
    background.at_end(line.close)
    first = Patience(line, open_gate(_COUNTS_AT_ONCE), retries=min(options.retries, _FIRST_RETRIES))
    try:
        served = background.run(greet(first, settings))
        # Counting is so much quicker than writing that the two must not be learned from together.
        counting = Patience(line, open_gate(_COUNTS_AT_ONCE), retries=options.retries)
        has_tokenizer = background.run(can_tokenize(counting, served))
        way = background.run(find_way(first, counting, served, has_tokenizer=has_tokenizer))
    except BaseException:
        background.close()
        raise
    patience = Patience(line, open_gate(options.batch_size), retries=options.retries)
    engine = OpenAIEngine(served, patience, background)
    if way:
        return ScoringEngine(engine, way(patience), background)
    return CountingEngine(engine, served, counting, background) if has_tokenizer else engine
