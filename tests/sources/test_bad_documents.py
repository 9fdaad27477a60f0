"""Bad input, each from a real file: it is counted with its name, and the rest is read."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from random import Random

import pytest
from document_builders import CAFE, FLAKES, make_docx, make_epub, make_pdf

from katsuo.errors import SourceError, UsageError
from katsuo.records import Document, Reason
from katsuo.sources import open_sources


def refused(found, name):
    """The one reject of a folder that also holds good.txt, which must have been read."""
    rejects = [item for item in found if not isinstance(item, Document)]
    assert [item.text for item in found if isinstance(item, Document)] == [FLAKES]
    [reject] = rejects
    assert (reject.kind, reject.source) == ("document", f"docs/{name}")
    return reject


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.txt").write_text(FLAKES)
    return folder


def test_a_binary_file_called_txt_is_not_text(docs, read):
    (docs / "a.txt").write_bytes(b"PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    reject = refused(read(docs), "a.txt")
    assert reject.reason is Reason.NOT_TEXT
    assert "zero byte" in reject.detail


def test_invalid_utf8_is_refused_with_the_place_of_the_byte(docs, read):
    (docs / "a.txt").write_bytes("naïve café".encode("latin-1"))
    reject = refused(read(docs), "a.txt")
    assert reject.reason is Reason.NOT_TEXT
    assert "byte 0xef at offset 2 is not UTF-8" in reject.detail


def test_a_broken_pdf_is_unreadable(docs, read):
    make_pdf(docs / "a.pdf", [[FLAKES]])
    (docs / "a.pdf").write_bytes((docs / "a.pdf").read_bytes()[:600])
    assert refused(read(docs), "a.pdf").reason is Reason.UNREADABLE


def test_a_pdf_with_a_password_is_encrypted(docs, read):
    make_pdf(docs / "a.pdf", [[FLAKES]], owner_password="o", user_password="u")
    assert refused(read(docs), "a.pdf").reason is Reason.ENCRYPTED


def test_a_pdf_that_only_forbids_printing_is_read(tmp_path, read):
    make_pdf(tmp_path / "a.pdf", [[FLAKES]], owner_password="o")
    assert [document.text for document in read(tmp_path / "a.pdf")] == [FLAKES]


def test_a_pdf_without_text_is_empty_and_the_detail_says_why(docs, read):
    make_pdf(docs / "a.pdf", [[], []])
    reject = refused(read(docs), "a.pdf")
    assert reject.reason is Reason.EMPTY_DOCUMENT
    assert "2 pages" in reject.detail


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.pdf", "a.docx", "a.epub", "a.md"])
def test_a_file_of_no_bytes_is_empty(docs, read, name):
    (docs / name).write_bytes(b"")
    assert refused(read(docs), name).reason is Reason.EMPTY_DOCUMENT


def test_a_cut_off_word_document_is_unreadable(docs, read):
    make_docx(docs / "a.docx")
    (docs / "a.docx").write_bytes((docs / "a.docx").read_bytes()[:3000])
    assert refused(read(docs), "a.docx").reason is Reason.UNREADABLE


def test_a_word_document_with_damaged_markup_is_unreadable(docs, read):
    make_docx(docs / "whole.docx")
    with zipfile.ZipFile(docs / "whole.docx") as whole, zipfile.ZipFile(docs / "a.docx", "w") as damaged:
        for member in whole.namelist():
            content = whole.read(member)
            damaged.writestr(member, content[:500] if member == "word/document.xml" else content)
    (docs / "whole.docx").unlink()
    assert refused(read(docs), "a.docx").reason is Reason.UNREADABLE


def test_a_word_document_with_a_password_is_encrypted(docs, read):
    # Word keeps an encrypted document in an OLE container with a stream of this name (MS-OFFCRYPTO, section 2.3.4).
    stream = "EncryptedPackage".encode("utf-16-le")
    (docs / "a.docx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1016) + stream + bytes(1000))
    assert refused(read(docs), "a.docx").reason is Reason.ENCRYPTED


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused_unopened(docs, read, monkeypatch):
    monkeypatch.setattr("katsuo.sources.markup._MOST_OF_A_DOCUMENT", 1 << 20)
    with zipfile.ZipFile(docs / "a.docx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", bytes((1 << 20) + 1))
    reject = refused(read(docs), "a.docx")
    assert reject.reason is Reason.UNREADABLE
    assert "unpacks to 1,048,577 bytes" in reject.detail


@pytest.mark.parametrize("declared", ["gb2312", "shift_jis", "no-such-encoding"])
def test_a_book_of_an_encoding_that_the_parser_does_not_take_is_unreadable(docs, read, declared):
    with zipfile.ZipFile(docs / "a.epub", "w") as book:
        book.writestr("META-INF/container.xml", f'<?xml version="1.0" encoding="{declared}"?><container/>')
    assert refused(read(docs), "a.epub").reason is Reason.UNREADABLE


@pytest.mark.parametrize("ending", ["docx", "epub"])
def test_no_damage_to_an_archive_stops_the_reading(docs, read, ending):
    (make_epub if ending == "epub" else make_docx)(docs / f"a.{ending}")
    whole = (docs / f"a.{ending}").read_bytes()
    random = Random(3)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(20):
            data[random.randrange(len(data))] = random.randrange(256)
        (docs / f"a.{ending}").write_bytes(bytes(data))
        outcomes.update(type(item).__name__ for item in read(docs))
    assert outcomes == {"Document", "Reject"}


def test_a_chapter_that_the_spine_names_many_times_is_read_once(tmp_path, read):
    make_epub(tmp_path / "a.epub", spine=("one",) * 50)
    [document] = read(tmp_path / "a.epub")
    assert document.text.count("Chapter A.") == 1


def test_a_book_under_rights_management_is_encrypted(docs, read):
    make_epub(docs / "a.epub", protected="OEBPS/text/b.xhtml")
    assert refused(read(docs), "a.epub").reason is Reason.ENCRYPTED


def test_a_book_with_scrambled_fonts_is_read(tmp_path, read):
    make_epub(tmp_path / "a.epub", protected="OEBPS/fonts/serif.otf")
    [document] = read(tmp_path / "a.epub")
    assert CAFE in document.text


def test_a_file_that_no_reader_takes_is_counted(docs, read):
    (docs / "photo.png").write_bytes(b"\x89PNG\r\n")
    reject = refused(read(docs), "photo.png")
    assert reject.reason is Reason.UNSUPPORTED
    assert '".png"' in reject.detail


@pytest.mark.parametrize("kind", ["pipe", "loop", "dangling"])
def test_what_is_no_regular_file_is_counted_and_nothing_waits(docs, read, kind):
    odd = docs / "odd.txt"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(odd if kind == "loop" else docs / "gone.txt")
    assert refused(read(docs), "odd.txt").reason is Reason.UNREADABLE


def test_a_folder_that_links_to_itself_is_read_once(docs, read):
    (docs / "again").symlink_to(docs, target_is_directory=True)
    assert [item.source for item in read(docs)] == ["docs/good.txt"]


def read_as_nobody(folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Root may read everything, so a process that gives up being root does the reading."""
    script = (
        "import os, sys\n"
        "from katsuo.config import recipe_from\n"
        "from katsuo.sources import files, iter_documents\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setgid(65534), os.setuid(65534)\n"
        "for item in iter_documents(recipe_from({'documents': [sys.argv[2]]})):\n"
        "    print(item.source, getattr(item, 'reason', ''))\n"
    )
    command = [sys.executable, "-c", script, str(folder), address]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["locked.txt", "locked"])
def test_no_permission_is_counted(docs, name):
    if name == "locked":
        (docs / name).mkdir()
    else:
        (docs / name).write_text("secret")
    (docs / name).chmod(0)
    done = read_as_nobody(docs, ".")
    assert done.stdout.splitlines() == ["docs/good.txt ", f"docs/{name} unreadable document"], done.stderr


def test_no_permission_for_the_named_folder_is_an_error_with_a_hint(docs):
    (docs / "locked" / "inner").mkdir(parents=True)
    (docs / "locked").chmod(0)
    done = read_as_nobody(docs, "locked/inner")
    assert 'SourceError: cannot read "locked/inner": Permission denied' in done.stderr
    (docs / "locked").chmod(0o700)


@pytest.mark.parametrize("make", ["empty", "hidden", "pictures"])
def test_a_folder_without_documents_is_an_error(tmp_path, recipe, make):
    folder = tmp_path / "docs"
    (folder / ".git").mkdir(parents=True)
    if make == "hidden":
        (folder / ".git" / "config.txt").write_text("x")
    if make == "pictures":
        (folder / "a.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="no document of") as caught:
        open_sources(recipe(folder))
    assert ".pdf" in caught.value.hint


@pytest.mark.parametrize("address", ["docs", "docs/good.txt"])
def test_globs_that_match_nothing_are_an_error(docs, recipe, address):
    with pytest.raises(SourceError, match="--include") as caught:
        open_sources(recipe(docs.parent / address, include=["*.rst"]))
    assert "quote" in caught.value.hint


def test_a_path_that_does_not_exist_is_an_error(tmp_path, recipe):
    with pytest.raises(SourceError, match="nowhere"):
        open_sources(recipe(tmp_path / "nowhere"))


def test_a_pipe_that_is_named_is_an_error_because_it_can_be_read_once_only(tmp_path, recipe):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_sources(recipe(tmp_path / "pipe"))


def test_no_documents_at_all_is_wrong_use(recipe):
    with pytest.raises(UsageError, match="no documents"):
        open_sources(recipe())
