"""Bytes to text, strictly: what does not decode is refused with its place, never replaced."""

from __future__ import annotations

import codecs

from katsuo.records import Reason
from katsuo.sources.base import Content, Refusal

# The four-byte mark comes first because it begins with the two-byte one.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(data: bytes) -> Content | Refusal:
    r"""
    Decode a plain-text file: UTF-8, or UTF-16/32 with a byte-order mark.

    Line ends become `\n` and the mark is dropped, as Python's own text mode does, so that a char span counted here is
    the span in `open(path, encoding="utf-8-sig").read()`.
    """
    text = decode(data)
    if isinstance(text, Refusal):
        return text
    if "\0" in text:
        return Refusal(Reason.NOT_TEXT, f"a zero byte at character {text.index(chr(0))}: binary data")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Content(text)


def decode(data: bytes, *, declared: str | None = None) -> str | Refusal:
    """Decode `data` by its byte-order mark, else as `declared`, else as UTF-8; refuse it at the first bad byte."""
    encoding, mark = byte_order_mark(data)
    encoding = encoding or declared or "utf-8"
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + len(mark)
        return Refusal(
            Reason.NOT_TEXT,
            f"byte 0x{data[offset]:02x} at offset {offset} is not {encoding.upper()}; "
            "convert the file, for example with iconv -f LATIN1 -t UTF-8",
        )


def byte_order_mark(data: bytes) -> tuple[str | None, bytes]:
    """Give the encoding that a byte-order mark names, and the mark; `(None, b"")` where there is none."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding, mark
    return None, b""
