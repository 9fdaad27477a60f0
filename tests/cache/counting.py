"""An engine whose answers are worth keeping: the sketch of each prompt's constraint, and a line in a file for each."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from katsuo.config import Sampling
from katsuo.engines import EngineSettings, ModelInfo
from katsuo.errors import EngineError
from katsuo.records import Completion, Prompt


class Counting:
    """
    Answer a whole batch at once, and write every prompt's id to the file that `COUNTING_LOG` names.

    It dies, once and for all, when `COUNTING_DIES_AT` prompts have been asked, takes `COUNTING_SLOW_S` for each, and
    finds while it answers that it cannot follow `COUNTING_NOT_TAKEN`.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.info = ModelInfo("counting", settings.model, "1", codec="bonito-v1", context_tokens=4096)
        self._log = Path(os.environ["COUNTING_LOG"])
        self._dies_at = int(os.environ.get("COUNTING_DIES_AT", "1000000"))
        self._slow_s = float(os.environ.get("COUNTING_SLOW_S", "0"))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> Completion:
        self.info = replace(self.info, not_taken=tuple(os.environ.get("COUNTING_NOT_TAKEN", "").split()))
        if len(asked(self._log)) >= self._dies_at:
            raise EngineError("the model went away", hint="start it again")
        time.sleep(self._slow_s)
        with self._log.open("a") as log:
            log.write(f"{prompt.id}\n")
        assert prompt.constraint
        text = prompt.constraint.sketch(prompt.seed)
        return Completion(text, "stop", len(text.split()))


class Streaming:
    """The same, handing over one answer after the other, the last prompt's first."""

    def __init__(self, settings: EngineSettings) -> None:
        self._counting = Counting(settings)

    @property
    def info(self) -> ModelInfo:
        return self._counting.info

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        answers = dict(self.stream(prompts, sampling))
        return [answers[place] for place in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator[tuple[int, Completion], None, None]:
        for place in reversed(range(len(prompts))):
            yield place, self._counting._answer(prompts[place])


def asked(log: Path) -> list[str]:
    """Give the ids of all prompts that were asked, in order."""
    return log.read_text().split() if log.exists() else []
