"""`katsuo export` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from katsuo.api import generate
from katsuo.cli.main import build


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"The bridge of town {number} opened in 193{number} near the river Po.")
    return generate(folder, ["ynqa"], folder / "run", engine="fake", include=["*.txt"]).path


def invoke(*arguments: str | Path) -> Result:
    words = ["export", *map(str, arguments)]
    return CliRunner().invoke(build(words), words, catch_exceptions=False)


def test_the_result_is_one_json_object_when_asked(run_folder: Path, tmp_path: Path) -> None:
    told = invoke(run_folder, "--format", "alpaca", "-o", tmp_path / "out", "--split", "test=0.5", "--json")
    assert told.exit_code == 0
    result = json.loads(told.stdout)
    assert result["path"] == str(tmp_path / "out")
    assert (result["format"], result["examples"]) == ("alpaca", sum(result["splits"].values()))
    assert set(result["splits"]) == {"train", "test"}
    assert result["files"] == ["README.md", "dataset_info.json", "test.jsonl", "train.jsonl"]


def test_a_person_is_told_where_the_result_lies(run_folder: Path, tmp_path: Path) -> None:
    told = invoke(run_folder, "-f", "trl", "-o", tmp_path / "out")
    assert str(tmp_path / "out") in told.stdout
    assert "examples as trl" in told.stdout


def test_flags_are_taken_in_snake_case_too(run_folder: Path, tmp_path: Path) -> None:
    told = invoke(run_folder, "-f", "bonito", "-o", tmp_path / "out", "--with_provenance", "--file_type", "parquet")
    assert told.exit_code == 0
    assert "char_end" in pq.read_schema(tmp_path / "out" / "train" / "00000.parquet").names


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--format", "trl"], 0, ""),
        (["--format", "hub", "--repo-id", "me/x"], 1, "HF_HUB_OFFLINE is set"),
        (["--format", "trll"], 2, 'did you mean "trl"?'),
        ([], 2, "--format"),
    ],
)
def test_the_exit_status_tells_how_it_ended(
    words: list[str], status: int, said: str, run_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "katsuo", "export", str(run_folder), "-o", str(tmp_path / "out"), *words]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == status, told.stderr
    assert said in told.stderr
    assert (tmp_path / "out").exists() == (status == 0)
