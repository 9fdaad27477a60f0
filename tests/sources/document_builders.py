"""Builders of real files, one per format."""

from __future__ import annotations

import zipfile
from pathlib import Path

import docx
from fpdf import FPDF

FLAKES = (
    "Katsuobushi is smoked and dried skipjack tuna. It is shaved into flakes before use, and the flakes keep for "
    "months when they stay dry."
)
CAFE = "The café’s owner paid €12 — and said: x < y & y > z."


def page(*paragraphs: str) -> str:
    """An HTML page with the furniture that pages have."""
    escaped = [text.replace("&", "&amp;").replace("<", "&lt;") for text in paragraphs]
    body = "".join(f"<p>{text}</p>" for text in escaped)
    return (
        '<!doctype html><html><head><meta charset="utf-8"><title>Tab</title><style>p{color:red}</style></head>'
        f"<body><nav><a href='/'>Home</a></nav><h1>Title</h1>{body}"
        "<ul><li>first point</li><li>second point</li></ul><script>var hidden = 1;</script></body></html>"
    )


def make_pdf(path: Path, pages: list[list[str]], **encryption: str) -> None:
    """A PDF with one paragraph after the other, wrapped by the writer."""
    pdf = FPDF()
    pdf.set_margin(30)
    for paragraphs in pages:
        pdf.add_page()
        pdf.set_font("helvetica", size=11)
        for text in paragraphs:
            # The built-in fonts know Latin-1 only.
            plain = text.replace("’", "'").replace("€", "EUR ").replace("—", "-")
            pdf.multi_cell(0, 6, plain, new_x="LMARGIN", new_y="NEXT")
            pdf.ln(4)
    if encryption:
        pdf.set_encryption(**encryption)
    pdf.output(str(path))


def make_docx(path: Path) -> None:
    """A Word document with a heading, paragraphs, a list and a table."""
    document = docx.Document()
    document.add_heading("Title", 1)
    document.add_paragraph(FLAKES)
    document.add_paragraph(CAFE)
    document.add_paragraph("first point", style="List Bullet")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Ada", "36"
    document.save(str(path))


def make_epub(path: Path, *, protected: str = "", spine: tuple[str, ...] = ("two", "one")) -> None:
    """A book whose spine order is not its file order, with a chapter name that is escaped in the package."""
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>'
        '<item id="one" href="a%20first.xhtml"/><item id="two" href="text/b.xhtml"/>'
        '<item id="toc" href="toc.xhtml" properties="nav"/></manifest><spine><itemref idref="toc"/>'
        + "".join(f'<itemref idref="{name}"/>' for name in spine)
        + "</spine></package>"
    )
    encryption = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:CipherData>'
        f'<enc:CipherReference URI="{protected}"/></enc:CipherData></enc:EncryptedData></encryption>'
    )
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr("META-INF/container.xml", container)
        book.writestr("OEBPS/book.opf", package)
        book.writestr("OEBPS/toc.xhtml", "<html><body><nav>Contents</nav>Contents</body></html>")
        book.writestr("OEBPS/a first.xhtml", page(f"Chapter A. {FLAKES}"))
        book.writestr("OEBPS/text/b.xhtml", page(f"Chapter B. {CAFE}"))
        if protected:
            book.writestr("META-INF/encryption.xml", encryption)
