"""How llama.cpp is asked for what the OpenAI protocol leaves open; the same in process and behind a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAMPLING: Mapping[str, Any] = {
    "samplers": ["temperature", "top_p"],
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
}
"""Temperature first and then the nucleus, as everywhere else, and none of what llama.cpp would add."""
SEED_BITS = 31
"""All ones in 32 bits would mean any seed."""


def lark_fields(lark: str) -> dict[str, str]:
    """Give the field that holds decoding to a Lark grammar of llguidance, in a build that has it."""
    return {"grammar": f"%llguidance {{}}\n{lark}"}
