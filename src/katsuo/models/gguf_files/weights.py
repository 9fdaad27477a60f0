"""Read safetensors as numpy numbers, bfloat16 among them, which numpy itself does not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
from safetensors import SafetensorError, deserialize

from katsuo.errors import ModelError
from katsuo.models.gguf_files.layout import Numbers

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_weights(path: Path) -> Iterator[tuple[str, Numbers]]:
    """Give every tensor of a safetensors file in float32, one at a time."""
    try:
        found = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise ModelError(f'cannot read "{path}": {error}', hint="pull or train the model again") from error
    for name, tensor in found:
        yield name, _numbers(name, tensor["dtype"], tensor["data"]).reshape(tensor["shape"])


def _numbers(name: str, kind: str, data: bytes) -> Numbers:
    if kind == "BF16":  # the upper half of a float32
        halves = numpy.frombuffer(data, dtype="<u2").astype(numpy.uint32)
        return (halves << 16).view(numpy.float32)
    if kind in _TYPES:
        return numpy.frombuffer(data, dtype=_TYPES[kind]).astype(numpy.float32)
    raise ModelError(
        f'the tensor "{name}" has numbers of type {kind}', hint="save the model in bfloat16, float16 or float32"
    )
