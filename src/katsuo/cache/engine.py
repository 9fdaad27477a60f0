"""An engine that asks only what was never answered."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from katsuo.budget import Meter
from katsuo.cache.disk import AnswerCache
from katsuo.cache.key import answer_keys
from katsuo.config import Sampling
from katsuo.engines.base import CanGenerate, CanStream, ModelInfo
from katsuo.errors import EngineError
from katsuo.records import Completion, Prompt

_SECONDS_BETWEEN_WRITES = 1.0


class CachedEngine:
    """
    Hold an engine and a cache: look every prompt up, ask the engine for the rest, keep what it answers.

    `model` names the weights behind the engine and all else about it that answers depend on. An engine that hands its
    completions over as they come (`CanStream`) loses at most a second's worth of them to a kill and none to a failure,
    and `meter` may stop it among them, once one is kept. Any other is asked for a whole batch, and its answers are kept
    when it is done.
    """

    def __init__(self, engine: CanGenerate, cache: AnswerCache, model: Mapping[str, object], meter: Meter) -> None:
        self._engine = engine
        self._cache = cache
        self._model = model
        self._meter = meter
        self._has_kept = False
        self.found = 0
        self.asked = 0

    @property
    def info(self) -> ModelInfo:
        """The model behind the engine; what it does not take holds what the answers found up to now do not follow."""
        info = self._engine.info
        return replace(info, not_taken=tuple(sorted(self._cache.not_taken.union(info.not_taken))))

    def recall(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion | None]:
        """Give the answers that are kept, None where there is none; nothing is asked."""
        return self._cache.get(answer_keys(self._model, prompts, sampling))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Give one completion per prompt, in order; raise `BudgetReached` once all that has come is kept."""
        keys = answer_keys(self._model, prompts, sampling)
        answers = dict(enumerate(self._cache.get(keys)))
        missing = [place for place, answer in answers.items() if answer is None]
        self.found += len(prompts) - len(missing)
        if missing:
            asked = self._ask([prompts[place] for place in missing], [keys[place] for place in missing], sampling)
            answers |= {missing[number]: completion for number, completion in asked.items()}
        return [answer for answer in answers.values() if answer is not None]

    def _ask(self, prompts: Sequence[Prompt], keys: Sequence[bytes], sampling: Sampling) -> dict[int, Completion]:
        """Ask the engine; keep what has come in writes a second apart, and at the end, whatever ends it."""
        answers: dict[int, Completion] = {}
        fresh: dict[bytes, Completion] = {}
        written = time.monotonic()
        try:
            with closing(self._answers(prompts, sampling)) as stream:
                for place, completion in stream:
                    answers[place] = completion
                    if _is_worth_keeping(completion):
                        self._has_kept = True
                        fresh[keys[place]] = completion
                    if time.monotonic() - written >= _SECONDS_BETWEEN_WRITES:
                        self._keep(fresh)
                        fresh, written = {}, time.monotonic()
        finally:
            self.asked += len(answers)
            self._keep(fresh)
        if len(answers) != len(prompts):
            raise EngineError(
                f'the engine "{self.info.engine}" gave {len(answers)} completions for {len(prompts)} prompts',
                hint="report it to those who made the engine: every prompt must get one completion",
            )
        return answers

    def _keep(self, fresh: Mapping[bytes, Completion]) -> None:
        if fresh:
            self._cache.put(fresh, self._engine.info.not_taken)

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        if not isinstance(self._engine, CanStream):
            for place, completion in enumerate(self._engine.generate(prompts, sampling)):
                self._meter.spend(completion.new_tokens)
                yield place, completion
            return
        with closing(self._engine.stream(prompts, sampling)) as stream:
            for number, (place, completion) in enumerate(stream, start=1):
                self._meter.spend(completion.new_tokens)
                yield place, completion
                # A command that kept nothing would leave the next one where it began itself.
                if self._has_kept and number < len(prompts):
                    self._meter.check()


def _is_worth_keeping(completion: Completion) -> bool:
    """Say whether the model ended its answer; an empty one may be a server's mishap and is cheap to ask again."""
    return completion.finish in ("stop", "length") and bool(completion.text.strip())
