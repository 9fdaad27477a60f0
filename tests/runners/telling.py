"""An engine that finds while it answers that it cannot follow all it is asked for, and warns of it in a thread."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

from katsuo.config import Sampling
from katsuo.engines import EngineSettings, ModelInfo
from katsuo.errors import EngineError, KatsuoWarning
from katsuo.records import Completion, Prompt

DIES = "mortal"


class Telling:
    """Answer by the sketch of each prompt's constraint, without a grammar; the model `mortal` dies at once."""

    def __init__(self, settings: EngineSettings) -> None:
        self._is_mortal = settings.model == DIES
        self._not_taken: tuple[str, ...] = ()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("telling", "m", "1", codec="bonito-v1", context_tokens=4096, not_taken=self._not_taken)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        if not self._not_taken:
            self._not_taken = ("grammar",)
            thread = threading.Thread(target=warn)
            thread.start()
            thread.join()
        if self._is_mortal:
            raise EngineError("the model went away", hint="start it again")
        return [Completion(prompt.constraint.sketch(prompt.seed), "stop", 3) for prompt in prompts if prompt.constraint]


def warn() -> None:
    warnings.warn(KatsuoWarning("the model takes no grammar", hint="let it be"), stacklevel=1)
