"""HTML, EPUB and DOCX to text: all three end as HTML, and one extractor turns that into paragraphs."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from katsuo.records import Reason
from katsuo.sources.base import Content, Refusal
from katsuo.sources.text import decode

_DECLARATION_BYTES = 1024
"""How far into a page its encoding may be declared (WHATWG HTML, section 13.2.3.2)."""
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""")
_MOST_OF_A_BOOK = 1 << 30
"""A book that unpacks to more bytes, pictures included, is refused: an attack or a mistake."""
_MOST_OF_A_DOCUMENT = 1 << 26
"""A Word document whose XML unpacks to more is, too: read, it takes seventy times as much memory."""
_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_PACKAGE = "{http://www.idpf.org/2007/opf}"
_ENCRYPTION = "{http://www.w3.org/2001/04/xmlenc#}"


def read_html(data: bytes) -> Content | Refusal:
    """
    Give the visible text of a page: blocks on lines of their own, list items marked, tables by rows, no `<nav>`.

    The encoding is the byte-order mark's, else the one that the page declares, else UTF-8.
    """
    text = _decode_markup(data)
    return text if isinstance(text, Refusal) else Content(_visible_text(text))


def read_docx(data: bytes) -> Content | Refusal:
    """Give the text of a Word document in reading order, tracked insertions included, deletions and images left out."""
    import mammoth

    refusal = _refuse_archive(data, most=_MOST_OF_A_DOCUMENT, of=".xml")
    if refusal:
        return refusal
    try:
        markup = mammoth.convert_to_html(io.BytesIO(data), convert_image=_without_image).value
    except Exception as error:  # the parser of a broken file may fail in any way; the document is refused by name
        return _broken(error)
    return Content(_visible_text(markup))


def read_epub(data: bytes) -> Content | Refusal:
    """Give the chapters of a book in the order of its spine, without the table of contents (EPUB 3.3, section 5.7)."""
    refusal = _refuse_archive(data, most=_MOST_OF_A_BOOK)
    if refusal:
        return refusal
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            chapters = [_decode_markup(archive.read(name)) for name in _spine(archive)]
    except _ProtectedError as error:
        return Refusal(Reason.ENCRYPTED, str(error))
    except Exception as error:  # unpacking and parsing a broken file may fail in any way; it is refused by name
        return _broken(error)
    texts = []
    for chapter in chapters:
        if isinstance(chapter, Refusal):
            return chapter
        texts.append(_visible_text(chapter))
    return Content("\n\n".join(text for text in texts if text))


class _ProtectedError(Exception):
    """A chapter is under digital rights management; never leaves this module."""


def _spine(archive: zipfile.ZipFile) -> list[str]:
    """List the archive names of the chapters; `KeyError` where the book points at nothing."""
    container = _parse(archive.read("META-INF/container.xml"))
    root_file = container.find(f".//{_CONTAINER}rootfile")
    if root_file is None:
        raise KeyError("no rootfile in META-INF/container.xml")
    package_name = root_file.attrib["full-path"]
    package = _parse(archive.read(package_name))
    items = {item.attrib["id"]: item.attrib for item in package.iter(f"{_PACKAGE}item")}
    folder = posixpath.dirname(package_name)
    chapters = [items[reference.attrib["idref"]] for reference in package.iter(f"{_PACKAGE}itemref")]
    # A chapter that the spine names twice is read once (EPUB 3.3, section 5.6.2: it must not).
    names = dict.fromkeys(
        posixpath.normpath(posixpath.join(folder, unquote(chapter["href"])))
        for chapter in chapters
        if "nav" not in chapter.get("properties", "").split()
    )
    _refuse_protected(archive, [*names])
    return [*names]


def _refuse_protected(archive: zipfile.ZipFile, names: list[str]) -> None:
    # Fonts are often scrambled too, so only a protected chapter makes a book unreadable.
    if "META-INF/encryption.xml" not in archive.namelist():
        return
    listing = _parse(archive.read("META-INF/encryption.xml"))
    protected = {unquote(entry.attrib.get("URI", "")) for entry in listing.iter(f"{_ENCRYPTION}CipherReference")}
    for name in names:
        if name in protected:
            raise _ProtectedError(f'chapter "{name}" is under digital rights management')


def _parse(data: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(data)  # noqa: S314 - expat limits entity expansion since 2.4.1, which all our Pythons have


def _refuse_archive(data: bytes, *, most: int, of: str = "") -> Refusal | None:
    """Refuse what is no archive, asks for a password, or unpacks to more than `most` bytes in files ending in `of`."""
    if data.startswith(_OLE_MAGIC):
        if "EncryptedPackage".encode("utf-16-le") in data:
            return Refusal(Reason.ENCRYPTED, "the document asks for a password; save it without one")
        return Refusal(Reason.UNREADABLE, "an old binary Word file; save it as .docx")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist() if member.filename.endswith(of))
    except Exception as error:  # as above: a damaged directory is not always called a bad archive
        return _broken(error)
    if unpacked > most:
        return Refusal(Reason.UNREADABLE, f"unpacks to {unpacked:,} bytes, more than {most:,}")
    return None


def _decode_markup(data: bytes) -> str | Refusal:
    from resiliparse.parse.encoding import map_encoding_to_html5

    found = _DECLARED.search(data[:_DECLARATION_BYTES])
    declared = map_encoding_to_html5(found.group(1).decode("ascii")) if found else None
    if declared and declared.casefold().startswith("utf-16"):
        # What can be read as ASCII is not written so (WHATWG HTML, section 13.2.3.2).
        declared = "utf-8"
    return decode(data, declared=declared)


def _visible_text(markup: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    # `main_content=True` guesses what is the article and loses lists that look like menus; only <nav> is left out here.
    return str(extract_plain_text(markup, main_content=False, alt_texts=False, skip_elements=["nav"])).strip()


def _without_image(image: Any) -> list[Any]:
    del image  # mammoth would put the bytes into the HTML as base64
    return []


def _broken(error: Exception) -> Refusal:
    return Refusal(Reason.UNREADABLE, f"{type(error).__name__}: {error}")
