"""What makes two questions the same question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from katsuo.config import Sampling
from katsuo.records import Prompt

_NOT_ASKED = {"n"}
"""How many draws there are changes none of them: each has a seed of its own."""


def answer_keys(model: Mapping[str, object], prompts: Sequence[Prompt], sampling: Sampling) -> list[bytes]:
    """
    Give one key of 16 bytes per prompt.

    It stands for all that an answer depends on: `model` (which weights, served how), what the model is shown, the
    sampling, the seed, and the form that the answer is held to. It does not hold the passage's file, its place, the
    task type's checks or anything else that is looked at only once the answer is there.
    """
    common = json.dumps([model, sampling.model_dump(mode="json", exclude=_NOT_ASKED)], sort_keys=True)
    start = blake2b(common.encode(), digest_size=16)
    keys = []
    for prompt in prompts:
        shown = [prompt.text, [[message.role, message.content] for message in prompt.messages]]
        digest = start.copy()
        digest.update(json.dumps([*shown, prompt.seed, _form(prompt, sampling)]).encode())
        keys.append(digest.digest())
    return keys


def _form(prompt: Prompt, sampling: Sampling) -> list[str]:
    """Tell what the decoder is held to; the answer's grammar follows from the constraint's own fields."""
    if prompt.constraint is None or not sampling.grammar:
        return []
    return [repr(prompt.constraint), prompt.constraint.instruction()]
