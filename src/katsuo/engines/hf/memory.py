"""Keys and values of many rows of different lengths, in slots, so that a finished row makes room for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from katsuo.engines.hf.masks import additive_masks

Tokens = NDArray[numpy.int64]

STRIDE = 64
"""Slots are allocated, and read, in multiples of this many tokens: what a step computes for a row then does not depend
on how long its neighbours are, to the last bit where the matrix kernels keep to one order of summation."""


@dataclass(frozen=True)
class Question:
    """A prompt's tokens, and where its `opening` ends: the part that other prompts of its kind begin with too."""

    tokens: Tokens
    opening: int = 0


class Memory(Protocol):
    """
    What the decoding loop asks of a model: read prompts into places 0, 1, 2, …, then take one step with all of them.

    A memory that is not refillable takes new prompts only when none is on its way.
    """

    is_refillable: bool

    def reserve(self, places: int, tokens: int) -> None:
        """Make room for `places` rows of at most `tokens` tokens."""

    def admit(self, first: int, questions: Sequence[Question]) -> None:
        """Read all but the last token of each question into the places from `first` on."""

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed the next token of the places 0 to n-1; give the logits that follow, one line a place."""

    def move(self, source: int, target: int) -> None:
        """Give the row at `source` the place `target`."""


@dataclass(frozen=True)
class Pass:
    """
    What one forward pass writes and reads.

    Either `count` rows take one token each, at `positions`; or the row `row` takes `count` tokens from `start` on.
    """

    count: int
    row: int = 0
    start: int = 0
    visible: int = 0
    positions: torch.Tensor | None = None

    @property
    def is_fresh(self) -> bool:
        """True when nothing from before this pass is read."""
        return self.positions is None and self.start == 0


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values: (slot, head, token, feature), written where the current `Pass` says."""

    def __init__(self, slots: int, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: torch.Tensor = torch.empty(0)
        self.values: torch.Tensor = torch.empty(0)
        self.slots, self.tokens = slots, tokens
        self.now = Pass(1)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the slots; zeros, because a masked value is multiplied by zero and must not be NaN."""
        heads = key_states.shape[1]
        self.keys = key_states.new_zeros(self.slots, heads, self.tokens, key_states.shape[-1])
        self.values = value_states.new_zeros(self.slots, heads, self.tokens, value_states.shape[-1])
        self.index = torch.arange(self.slots, device=key_states.device)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values and give all that this pass may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self.now
        if now.positions is not None:
            where = self.index[: now.count]
            self.keys[where, :, now.positions] = key_states[:, :, 0]
            self.values[where, :, now.positions] = value_states[:, :, 0]
            return self.keys[: now.count, :, : now.visible], self.values[: now.count, :, : now.visible]
        written = slice(now.start, now.start + now.count)
        self.keys[now.row, :, written] = key_states[0]
        self.values[now.row, :, written] = value_states[0]
        if now.is_fresh:
            return key_states, value_states
        row = slice(now.row, now.row + 1)
        return self.keys[row, :, : now.visible], self.values[row, :, : now.visible]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot into another."""
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Give the length and the offset of the keys, for models that build a mask of their own."""
        return (query_length if self.now.is_fresh else self.now.visible), 0

    def get_seq_length(self) -> int:
        """Give how many tokens came before, as far as one number can say it."""
        return self.now.start

    def get_max_length(self) -> int:
        """Give the room of a slot."""
        return self.tokens


class SlotMemory:
    """
    Slots for a decoder whose layers all attend to keys and values.

    A question that stands in a slot already, of this call or of an earlier one, takes over that slot's keys and values,
    and so does one with the same opening: the few-shot part of a task type is read once, and a prompt that is sampled
    several times too. Openings and questions are read alone, never padded together, so that what is copied is, to the
    last bit, what would have been computed.
    """

    is_refillable = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.decoder = model.get_decoder()  # type: ignore[no-untyped-call]
        self.device = model.device
        self.layer_count = model.config.get_text_config().num_hidden_layers
        self.prompt_tokens_read = 0
        self.prompt_tokens_shared = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self._resize(0, 0)

    def reserve(self, places: int, tokens: int) -> None:
        """Make room for `places` rows of `tokens` tokens; what the slots hold is kept where they are large enough."""
        if places > self.slots or tokens > self.room:
            self._resize(max(places, self.slots), round_up(max(tokens, self.room)))

    def admit(self, first: int, questions: Sequence[Question]) -> None:
        """Read questions into the slots from `first` on, each after what it shares with those before."""
        for slot, question in enumerate(questions, first):
            tokens = question.tokens[:-1]
            borders = sorted({min(question.opening, len(tokens)), len(tokens)} - {0})
            start = self._take_over(slot, tokens, borders)
            for border in borders:
                if border > start:
                    self._read(slot, tokens[start:border], start)
                    start = border
            self.prompts[slot] = tokens
            self.lengths[slot] = len(tokens)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed one token to each of the first slots; give logits of shape (slots, vocabulary)."""
        count = len(tokens)
        starts = self.lengths[:count]
        positions = torch.tensor(starts, device=self.device)
        now = Pass(count, visible=round_up(max(starts) + 1), positions=positions)
        output = self._forward(self.model, torch.tensor(tokens, device=self.device)[:, None], positions[:, None], now)
        self.lengths[:count] = [start + 1 for start in starts]
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def move(self, source: int, target: int) -> None:
        """Copy a row to another slot; the old slot keeps its prompt for others to share."""
        for layer in self.layers:
            layer.copy(source, target, self.lengths[source])
        self.lengths[target] = self.lengths[source]
        self.prompts[target] = self.prompts[source]

    def _resize(self, slots: int, room: int) -> None:
        self.slots, self.room = slots, room
        self.layers = [SlotLayer(slots, room) for _ in range(self.layer_count)]
        self.cache = Cache(layers=list(self.layers))
        self.lengths = [0] * slots
        self.prompts: list[Tokens] = [numpy.empty(0, dtype=numpy.int64)] * slots

    def _take_over(self, slot: int, tokens: Tokens, borders: Sequence[int]) -> int:
        """Copy what any slot shares with `tokens` into `slot`, up to the last border reached; give its length."""
        shared = [shared_length(tokens, other) for other in self.prompts]
        source = max(range(self.slots), key=lambda other: (shared[other], other == slot))
        length = max((border for border in borders if border <= shared[source]), default=0)
        if length and source != slot:
            for layer in self.layers:
                layer.copy(source, slot, length)
        self.prompt_tokens_shared += length
        return length

    def _read(self, slot: int, tokens: Tokens, start: int) -> None:
        count = len(tokens)
        positions = torch.arange(start, start + count, device=self.device)[None]
        now = Pass(count, row=slot, start=start, visible=round_up(start + count))
        self._forward(self.decoder, torch.from_numpy(tokens).to(self.device)[None], positions, now)
        self.prompt_tokens_read += count

    def _forward(self, part: Any, tokens: torch.Tensor, positions: torch.Tensor, now: Pass) -> Any:
        for layer in self.layers:
            layer.now = now
        # A pass without a past needs no mask of ours: every model is causal by itself, by its fastest kernel.
        masks = None if now.is_fresh else additive_masks(self.model, positions, now.visible)
        return part(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=masks,
            past_key_values=self.cache,
            use_cache=True,
        )


def round_up(tokens: int) -> int:
    """Give the next multiple of the stride."""
    return -(-tokens // STRIDE) * STRIDE


def shared_length(left: Tokens, right: Tokens) -> int:
    """Count the tokens that two prompts share from their beginning."""
    length = min(len(left), len(right))
    if not length:
        return 0
    differs = left[:length] != right[:length]
    first = int(differs.argmax())
    return first if differs[first] else length
