"""What a model gives that are no numbers, said as an error."""

from __future__ import annotations

from katsuo.errors import EngineError


def no_numbers() -> EngineError:
    """Give the error of a model whose logits are not numbers, which in sixteen bits is an overflow as a rule."""
    return EngineError(
        "the model's logits are not numbers", hint="set engine_options.dtype to bfloat16 or float32, or pull it again"
    )
