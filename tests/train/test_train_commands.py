"""The training commands, word for word, on a tiny model."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from katsuo.cli.main import build
from katsuo.errors import RecipeError, UsageError

SET = [f"--set={pair}" for pair in ("dtype=float32", "device=cpu", "max_steps=2", "data.held_out=4")]


def run(*words):
    words = [str(word) for word in words]
    return CliRunner().invoke(build(words), words, catch_exceptions=False)


def test_a_generator_is_trained_merged_and_told_as_json(pair_folder, small_model, tmp_path):
    result = run("train-generator", pair_folder, "-m", small_model(), "-o", tmp_path / "a", "--json", *SET)
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["path"] == str(tmp_path / "a")
    assert told["fitted"]["steps"] == 2
    assert "held-out loss" in result.stderr
    assert run("merge", tmp_path / "a", "-m", small_model(), "-o", tmp_path / "merged").exit_code == 0
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_a_target_is_adapted_and_the_baseline_takes_as_many_updates(small_run, small_model, tmp_path):
    flags = ["-m", small_model(), "--quiet", "--set=data.max_tokens=700", *SET]
    result = run("adapt", small_run, "-o", tmp_path / "a", *flags)
    assert "MB after 2 updates" in result.stdout
    assert result.stderr == ""
    result = run("pretrain", small_run, "-o", tmp_path / "b", "--like", tmp_path / "a", *flags)
    assert "MB after 2 updates" in result.stdout


def test_sources_are_left_out_by_a_flag(pair_folder, small_model, tmp_path):
    words = ["train-generator", pair_folder, "-m", small_model(), "-o", tmp_path / "a", "--exclude-license", "nc"]
    assert run(*words, *SET).exit_code == 0
    assert "| news |" not in (tmp_path / "a" / "README.md").read_text()


def test_what_is_no_setting_is_refused(pair_folder, tmp_path):
    with pytest.raises(RecipeError, match="is not a setting"):
        run("train-generator", pair_folder, "-o", tmp_path / "a", "--set", "max_steps")


def test_a_share_of_nothing_to_replay_is_refused(small_run, small_model, tmp_path):
    for words in (["--replay-share", "0.2"], ["--set", "data.replay_share=0.2"]):
        with pytest.raises(UsageError, match="replay share") as caught:
            run("adapt", small_run, "-m", small_model(), "-o", tmp_path / "a", *words)
        assert "--replay" in caught.value.hint


@pytest.mark.parametrize(
    "setting", ["data.replay=pairs.jsonl", "data.reword=true", "data.min_response_words=4", "style=chat"]
)
def test_a_generator_takes_no_setting_of_a_target(pair_folder, tmp_path, setting):
    with pytest.raises(UsageError, match="is for targets"):
        run("train-generator", pair_folder, "-o", tmp_path / "a", "--set", setting)
    assert not (tmp_path / "a").exists()
