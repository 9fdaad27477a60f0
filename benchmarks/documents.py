"""
Which library turns documents into text, and which one cuts text into passages?

Files of four formats are written from known paragraphs; each library that is installed reads them. A library that is
not installed is left out of the table.

    python benchmarks/documents.py              # both tables
    python benchmarks/documents.py --chunking   # the second only
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import random
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

Reader = Callable[[Path], str]
Cutter = Callable[[str], list[tuple[int, int]]]

DOCUMENTS, PARAGRAPHS, ROUNDS = 8, 40, 3
SIZE = 384
TOKEN = re.compile(r" ?\w{1,5}| ?[^\w\s]+|\s+")
WORDS = ["tuna", "smoke", "flake", "broth", "oak", "mould", "kitchen", "harbour", "ladle", "market", "knife", "cedar"]
SIGNS = "The café's owner paid 12 for it: x < y & y > z, “quoted” and well-known."


def make_paragraphs(draw: random.Random) -> list[str]:
    """Write paragraphs of two to seven sentences, each different."""
    paragraphs = []
    for number in range(PARAGRAPHS):
        sentences = [
            f"{' '.join(draw.choices(WORDS, k=draw.randint(5, 18)))} {draw.randint(1, 10**6)}.".capitalize()
            for _ in range(draw.randint(2, 7))
        ]
        paragraphs.append(" ".join(sentences) if number % 10 else SIGNS + " " + " ".join(sentences))
    return paragraphs


def write_html(path: Path, paragraphs: list[str]) -> None:
    """Write a page with a menu and a script around the text."""
    body = "".join(f"<p>{html.escape(text, quote=False)}</p>\n" for text in paragraphs)
    path.write_text(
        '<!doctype html><html><head><meta charset="utf-8"><title>T</title></head><body><nav><a href="/">Home</a></nav>'
        f"<main>{body}</main><script>var x = 1;</script></body></html>",
        encoding="utf-8",
    )


def write_docx(path: Path, paragraphs: list[str]) -> None:
    """Write a Word document."""
    import docx

    document = docx.Document()
    for text in paragraphs:
        document.add_paragraph(text)
    document.save(str(path))


def write_epub(path: Path, paragraphs: list[str]) -> None:
    """Write a book of two chapters, the first with a space in its file name."""
    half = len(paragraphs) // 2
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="b.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        book.writestr(
            "b.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i">'
            '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="i">x</dc:identifier>'
            "<dc:title>B</dc:title><dc:language>en</dc:language></metadata><manifest>"
            '<item id="a" href="a%201.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
        )
        for name, part in (("a 1.xhtml", paragraphs[:half]), ("b.xhtml", paragraphs[half:])):
            body = "".join(f"<p>{html.escape(text, quote=False)}</p>" for text in part)
            page = f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title></head><body>{body}</body></html>'
            book.writestr(name, page)


def write_pdf(path: Path, paragraphs: list[str]) -> None:
    """Write a PDF whose lines are wrapped and justified, as papers have them."""
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_margin(30)
    pdf.add_page()
    pdf.set_font("helvetica", size=11)
    for text in paragraphs:
        plain = text.replace("“", '"').replace("”", '"')
        pdf.multi_cell(0, 6, plain, new_x="LMARGIN", new_y="NEXT", align="J")
        pdf.ln(4)
    pdf.output(str(path))


WRITERS = {"html": write_html, "docx": write_docx, "epub": write_epub, "pdf": write_pdf}


def readers() -> Iterator[tuple[str, tuple[str, ...], Reader]]:
    """Give each installed library: its name, the formats it is asked for, and a function from path to text."""
    every = tuple(WRITERS)
    if has("resiliparse") and has("mammoth") and has("pypdfium2"):
        from katsuo.sources.files import _READERS

        yield "katsuo", every, lambda path: _READERS[path.suffix[1:]](path.read_bytes())[0]
    if has("kreuzberg"):
        import kreuzberg

        config = kreuzberg.ExtractionConfig(use_cache=False)
        yield "kreuzberg", every, lambda path: kreuzberg.extract_file_sync(str(path), config=config).content
    if has("markitdown"):
        from markitdown import MarkItDown

        converter = MarkItDown()
        yield "markitdown", every, lambda path: converter.convert(str(path)).text_content
    if has("pypdf"):
        import pypdf

        yield "pypdf", ("pdf",), lambda path: "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)
    if has("trafilatura"):
        import trafilatura

        yield "trafilatura", ("html",), lambda path: trafilatura.extract(path.read_text(encoding="utf-8")) or ""
    if has("docling"):
        from docling.document_converter import DocumentConverter

        docling = DocumentConverter()
        yield "docling", every, lambda path: docling.convert(path).document.export_to_text()


def has(package: str) -> bool:
    """Say whether `package` is installed, without importing it."""
    return importlib.util.find_spec(package) is not None


def compare_readers(folder: Path) -> None:
    """Print milliseconds per document, and the shares of words and of whole paragraphs that come back."""
    draw = random.Random(1)
    known = [make_paragraphs(draw) for _ in range(DOCUMENTS)]
    for number, paragraphs in enumerate(known):
        for ending, write in WRITERS.items():
            write(folder / f"{number}.{ending}", paragraphs)
    print("| format | library | ms per document | words | whole paragraphs |\n| --- | --- | ---: | ---: | ---: |")
    for name, formats, read in readers():
        for ending in formats:
            times, words, wholes = [], [], []
            for number in [*range(DOCUMENTS)] * ROUNDS:
                start = time.perf_counter()
                text = read(folder / f"{number}.{ending}")
                times.append(time.perf_counter() - start)
                expected = [plain(one) if ending == "pdf" else one for one in known[number]]
                found = set(text.split())
                words.append(share(word in found for one in expected for word in one.split()))
                wholes.append(share(one in text for one in expected))
            speed = f"{statistics.median(times) * 1000:.1f}"
            print(f"| {ending} | {name} | {speed} | {statistics.mean(words):.1%} | {statistics.mean(wholes):.1%} |")


def plain(text: str) -> str:
    """Give the text as the PDF writer had to spell it."""
    return text.replace("“", '"').replace("”", '"')


def share(values: Iterator[bool]) -> float:
    """Give the share of true values."""
    return statistics.mean(list(values))


def count(text: str) -> int:
    """Count pieces of up to five letters with the space before them, which, as in a real tokenizer, do not add up."""
    return len(TOKEN.findall(text))


def cutters() -> Iterator[tuple[str, Cutter]]:
    """Give each installed chunking library as a function from text to spans."""
    if has("semchunk"):
        import semchunk

        yield "semchunk", lambda text: semchunk.chunk(text, SIZE, count, memoize=False, offsets=True)[1]
        if has("katsuo"):
            from katsuo.pipeline.chunk import chunk
            from katsuo.records import Document

            def ours(text: str) -> list[tuple[int, int]]:
                passages = chunk(Document("a", text), count_tokens=lambda all_: [count(one) for one in all_], size=SIZE)
                return [(one.char_start, one.char_end) for one in passages]

            yield "katsuo (semchunk, in windows)", ours
    if has("semantic_text_splitter"):
        from semantic_text_splitter import TextSplitter

        splitter = TextSplitter.from_callback(count, SIZE)
        yield "semantic-text-splitter", lambda text: [(at, at + len(one)) for at, one in splitter.chunk_indices(text)]
    if has("chonkie"):
        import chonkie

        for name in ("RecursiveChunker", "SentenceChunker"):
            extra = {"chunk_overlap": 0} if name == "SentenceChunker" else {}
            chunker = getattr(chonkie, name)(tokenizer=count, chunk_size=SIZE, **extra)
            yield (
                f"chonkie {name}",
                lambda text, cut=chunker: [(one.start_index, one.end_index) for one in cut.chunk(text)],
            )


def compare_cutters() -> None:
    """Print speed and what each library keeps of the promises that a passage makes."""
    packages = sorted(metadata.distributions(), key=lambda package: package.metadata["Name"].lower())
    texts = [str(package.metadata.get_payload()) for package in packages]
    million = sum(map(len, texts)) / 1e6
    print(f"\n{len(texts)} package descriptions, {million:.1f} million characters, {SIZE} tokens at most\n")
    print("| library | s per million characters | passages | mean tokens | too long | lost characters |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, cut in cutters():
        start = time.perf_counter()
        spans = [cut(text) for text in texts]
        seconds = time.perf_counter() - start
        pieces = [text[left:right].strip() for text, found in zip(texts, spans, strict=True) for left, right in found]
        sizes = [count(piece) for piece in pieces]
        lost = sum(lost_characters(text, found) for text, found in zip(texts, spans, strict=True))
        print(
            f"| {name} | {seconds / million:.2f} | {len(pieces)} | {statistics.mean(sizes):.0f} "
            f"| {sum(size > SIZE for size in sizes)} | {lost} |"
        )


def lost_characters(text: str, spans: list[tuple[int, int]]) -> int:
    """Count characters other than white space that no span covers."""
    covered = bytearray(len(text))
    for left, right in spans:
        covered[left:right] = b"\1" * (right - left)
    return sum(not known and not sign.isspace() for known, sign in zip(covered, text, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunking", action="store_true")
    if not parser.parse_args().chunking:
        with tempfile.TemporaryDirectory() as folder:
            compare_readers(Path(folder))
    compare_cutters()
