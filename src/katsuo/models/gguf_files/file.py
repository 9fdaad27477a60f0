"""One GGUF file from its opening to its closing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf

from katsuo.errors import StoreError


@contextmanager
def gguf_file(path: Path) -> Iterator[gguf.GGUFWriter]:
    """Give a writer to tell settings and tensors to; what it was told is written when all went well."""
    writer = gguf.GGUFWriter(path, "llama")
    try:
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        raise StoreError(f'cannot write "{path}": {error.strerror or error}', hint="free some space") from error
    finally:
        writer.close()
