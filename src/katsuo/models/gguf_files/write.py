"""Write a model as a GGUF file, with an adapter added to its weights or without one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf

from katsuo.errors import ModelError
from katsuo.models.gguf_files.adapter import LowRank
from katsuo.models.gguf_files.checkpoint import Checkpoint
from katsuo.models.gguf_files.file import gguf_file
from katsuo.models.gguf_files.layout import Numbers

KINDS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_BLOCK = 32
"""q8_0 packs this many numbers of a row together."""


def write_gguf(checkpoint: Checkpoint, path: Path, *, kind: str, adapter: Mapping[str, LowRank] | None = None) -> None:
    """
    Write settings, tokenizer and tensors to `path`; numbers are rounded once, to `kind`.

    Raise `ModelError` for an unknown kind and for an adapter of another model.
    """
    if kind not in KINDS:
        raise ModelError(f'GGUF cannot be written as "{kind}"', hint=f"choose among: {', '.join(KINDS)}")
    left = dict(adapter or {})
    with gguf_file(path) as writer:
        checkpoint.describe(writer)
        writer.add_file_type(KINDS[kind][1])
        for name, values in checkpoint.tensors():
            _add(writer, name, _adapted(values, name, left.pop(name, None)), kind)
        if left:
            raise ModelError(
                f'the adapter does not fit this model, first at "{next(iter(left))}"', hint="give its own base"
            )


def _adapted(values: Numbers, name: str, part: LowRank | None) -> Numbers:
    if part is None:
        return values
    delta = part.delta()
    if delta.shape != values.shape:
        raise ModelError(f'the adapter does not fit this model, first at "{name}"', hint="give its own base")
    return values + delta


def _add(writer: gguf.GGUFWriter, name: str, values: Numbers, kind: str) -> None:
    wanted = KINDS[kind][0]
    if values.ndim == 1:
        wanted = gguf.GGMLQuantizationType.F32
    elif wanted is gguf.GGMLQuantizationType.Q8_0 and values.shape[-1] % _BLOCK:
        wanted = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quantize(values, wanted), raw_dtype=wanted)
