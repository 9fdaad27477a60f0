"""Choose the memory for a model by trying: the fast one if it gives the logits of the model alone."""

from __future__ import annotations

import numpy
import torch
from transformers import PreTrainedModel

from katsuo.engines.hf.lockstep import LockstepMemory
from katsuo.engines.hf.masks import FULL, SLIDING, layer_kinds
from katsuo.engines.hf.memory import Memory, Question, SlotMemory

LARGEST_DIFFERENCE = 0.05
"""Of the logits' own size; sixteen-bit arithmetic in another order stays below a fifth of it."""


def open_memory(model: PreTrainedModel) -> Memory:
    """Give slots to a model that attends to keys and values in every layer, and lockstep batches to any other."""
    if layer_kinds(model) <= {FULL, SLIDING} and _slots_agree(model):
        return SlotMemory(model)
    return LockstepMemory(model)


@torch.inference_mode()
def _slots_agree(model: PreTrainedModel) -> bool:
    """Compare the last logits of two prompts of different lengths, by slots and by the model without a past."""
    upper = model.config.get_text_config().vocab_size
    prompts = [numpy.arange(5, 5 + length, dtype=numpy.int64) * 7 % upper for length in (9, 6)]
    memory = SlotMemory(model)
    memory.reserve(2, 16)
    try:
        memory.admit(0, [Question(prompts[0], opening=4), Question(prompts[1])])
        ours = memory.step([int(tokens[-1]) for tokens in prompts])
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        # Whatever this model needs instead, it does not take a past in slots.
        return False
    for tokens, logits in zip(prompts, ours.float(), strict=True):
        theirs = model(input_ids=torch.from_numpy(tokens)[None].to(model.device)).logits[0, -1].float()
        if (logits - theirs).norm() > LARGEST_DIFFERENCE * theirs.norm():
            return False
    return True
