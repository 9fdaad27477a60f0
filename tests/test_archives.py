from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from katsuo import archives
from katsuo.archives import PackageIndex, configured_index, fetch_archive
from katsuo.errors import SourceError

NAME = "evil_thing-1.0.tar.gz"


def sdist(folder: Path) -> bytes:
    """A source archive whose setup.py would leave a trace if anybody ran it."""
    body = f"open({str(folder / 'was-run')!r}, 'w')".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("evil_thing-1.0/setup.py")
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, and pip configured to use it alone."""
    project = tmp_path / "simple" / "evil-thing"
    project.mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / NAME).write_bytes(sdist(tmp_path))
    (project / "index.html").write_text(
        f'<a href="../../files/{NAME}#sha256=0" data-requires-python="&lt;3">{NAME}</a>'
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("KATSUO_CACHE", str(tmp_path / "cache"))
    return tmp_path


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "files" / NAME).read_bytes()).hexdigest()


def fetch(sha256: str) -> Path:
    return fetch_archive("Evil.Thing", "1.0", filename=NAME, sha256=sha256)


def test_a_source_archive_is_fetched_and_nothing_of_it_is_run(index):
    found = fetch(digest(index))
    assert found == index / "cache" / "archives" / NAME
    assert found.read_bytes() == (index / "files" / NAME).read_bytes()
    assert not (index / "was-run").exists()
    assert [path.name for path in found.parent.iterdir()] == [NAME]


def test_the_second_call_needs_no_index(index, monkeypatch):
    sha256 = digest(index)
    fetch(sha256)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was asked again"))
    (index / "files" / NAME).unlink()
    assert fetch(sha256).is_file()


def test_a_file_of_another_hash_is_refused_and_not_kept(index):
    with pytest.raises(SourceError, match="not 00ff as expected"):
        fetch("00ff")
    assert list((index / "cache" / "archives").iterdir()) == []


def test_a_wrong_file_put_there_by_hand_is_refused(index):
    kept = index / "cache" / "archives" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"something else")
    with pytest.raises(SourceError, match="as expected") as caught:
        fetch(digest(index))
    assert "delete" in caught.value.hint


def test_a_file_put_there_by_hand_is_taken_without_a_network(index, monkeypatch):
    kept = index / "cache" / "archives" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes((index / "files" / NAME).read_bytes())
    monkeypatch.setenv("PIP_INDEX_URL", "https://no.such.host.invalid/simple")
    assert fetch(digest(index)) == kept


def test_an_index_that_lacks_the_file_says_where_to_put_it(index):
    with pytest.raises(SourceError, match="does not offer it") as caught:
        fetch_archive("evil-thing", "2.0", filename="evil_thing-2.0.tar.gz", sha256="0")
    assert str(index / "cache" / "archives" / "evil_thing-2.0.tar.gz") in caught.value.hint


def test_an_index_that_cannot_be_reached_says_where_to_put_it(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", (index / "nowhere").as_uri())
    with pytest.raises(SourceError, match="cannot find") as caught:
        fetch(digest(index))
    assert "put the file at" in caught.value.hint


def test_a_folder_of_find_links_is_looked_into_first(index, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "files"))
    assert fetch(digest(index)).is_file()


def test_pages_in_json_are_read_too(index):
    page = index / "page.json"
    page.write_text(json.dumps({"files": [{"filename": "a-1.whl", "url": "a-1.whl"}]}))
    assert archives._links(page.as_uri(), PackageIndex(())) == {"a-1.whl": (index / "a-1.whl").as_uri()}


def test_variables_of_uv_go_before_what_pip_says(index, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://first.invalid/simple")
    found = configured_index()
    assert found.index_urls[0] == "https://first.invalid/simple"
    assert (index / "simple").as_uri() in found.index_urls


def test_without_pip_and_uv_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(archives, "_ways_to_ask_pip", lambda: iter([([sys.executable, "-c", "import nothing"], {})]))
    with pytest.raises(SourceError, match="neither pip nor uv") as caught:
        configured_index()
    assert caught.value.hint == "install pip or uv"


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="ftp"):
        archives._open("ftp://host/file", PackageIndex(()))
