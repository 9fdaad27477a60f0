"""
Gather documents that every installation has: the project's docs as Markdown, HTML and PDF, and the packages' licences.

    python examples/demo_documents.py OUT

writes OUT/docs, OUT/html, OUT/pdf, OUT/licences and OUT/descriptions. It needs markdown-it-py and fpdf2 (the `dev`
extra). Texts that several packages share are written once for each, so that a run has duplicates to leave out.
"""

from __future__ import annotations

import html
import sys
from datetime import datetime, timezone
from email.message import Message
from importlib import metadata
from pathlib import Path

from fpdf import FPDF
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = Path(__file__).parent.parent / "docs"
_SIZES = {"h1": 18, "h2": 14, "h3": 12}
_LICENSE_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
_LATIN = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "→": "->", "≥": ">=", "•": "-"}
)
"""PDF's built-in fonts know Latin-1 only, and no font comes with the project."""
_DATE = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""Of every PDF: a run goes on only with the very documents that it was begun with."""


def gather(out: Path) -> dict[str, int]:
    """Write all demo documents under `out` and give their number by folder."""
    pages = sorted(DOCS.glob("*.md"))
    for page in pages:
        markdown = page.read_text(encoding="utf-8")
        _write(out / "docs" / page.name, markdown)
        _write(out / "html" / f"{page.stem}.html", as_html(markdown, title=page.stem))
        (out / "pdf").mkdir(parents=True, exist_ok=True)
        as_pdf(markdown, out / "pdf" / f"{page.stem}.pdf")
    licences, descriptions = write_package_texts(out)
    return {
        "docs": len(pages),
        "html": len(pages),
        "pdf": len(pages),
        "licences": licences,
        "descriptions": descriptions,
    }


def as_html(markdown: str, *, title: str) -> str:
    """Render Markdown as a whole HTML page."""
    body = MarkdownIt("commonmark").enable("table").render(markdown)
    head = f'<head><meta charset="utf-8"><title>{html.escape(title)}</title></head>'
    return f"<!doctype html>\n<html>{head}<body>\n{body}</body></html>\n"


def as_pdf(markdown: str, path: Path) -> None:
    """Set the headings, paragraphs, list items and code of a Markdown text as a PDF."""
    pdf = FPDF()
    pdf.set_creation_date(_DATE)
    pdf.set_margin(25)
    pdf.add_page()
    style = "p"
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type.endswith("_open"):
            style = token.tag
        elif token.type == "inline":
            pdf.set_font("helvetica", style="B" if style in _SIZES else "", size=_SIZES.get(style, 10))
            _set(pdf, _plain(token))
        elif token.type == "fence" and token.content.isascii():  # drawings need characters that the font has not
            pdf.set_font("courier", size=8)
            _set(pdf, token.content.rstrip())
    pdf.output(str(path))


def write_package_texts(out: Path) -> tuple[int, int]:
    """Copy the licence texts and the descriptions of the installed packages; give how many of each."""
    licences = descriptions = 0
    for package in sorted(metadata.distributions(), key=lambda package: package.metadata["Name"].lower()):
        name = package.metadata["Name"]
        for file in package.files or []:
            path = Path(str(package.locate_file(file)))
            if file.name.upper().startswith(_LICENSE_NAMES) and path.suffix not in (".py", ".pyc") and path.is_file():
                place = out / "licences" / f"{name}-{'-'.join(file.parts[1:])}.txt"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
                licences += 1
        description = str(package.metadata.get_payload()) if isinstance(package.metadata, Message) else ""
        if description.strip():
            _write(out / "descriptions" / f"{name}.md", description)
            descriptions += 1
    return licences, descriptions


def _plain(inline: Token) -> str:
    parts = [" " if child.type.endswith("break") else child.content for child in inline.children or []]
    return "".join(parts)


def _set(pdf: FPDF, text: str) -> None:
    latin = text.translate(_LATIN).encode("latin-1", "replace").decode("latin-1")
    pdf.multi_cell(0, pdf.font_size * 1.4, latin, new_x="LMARGIN", new_y="NEXT", align="L")
    pdf.ln(3)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} OUT")
    for folder, count in gather(Path(sys.argv[1])).items():
        sys.stdout.write(f"{folder:14}{count:5} files\n")
