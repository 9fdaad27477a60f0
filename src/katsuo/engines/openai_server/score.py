"""Score given answers by a server: how likely its model finds each after a prompt, sent as tokens or as text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeVar

from katsuo.config import Sampling
from katsuo.engines.base import Choices, ModelInfo, Scores
from katsuo.engines.openai_server.background import Background
from katsuo.engines.openai_server.endpoint import is_too_long
from katsuo.engines.openai_server.greet import Served
from katsuo.engines.openai_server.likelihood import LikelihoodAsker, Values
from katsuo.engines.openai_server.line import Refusal, Trouble
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.tokens import TOKENS, Tokens
from katsuo.errors import UsageError
from katsuo.records import Completion, Prompt

_PROBE = "one two three"

Result = TypeVar("Result")


class CanWrite(Protocol):
    """What a scoring engine is built around."""

    @property
    def info(self) -> ModelInfo:
        """The model behind the engine."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order."""
        ...

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as it comes in."""
        ...


class Way(Protocol):
    """One way to get log-probabilities out of one server."""

    end: str

    async def score(self, question: Choices) -> Scores:
        """Give the scores of one question."""
        ...

    async def count(self, text: str) -> int:
        """Give the number of a text's tokens."""
        ...


class ScoringEngine:
    """Hold an engine whose server also tells how likely its model finds a text."""

    def __init__(self, engine: CanWrite, way: Way, background: Background) -> None:
        self._engine = engine
        self._way = way
        self._background = background

    @property
    def info(self) -> ModelInfo:
        """Say which model this is."""
        return self._engine.info

    def end_text(self, *, is_chat: bool) -> str:
        """Give what ends an answer to a raw prompt; empty where the server does not tell, and for chats."""
        return "" if is_chat else self._way.end

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order."""
        return self._engine.generate(prompts, sampling)

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        """Give every completion with the place of its prompt, as it comes in."""
        return self._engine.stream(prompts, sampling)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Ask the server how many tokens each text has."""
        return self._background.run(_all([self._way.count(text) for text in texts]))

    def score(self, questions: Sequence[Choices]) -> list[Scores]:
        """Give the scores of every question, in order; raise `EngineError` when the server answers no more."""
        return self._background.run(_all([self._way.score(question) for question in questions]))


async def find_way(
    first: Patience, counting: Patience, served: Served, *, has_tokenizer: bool
) -> Callable[[Patience], Way] | None:
    """Find out, by asking something harmless, how the server gives log-probabilities; None where it gives none."""
    server = LikelihoodAsker(first, served, is_probe=True)
    kind = TOKENS.get(served.dialect.name) if has_tokenizer else None
    if kind is None:
        async with first.gate.passed() as place:
            told = await server.echoed_text(place, _PROBE)
        return (lambda patience: ByText(LikelihoodAsker(patience, served))) if isinstance(told, tuple) else None
    tokens = kind(counting, served)
    begun, *rest = await tokens.of_answer(_PROBE)
    async with first.gate.passed() as place:
        values = await server.read(place, [begun], rest[:1])
    if not isinstance(values, list):
        return None
    end, kept = await tokens.end_text(), await tokens.kept_at_once()
    return lambda patience: ByTokens(LikelihoodAsker(patience, served), tokens, end=end, kept_at_once=kept)


class ByTokens:
    """Send prompts and answers as tokens, encoded apart as a training encodes them."""

    def __init__(self, server: LikelihoodAsker, tokens: Tokens, *, end: str, kept_at_once: int) -> None:
        self.end = end
        # More questions than the server keeps prompts of would each push out what the next request needs.
        self._turns = asyncio.Semaphore(kept_at_once)
        self._server = server
        self._tokens = tokens
        self._ends: dict[bool, list[int]] = {}

    async def score(self, question: Choices) -> Scores:
        """Give the scores of one question, one answer after the other, so that the server can keep the prompt."""
        prompt = await self._tokens.of_prompt(question.prompt)
        tail = await self._end(is_chat=bool(question.prompt.messages)) if question.has_end else []
        # Something has to stand before the first token for the model to say how likely that is.
        prompt = prompt or await self._end(is_chat=False)
        answers = [[*await self._tokens.of_answer(answer), *tail] for answer in question.answers]
        if problem := _problem(question, [len(prompt) + len(answer) for answer in answers], self._server.served):
            return problem
        found: list[float] = []
        async with self._turns, self._server.patience.gate.passed() as place:
            for answer in answers:
                values = await self._server.read(place, prompt, answer)
                if not isinstance(values, list):
                    return _failed(values)
                found.append(sum(values))
        return Scores(tuple(found), tuple(map(len, answers)))

    async def count(self, text: str) -> int:
        """Give the number of a text's tokens."""
        return len(await self._tokens.of_answer(text)) if text else 0

    async def _end(self, *, is_chat: bool) -> list[int]:
        if is_chat not in self._ends:
            self._ends[is_chat] = await self._tokens.of_end(is_chat=is_chat)
        if not self._ends[is_chat]:
            raise _no_end()
        return self._ends[is_chat]


class ByText:
    """Send prompt and answer as one text, and find in the echo where the answer begins."""

    end = ""

    def __init__(self, server: LikelihoodAsker) -> None:
        self._server = server

    async def score(self, question: Choices) -> Scores:
        """Give the scores of one question; raise `UsageError` for a chat or an end, which only tokens can tell."""
        if question.prompt.messages:
            raise UsageError(
                "this server tells the log-probabilities of raw text alone, not of a chat",
                hint="use --style input-output or --prompt-template, or serve the model with vLLM or llama.cpp",
            )
        if question.has_end:
            raise _no_end()
        if problem := _problem(question, [], self._server.served):
            return problem
        sums, counts = [], []
        async with self._server.patience.gate.passed() as place:
            for answer in question.answers:
                told = await self._server.echoed_text(place, question.prompt.text + answer)
                if not isinstance(told, tuple):
                    return _failed(told)
                values = _last(answer, *told)
                if values is None:
                    return Scores(finish="error", error=f"no token begins where the answer {answer!r} does")
                sums.append(sum(values))
                counts.append(len(values))
        return Scores(tuple(sums), tuple(counts))

    async def count(self, text: str) -> int:
        """Give the number of a text's tokens, as the server echoes them."""
        if not text:
            return 0
        async with self._server.patience.gate.passed() as place:
            told = await self._server.echoed_text(place, text)
        return len(told[0]) if isinstance(told, tuple) else len(text)


async def _all(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Do all at once; where one fails, the others are dropped."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _problem(question: Choices, lengths: Sequence[int], served: Served) -> Scores | None:
    """Give the scores that say why a question cannot be asked."""
    if not question.answers or not all(question.answers):
        return Scores(finish="error", error="an answer is empty" if question.answers else "there is no answer to score")
    # One more is written, which some servers count.
    return Scores(finish="too_long") if lengths and max(lengths) + 1 > served.context_tokens else None


def _failed(outcome: Refusal | Trouble) -> Scores:
    if isinstance(outcome, Refusal) and is_too_long(outcome):
        return Scores(finish="too_long", error=outcome.words)
    return Scores(finish="error", error=outcome.words)


def _last(answer: str, words: Sequence[str], values: Sequence[Any]) -> Values | None:
    """Give the values of the last tokens that together are the answer; None where they begin before it."""
    length = 0
    for count in range(1, len(words)):
        length += len(words[-count])
        if length >= len(answer):
            return list(values[-count:]) if "".join(words[-count:]) == answer else None
    return None


def _no_end() -> UsageError:
    return UsageError(
        "this server does not tell which token ends an answer, so that cannot be scored",
        hint="use --eos no, or --style chat with a server that has a chat template",
    )
