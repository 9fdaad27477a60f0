"""The push: private unless asked, never over something, and the local copy first."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from local_hub import LocalHub

from katsuo.errors import ExportError, KatsuoError, MissingPackageError
from katsuo.export import export_run
from katsuo.store import Run


def push(run: Run, tmp_path: Path, **options: object) -> str:
    return export_run(run, "hub", tmp_path / "out", repo_id="me/bridges", **options).url  # type: ignore[arg-type]


def local_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_push_leaves_the_same_files_here_and_there(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    url = push(run, tmp_path, splits={"test": 0.3})
    assert hub.files == local_files(tmp_path / "out")
    assert set(hub.files) == {"README.md", "train/00000.parquet", "test/00000.parquet"}
    assert hub.private is True
    assert hub.tokens == {"Bearer hf_secret"}
    assert url == f"{hub.address}/datasets/me/bridges"


def test_a_data_set_is_open_only_when_asked(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    push(run, tmp_path, public=True)
    assert hub.private is False


def test_private_text_never_goes_into_an_open_data_set(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    hub.private = False
    with pytest.raises(ExportError, match="open to everybody"):
        push(run, tmp_path)
    assert not hub.files
    assert local_files(tmp_path / "out")


def test_a_data_set_that_holds_files_is_left_alone(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    hub.files = {".gitattributes": b"", "train/00007.parquet": b"theirs"}
    with pytest.raises(ExportError, match="already holds files"):
        push(run, tmp_path)
    assert hub.files["train/00007.parquet"] == b"theirs"
    assert "README.md" not in hub.files


def test_a_failed_push_loses_nothing_and_tells_no_token(run: Run, tmp_path: Path, hub: LocalHub) -> None:
    hub.refuse_commits = True
    with pytest.raises(ExportError, match=r"push to .me/bridges. failed(.|\n)*hf upload me/bridges") as failure:
        push(run, tmp_path)
    assert "train/00000.parquet" in local_files(tmp_path / "out")
    assert "hf_secret" not in str(failure.value)
    assert str(tmp_path / "out") in failure.value.hint


def test_a_hub_that_cannot_be_reached_is_told_with_the_local_copy(
    run: Run, tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ExportError, match="failed") as failure:
            push(run, tmp_path)
    assert str(tmp_path / "out") in failure.value.hint
    assert "README.md" in local_files(tmp_path / "out")


def refused(run: Run, tmp_path: Path) -> KatsuoError:
    with pytest.raises(KatsuoError) as failure:
        push(run, tmp_path)
    assert not list(tmp_path.iterdir())
    return failure.value


def test_offline_nothing_is_written_and_nothing_is_pushed(
    run: Run, tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refused(run, tmp_path).message


def test_without_a_token_nothing_is_written(
    run: Run, tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in refused(run, tmp_path).hint


def test_a_missing_hub_package_is_named_with_its_cure(
    run: Run, tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    failure = refused(run, tmp_path)
    assert isinstance(failure, MissingPackageError)
    assert "katsuo[hub]" in failure.hint
