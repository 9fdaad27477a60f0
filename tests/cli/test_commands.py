"""The words on the terminal: exit statuses, JSON, and that every flag reaches its setting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from katsuo.cli.main import COMMANDS
from katsuo.cli.terminal import print_summary
from katsuo.records import Summary
from katsuo.store import Run

pytestmark = pytest.mark.end_to_end
TEXT = "The mill of Arden was built in 1821 by Per Holst. It ground rye for nine villages until the flood of 1911."


def katsuo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "katsuo", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "mill.txt").write_text(TEXT)
    return tmp_path / "docs"


def test_a_run_that_kept_everything_exits_with_0_and_prints_the_ledger(documents: Path, tmp_path: Path) -> None:
    result = katsuo("generate", documents, "--task", "exqa", "--engine", "fake", "-o", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "prompts" in result.stdout
    assert "1 examples" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if str(tmp_path) not in line)


def test_json_is_one_object_on_standard_output_and_the_counts_add_up(documents: Path, tmp_path: Path) -> None:
    (documents / "copy.txt").write_text(TEXT)
    arguments = ["-t", "exqa", "-t", "ynqa", "-n", 5, "--engine", "fake", "-o", tmp_path / "run", "--json"]
    result = katsuo("generate", documents, *arguments)
    ledger = json.loads(result.stdout)
    assert {"prompts", "kept", "rejected", "passages", "seconds"} <= set(ledger)
    assert ledger["prompts"] == 10 == ledger["kept"] + sum(ledger["rejected"].values())
    assert ledger["documents_rejected"] == {"duplicate document": 1}


def test_a_run_that_made_fewer_than_asked_exits_with_3(documents: Path, tmp_path: Path) -> None:
    short = ["-t", "ynqa", "-n", 64, "--engine", "fake"]
    result = katsuo("generate", documents, *short, "-o", tmp_path / "a")
    assert Run(tmp_path / "a").summary().is_short
    assert result.returncode == 3
    assert katsuo("generate", documents, *short, "-o", tmp_path / "b", "--allow-partial").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["generate", "DOCS", "--task", "yn", "--engine", "fake"], 2, 'did you mean "ynqa"'),
        (["generate", "DOCS", "--engine", "fake"], 2, "no task type is given"),
        (["generate", "--task", "ynqa", "--engine", "fake"], 2, "no documents are given"),
        (["generate", "DOCS", "--task", "ynqa", "--engine", "fkae"], 2, 'did you mean "fake"'),
        (["generate", "DOCS", "--task", "ynqa", "--engine", "fake", "--n", "0"], 2, 'setting "sampling.n" cannot be 0'),
        (["generate", "DOCS", "--task", "ynqa", "--set", "sead=1"], 2, 'did you mean "seed"'),
        (["generate", "DOCS", "--task", "ynqa", "--set", "seed"], 2, "is not a setting"),
        (["generate", "absent", "--task", "ynqa", "--engine", "fake"], 1, "absent"),
        (["show", "DOCS"], 1, "is not a run folder"),
        (["generate", "DOCS", "--no-such-flag"], 2, "no-such-flag"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_what_goes_wrong_has_its_status_and_a_hint(
    documents: Path, tmp_path: Path, arguments: list[str], status: int, told: str
) -> None:
    arguments = [str(documents) if argument == "DOCS" else argument for argument in arguments]
    output = ["-o", str(tmp_path / "run")] if arguments[0] == "generate" else []
    result = katsuo(*arguments, *output)
    assert (result.returncode, told in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stderr


def test_flags_override_the_recipe_by_presence(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"documents: ['{documents}']\ntasks: [exqa]\nengine: fake\nseed: 7\nsampling: {{n: 2, top_p: 0.5}}\n"
    )
    result = katsuo("generate", "-c", tmp_path / "recipe.yaml", "--seed", 0, "-n", 3, "-o", tmp_path / "run")
    assert result.returncode in (0, 3), result.stderr
    recipe = Run(tmp_path / "run").recipe
    assert (recipe.seed, recipe.sampling.n, recipe.sampling.top_p, recipe.tasks) == (0, 3, 0.5, ("exqa",))


def test_flags_may_be_written_with_underscores(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'body\n"{TEXT}"\n')
    table = tmp_path / "t.csv"
    for number, flag in enumerate(("--text_column", "--text-column")):
        result = katsuo("generate", table, "-t", "exqa", "--engine", "fake", flag, "body", "-o", tmp_path / str(number))
        assert result.returncode == 0, result.stderr
    assert list(Run(tmp_path / "0").examples()) == list(Run(tmp_path / "1").examples())


def test_preview_estimate_and_show_print_what_they_say(documents: Path, tmp_path: Path) -> None:
    shown = json.loads(katsuo("preview", documents, "-t", "exqa", "--engine", "fake", "--json").stdout)
    assert shown[0]["response"] in TEXT
    told = json.loads(katsuo("estimate", documents, "-t", "exqa", "-t", "nli", "--engine", "fake", "--json").stdout)
    assert (told["documents"], told["passages"], told["prompts"]) == (1, 1, 2)
    katsuo("generate", documents, "-t", "exqa", "--engine", "fake", "-o", tmp_path / "run")
    assert shown[0]["response"] in katsuo("show", tmp_path / "run").stdout
    assert json.loads(katsuo("show", tmp_path / "run", "--json").stdout)["kept"] == 1


def test_tasks_lists_all_and_shows_one() -> None:
    assert len(json.loads(katsuo("tasks", "--json").stdout)) == 16
    assert "yes-no question answering" in katsuo("tasks").stdout
    assert "answer: labels" in katsuo("tasks", "ynqa").stdout


def test_doctor_and_pull_tell_without_loading_anything() -> None:
    found = json.loads(katsuo("doctor", "--json").stdout)
    assert {"hf", "fake"} <= set(found["engines"])
    assert "bonito-v1" in katsuo("pull", "--list").stdout


def test_a_path_with_brackets_is_printed_as_it_is(capsys):
    print_summary(Path("run [draft] [/old]"), Summary())
    assert capsys.readouterr().out.count("run [draft] [/old]") == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = katsuo(command, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
