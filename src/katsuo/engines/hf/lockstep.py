"""The slow path for models whose past is more than keys and values: a batch starts and ends together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from transformers import PreTrainedModel

from katsuo.engines.hf.memory import Question
from katsuo.errors import ModelError


class LockstepMemory:
    """
    A batch padded on the left, with whatever past the model keeps by itself.

    A finished row stays in the batch until all are done; its place is only renamed.
    """

    is_refillable = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = model.device
        self.prompt_tokens_read = 0
        self.prompt_tokens_shared = 0
        self._line_of: list[int] = []
        self._past: Any = None
        self._mask = torch.empty(0)

    def reserve(self, places: int, tokens: int) -> None:
        """Do nothing: the model allocates as it goes."""

    def admit(self, first: int, questions: Sequence[Question]) -> None:
        """Read a whole batch; `first` is 0, because the batch before has ended."""
        self._line_of = [first + line for line in range(len(questions))]
        self._past = None
        width = max(len(question.tokens) for question in questions) - 1
        padded = numpy.zeros((len(questions), width), dtype=numpy.int64)
        mask = numpy.zeros_like(padded)
        for line, question in enumerate(questions):
            start = width - (len(question.tokens) - 1)
            padded[line, start:] = question.tokens[:-1]
            mask[line, start:] = 1
            self.prompt_tokens_read += len(question.tokens) - 1
        self._mask = torch.from_numpy(mask).to(self.device)
        if width:
            self._forward(torch.from_numpy(padded).to(self.device))

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed one token a row; rows that are done get token 0 and are not looked at."""
        lines = torch.zeros(self._mask.shape[0], 1, dtype=torch.int64, device=self.device)
        wanted = self._line_of[: len(tokens)]
        lines[wanted, 0] = torch.tensor(tokens, device=self.device)
        self._mask = torch.cat([self._mask, torch.ones_like(lines)], dim=1)
        logits: torch.Tensor = self._forward(lines).logits[wanted, -1]
        return logits

    def move(self, source: int, target: int) -> None:
        """Call the row at `source` by the name `target`."""
        self._line_of[target] = self._line_of[source]

    def _forward(self, tokens: torch.Tensor) -> Any:
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        extra = {} if getattr(self.model, "_is_stateful", False) else {"position_ids": positions}
        output = self.model(
            input_ids=tokens, attention_mask=self._mask, past_key_values=self._past, use_cache=True, **extra
        )
        self._past = getattr(output, "past_key_values", None)
        if self._past is None:
            raise ModelError(
                f'models of type "{self.model.config.model_type}" keep what they have read in a way of their own',
                hint="ask this one by the engine llamacpp or by a server (openai), or take another model",
            )
        return output
