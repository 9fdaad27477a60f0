"""Every format that DOCS takes, read from a real file."""

from __future__ import annotations

from pathlib import Path

import docx
import pytest
from document_builders import CAFE, FLAKES, make_epub, make_pdf, page
from docx.oxml import OxmlElement

from katsuo.records import Document, Reason, Reject


def test_every_format_of_a_folder_is_read_without_a_reject(library, read):
    found = read(library)
    assert [item for item in found if isinstance(item, Reject)] == []
    assert [document.source for document in found] == [
        "library/book.epub",
        "library/deep/er/mark.md",
        "library/page.html",
        "library/paper.pdf",
        "library/plain.txt",
        "library/report.docx",
        "library/rows.csv#row=0",
        "library/rows.csv#row=1",
        "library/rows.jsonl#row=0",
        "library/rows.jsonl#row=1",
        "library/rows.parquet#row=0",
        "library/rows.parquet#row=1",
    ]


@pytest.mark.parametrize("name", ["plain.txt", "deep/er/mark.md", "page.html", "report.docx", "book.epub"])
def test_each_format_gives_every_character_of_both_paragraphs(library, read, name):
    [document] = read(library / name)
    assert FLAKES in document.text
    assert CAFE in document.text


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_each_table_gives_one_document_per_row(library, read, name):
    assert [document.text for document in read(library / name)] == [FLAKES, CAFE]


def test_a_pdf_gives_whole_paragraphs_and_the_offset_of_each_page(library, read):
    [document] = read(library / "paper.pdf")
    first, second = document.page_starts
    assert document.text[first:second].split("\n\n")[0] == FLAKES, "the lines of a paragraph are joined"
    assert "x < y & y > z." in document.text[first:second]
    assert document.text[second:] == FLAKES


def test_a_word_parted_at_a_line_end_is_put_together(tmp_path, read):
    lines = ["It stays dry for weeks and is well-", "known, as exam-", "ples show: a well-known fact of 1990-", "2000."]
    make_pdf(tmp_path / "a.pdf", [["\n".join(lines)]])
    [document] = read(tmp_path / "a.pdf")
    assert "well-known, as" in document.text.replace("\n", " ")
    assert "examples show" in document.text.replace("\n", " ")
    assert "1990-2000." in document.text.replace("\n", "")


def test_an_html_page_leaves_out_what_is_not_text(library, read):
    [document] = read(library / "page.html")
    assert document.text.startswith("Title\n\nKatsuobushi")
    for furniture in ("Home", "Tab", "color", "hidden"):
        assert furniture not in document.text


def test_lists_and_tables_are_kept(library, read):
    [report] = read(library / "report.docx")
    assert "first point" in report.text
    assert "Ada" in report.text
    [html] = read(library / "page.html")
    assert "second point" in html.text


def test_a_tracked_insertion_of_a_word_document_is_read(tmp_path, read):
    document = docx.Document()
    paragraph = document.add_paragraph("It keeps ")
    inserted = OxmlElement("w:ins")
    paragraph._p.append(inserted)
    inserted.append(paragraph.add_run("for months.")._r)
    document.save(str(tmp_path / "a.docx"))
    [found] = read(tmp_path / "a.docx")
    assert found.text == "It keeps for months."


@pytest.mark.parametrize(
    ("declaration", "encoding"),
    [('<meta charset="iso-8859-1">', "cp1252"), ("<?xml version='1.0' encoding='utf-16'?>", "utf-16"), ("", "utf-8")],
)
def test_an_html_page_is_decoded_as_it_declares(tmp_path, read, declaration, encoding):
    (tmp_path / "a.html").write_bytes(f"{declaration}<p>café “quoted”</p>".encode(encoding))
    [document] = read(tmp_path / "a.html")
    assert document.text == "café “quoted”"


@pytest.mark.parametrize("more", ["", "!"])
def test_a_page_that_can_be_read_as_ascii_is_not_utf16_whatever_it_declares(tmp_path, read, more):
    (tmp_path / "a.html").write_bytes(f'<meta charset="utf-16"><p>café{more}</p>'.encode())
    [document] = read(tmp_path / "a.html")
    assert document.text == f"café{more}"


def test_a_book_is_read_in_the_order_of_its_spine(library, read):
    [document] = read(library / "book.epub")
    assert document.text.index("Chapter B.") < document.text.index("Chapter A.")
    assert "Contents" not in document.text


def test_a_book_that_lacks_a_chapter_is_refused_as_a_whole(tmp_path, read):
    make_epub(tmp_path / "a.epub", spine=("one", "three"))
    [reject] = read(tmp_path / "a.epub")
    assert (reject.reason, "three" in reject.detail) == (Reason.UNREADABLE, True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_is_dropped(tmp_path, read, encoding):
    (tmp_path / "a.txt").write_bytes(CAFE.encode(encoding))
    assert [document.text for document in read(tmp_path / "a.txt")] == [CAFE]


def test_the_span_of_a_text_file_is_the_span_that_python_reads(tmp_path, read):
    path = tmp_path / "dos.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    [document] = read(path)
    with path.open(encoding="utf-8-sig") as file:
        assert document.text == file.read()


def test_a_name_ending_is_known_in_capitals_too(tmp_path, read):
    (tmp_path / "A.HTML").write_text(page(FLAKES), encoding="utf-8")
    [document] = read(tmp_path)
    assert isinstance(document, Document)
    assert "<p>" not in document.text


def test_reading_writes_nothing_anywhere(library, read, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    before = sorted(library.rglob("*"))
    read(library)
    assert sorted(library.rglob("*")) == before
    assert list(Path(home).rglob("*")) == []
