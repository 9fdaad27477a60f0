"""Which models there are, where they lie on this machine, and how they come here."""

from __future__ import annotations

from katsuo.models.known import KNOWN, KnownModel
from katsuo.models.locate import codec_of, locate, public_name, revision_of
from katsuo.models.pull import pull

__all__ = ["KNOWN", "KnownModel", "codec_of", "locate", "public_name", "pull", "revision_of"]
