from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest

from katsuo.errors import MissingPackageError, UsageError
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


def test_a_scheme_that_nothing_knows_is_wrong_use() -> None:
    with pytest.raises(UsageError, match='no file system is called "s4"'):
        place("s4://bucket/run")


@pytest.mark.parametrize(("missing", "extra"), [("upath", "remote"), ("s3fs", "s3")])
def test_a_missing_package_is_told_with_what_to_install(
    missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackageError, match=rf"katsuo\[{extra}\]"):
        place("s3://bucket/run" if extra == "s3" else "memory://run")


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
