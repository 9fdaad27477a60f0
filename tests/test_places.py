from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from katsuo.errors import UsageError
from katsuo.places import is_url, list_files, place, reaching, upload


def test_a_path_of_this_machine_stays_what_it_is() -> None:
    for address in ("runs/contracts", "/runs/a:b", "C:/runs", "a:b", Path("runs") / "s3"):
        assert place(address) == Path(address)
        assert not is_url(place(address))


@pytest.mark.parametrize("address", ["memory://runs/a", PurePosixPath("memory://runs/a"), Path("memory:/runs/a")])
def test_a_url_is_known_even_where_a_path_has_eaten_one_of_its_slashes(address: str | Path) -> None:
    found = place(str(address) if isinstance(address, str) else Path(address))
    assert is_url(found)
    assert str(found / "done") == "memory://runs/a/done"
    assert place(found) is found


def test_the_case_of_a_scheme_does_not_matter() -> None:
    assert str(place("MEMORY://Runs/A")) == "memory://Runs/A"
    assert is_url(place(Path("Memory://Runs")))


def test_a_scheme_that_nothing_knows_is_wrong_use() -> None:
    with pytest.raises(UsageError, match='no file system is called "s4"'):
        place("s4://bucket/run")


@pytest.mark.parametrize(("missing", "extra"), [("upath", "remote"), ("s3fs", "s3")])
def test_a_missing_package_is_told_with_what_to_install(missing: str, extra: str) -> None:
    # In a process of its own: fsspec keeps what was loaded once.
    address = "s3://bucket/run" if extra == "s3" else "memory://run"
    code = f"import sys; sys.modules[{missing!r}] = None; from katsuo.places import place; place({address!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError" in done.stderr
    assert f"katsuo[{extra}]" in done.stderr


def test_files_are_listed_by_name_without_hidden_ones_and_a_change_is_seen(tmp_path: Path) -> None:
    root = place("memory://listed")
    for name in ("b.txt", "a/c.txt", ".hidden/d.txt", "a/.e.txt"):
        (tmp_path / "file").write_text("one")
        upload(tmp_path / "file", root / name)
    before = dict(list_files(root))
    assert list(before) == ["a/c.txt", "b.txt"]
    (tmp_path / "file").write_text("two and more")
    upload(tmp_path / "file", root / "b.txt")
    after = dict(list_files(root))
    assert after["a/c.txt"] == before["a/c.txt"]
    assert after["b.txt"] != before["b.txt"]
    assert [name for name, _ in list_files(root / "b.txt")] == [""]
    assert [name for name, _ in list_files(place("memory://lis"))] == []


def test_what_a_client_raises_reads_like_a_disk_error_and_our_own_stays() -> None:
    with pytest.raises(OSError, match='cannot reach "memory://x/y": no token'), reaching(place("memory://x/y")):
        raise RuntimeError("no token")
    with pytest.raises(UsageError), reaching(place("memory://x/y")):
        raise UsageError("ours", hint="ours")
    with pytest.raises(RuntimeError), reaching(Path("x")):
        raise RuntimeError("a bug is a bug on this machine")
