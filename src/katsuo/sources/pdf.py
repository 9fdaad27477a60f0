"""PDF to text: lines from PDFium, put together into paragraphs by where they stand on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from katsuo.records import Reason
from katsuo.sources.base import Content, Refusal

_PARAGRAPH_PITCH = 1.3
"""Lines further apart than this many usual line pitches begin a new paragraph."""
_SIZE_CHANGE = 0.15
"""A heading's letters are at least this share larger or smaller than the line before."""
_FULL_LINE = 0.75
"""A line that reaches this share of the text width was wrapped; a shorter one was ended."""
_BULLET = re.compile(r"(?:[•◦▪‣·*–-]|\(?\d{1,3}[.)])\s")
_DASH_END = re.compile(r"\w-$")
_HYPHENATED = re.compile("([^\\W\\d_]+)[\ufffe\x02]([^\\W\\d_]+)")
"""A word that a line's end parted: PDFium joins the lines and leaves one of these marks for the hyphen."""


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    left: float
    right: float
    bottom: float
    end_bottom: float
    height: float


def read_pdf(data: bytes) -> Content | Refusal:
    r"""
    Give the text of a PDF with the offset of each page.

    Wrapped lines are joined; `\n\n` parts paragraphs and `\n` parts lines and pages. A scan without a text layer is
    refused as empty: there is no character recognition here.
    """
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(data) as document:
            pages = _mend_hyphens([_page_text(page) for page in document])
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD:
            return Refusal(Reason.ENCRYPTED, "the PDF asks for a password; save it without one")
        return Refusal(Reason.UNREADABLE, str(error))
    if not any(pages):
        detail = f"no text on its {len(pages)} pages; a scan needs character recognition first"
        return Refusal(Reason.EMPTY_DOCUMENT, detail)
    starts, length = [], 0
    for page in pages:
        starts.append(length)
        length += len(page) + 1
    return Content("\n".join(pages), tuple(starts))


def _page_text(page: Any) -> str:
    try:
        textpage = page.get_textpage()
        try:
            lines = list(_lines(textpage))
        finally:
            textpage.close()
    finally:
        page.close()
    return _join(lines)


def _lines(textpage: Any) -> Iterator[_Line]:
    index, count = 0, textpage.count_chars()
    for raw in textpage.get_text_range().split("\r\n"):
        text = raw.strip().replace("\0", "")
        # PDFium counts in UTF-16 units.
        units = len(raw.encode("utf-16-le", "surrogatepass")) // 2
        if text and index < count:
            last = min(index + max(len(raw.rstrip()) - 1, 0), count - 1)
            left, bottom, _, top = textpage.get_charbox(index, loose=True)
            _, end_bottom, right, _ = textpage.get_charbox(last, loose=True)
            yield _Line(text, left, right, bottom, end_bottom, top - bottom)
        elif text:
            yield _Line(text, 0.0, 0.0, 0.0, 0.0, 0.0)
        index += units + 2


def _join(lines: list[_Line]) -> str:
    if not lines:
        return ""
    steps = [above.end_bottom - below.bottom for above, below in pairwise(lines)]
    downward = sorted(step for step in steps if step > 0) or [0.0]
    # The lower quartile, since on a short page half of the steps may be between paragraphs.
    pitch = downward[len(downward) // 4]
    left = min(line.left for line in lines)
    full = left + _FULL_LINE * (max(line.right for line in lines) - left)
    parts = [lines[0].text]
    for (above, below), step in zip(pairwise(lines), steps, strict=True):
        if _is_new_paragraph(above, below, step=step, pitch=pitch):
            parts.append("\n\n")
        elif above.right < full or _BULLET.match(below.text):
            parts.append("\n")
        elif not _DASH_END.search(above.text):
            parts.append(" ")
        parts.append(below.text)
    return "".join(parts)


def _is_new_paragraph(above: _Line, below: _Line, *, step: float, pitch: float) -> bool:
    larger = max(above.height, below.height)
    if larger and abs(above.height - below.height) > _SIZE_CHANGE * larger:
        return True
    if step > _PARAGRAPH_PITCH * pitch:
        return True
    is_ended = above.text[-1] in '.!?:…”")'
    # Upwards is the next column; a first line set in is the other way to begin a paragraph.
    return is_ended and (step < 0 or below.left - above.left > 0.5 * below.height)


def _mend_hyphens(pages: list[str]) -> list[str]:
    """Put parted words together: without the hyphen, unless the document writes the word with one elsewhere."""
    whole = "\n".join(pages)

    def mend(match: re.Match[str]) -> str:
        hyphenated = f"{match[1]}-{match[2]}"
        return hyphenated if not match[2].islower() or hyphenated in whole else match[1] + match[2]

    return [_HYPHENATED.sub(mend, page).replace("\ufffe", "-").replace("\x02", "-") for page in pages]
