"""Which models there are, where they lie on this machine, and how they come here."""

from __future__ import annotations

from katsuo.models.known import KNOWN, KnownModel
from katsuo.models.locate import codec_of, is_adapter, locate, locate_parts, public_name, revision_of, state_of
from katsuo.models.pull import pull

__all__ = [
    "KNOWN",
    "KnownModel",
    "codec_of",
    "is_adapter",
    "locate",
    "locate_parts",
    "public_name",
    "pull",
    "revision_of",
    "state_of",
]
