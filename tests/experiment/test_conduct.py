"""Stages are processes of their own: what they cost is told, what is done is left alone, what fails says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from bridges import recipe

from katsuo.errors import RunChangedError, RunExistsError, RunnerError, StoreError
from katsuo.experiment import conduct as conducting
from katsuo.experiment.conduct import Step, do_stage
from katsuo.experiment.folder import ExperimentFolder, open_folder
from katsuo.experiment.plan import Stage, plan
from katsuo.experiment.process import run_process
from katsuo.experiment.settings import experiment_from
from katsuo.models import locate


@pytest.fixture
def folder(bridges: tuple[Path, Path], tmp_path: Path) -> ExperimentFolder:
    return open_folder(tmp_path / "out", experiment_from(recipe(*bridges, "model")))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


PEAKS = """
import sys
from pathlib import Path
from katsuo.experiment.process import run_process
for size in (200_000_000, 1):
    code = f"block = b'x' * {size}"
    print(run_process((sys.executable, "-c", code), Path(sys.argv[1]), print).peak_bytes)
"""


def test_a_process_tells_its_peak_memory(tmp_path: Path) -> None:
    # From a small process: Linux never tells less than what the one that asks holds, and these tests hold gigabytes.
    told = subprocess.run([*python(PEAKS), str(tmp_path / "log")], capture_output=True, text=True, check=True)
    large, small = map(int, told.stdout.split())
    assert small < 190e6 < large


def test_a_process_tells_its_time_and_keeps_what_it_prints(tmp_path: Path) -> None:
    said: list[str] = []
    cost = run_process(python("import sys; sys.stderr.write('large\\n'); print('out')"), tmp_path / "log", said.append)
    assert said == ["large"]
    assert cost.seconds > 0
    assert sorted((tmp_path / "log").read_text().split()) == ["large", "out"]


def test_a_process_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="no such thing") as caught:
        run_process(python("raise SystemExit('no such thing')"), tmp_path / "log", lambda _: None)
    assert "log" in caught.value.hint


STAGE_OF_OURS = """
import sys, time
from katsuo.experiment.lifeline import hold_lifeline
hold_lifeline()
print(__import__("os").getpid(), file=sys.stderr, flush=True)
time.sleep(600)
"""
CONDUCTOR = """
import sys
from pathlib import Path
from katsuo.experiment.process import run_process
run_process((sys.executable, "-c", sys.argv[1]), Path(sys.argv[2]), lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_ends_with_the_process_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    command = [*python(CONDUCTOR), STAGE_OF_OURS, str(tmp_path / "log")]
    conductor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert conductor.stdout is not None
    with conductor.stdout as lines:
        stage = psutil.Process(int(lines.readline()))
        assert stage.is_running()
        conductor.send_signal(how)
        conductor.wait()
        stage.wait(timeout=30)


def test_a_stage_that_is_done_is_left_alone_and_one_that_failed_is_done_again(
    folder: ExperimentFolder, tmp_path: Path
) -> None:
    count, may = tmp_path / "count", tmp_path / "may"
    code = f"open({str(count)!r}, 'a').write('x'); open({str(may)!r})"
    stage = Stage("one", lambda: python(code), spent=lambda: (7, "tokens"))
    states: list[str] = []

    def do() -> None:
        do_stage(folder, stage, lambda state, line="": states.append(state) if state != "says" else None)

    with pytest.raises(RunnerError):
        do()
    assert folder.marker("one") is None
    may.touch()
    do()
    do()
    assert count.read_text() == "xx"
    assert states == ["begins", "begins", "done", "was done"]
    marker = folder.marker("one")
    assert marker is not None
    assert (marker["amount"], marker["unit"], marker["command"][1]) == (7, "tokens", "-c")
    assert f"{os.cpu_count()} cores" in marker["machine"]


def test_what_needs_a_failed_stage_waits_and_the_rest_is_done(
    folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [
        Stage("first", lambda: python("raise SystemExit('no such thing')")),
        Stage("second", lambda: python("pass"), needs=("first",)),
        Stage("third", lambda: python("pass"), needs=("second",)),
        Stage("other", lambda: python("pass")),
        Stage("odd", lambda: python("pass"), skip=lambda: locate("owner/not-here").name),
        Stage("last", lambda: python("raise SystemExit(3)"), needs=("other",)),
    ]
    monkeypatch.setattr(conducting, "plan", lambda _: stages)
    steps: list[Step] = []
    with pytest.raises(
        RunnerError,
        match=r"no such thing(.|\n)*odd failed, too\nlast failed, too\n2 stages wait for them\nhint: its whole",
    ):
        conducting.conduct(folder, steps.append)
    ended = {step.stage: (step.state, step.line) for step in steps if step.state not in ("begins", "says")}
    assert {name: state for name, (state, _) in ended.items()} == {
        **{"first": "failed", "second": "waits", "third": "waits", "other": "done", "odd": "failed", "last": "failed"},
    }
    assert ended["third"][1] == "for second"
    assert folder.marker("other")
    assert not folder.marker("second")


def test_every_stage_needs_only_stages_before_it(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model", seeds=[0, 1])
    told["sets"]["others"] = told["sets"]["bridges"]
    seen: set[str] = set()
    for stage in plan(open_folder(tmp_path / "two", experiment_from(told))):
        assert set(stage.needs) <= seen, stage.name
        assert stage.needs or stage.name.endswith(("split", "general-zero-shot")), stage.name
        seen.add(stage.name)


def test_a_stage_with_nothing_to_do_is_left_out_with_its_reason(folder: ExperimentFolder) -> None:
    stage = Stage("one", lambda: python("raise SystemExit(1)"), skip=lambda: "no labels")
    do_stage(folder, stage, lambda *_: None)
    assert folder.marker("one") == {"left_out": "no labels"}


def test_the_plan_has_every_baseline_in_an_order_in_which_each_finds_what_it_needs(folder: ExperimentFolder) -> None:
    names = [stage.name.removeprefix("bridges/").removeprefix("seed-0/") for stage in plan(folder)]
    assert len(names) == len(set(names))
    for earlier, later in (
        ("split", "generate-katsuo"),
        ("generate-katsuo", "adapt-katsuo"),
        ("adapt-katsuo", "pretrain"),
        ("generate-katsuo", "data-shuffled"),
        ("data-shuffled", "adapt-shuffled"),
        ("adapt-prompted", "evaluate-prompted"),
        ("data-supervised", "adapt-supervised"),
        ("evaluate-supervised", "general-supervised"),
    ):
        assert names.index(earlier) < names.index(later)


def test_a_second_seed_repeats_all_but_the_model_as_it_is(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model", seeds=[0, 1], forgetting=None)
    names = [stage.name for stage in plan(open_folder(tmp_path / "out", experiment_from(told)))]
    assert sum("seed-1" in name for name in names) == sum("seed-0" in name for name in names) > 10
    assert names.count("bridges/evaluate-zero-shot") == 1


def test_the_command_of_each_seed_reads_settings_of_its_own(bridges: tuple[Path, Path], tmp_path: Path) -> None:
    told = recipe(*bridges, "model", seeds=[0, 1], forgetting=None)
    told["sets"]["bridges"]["labels"] = ["yes, it is", "no"]
    folder = open_folder(tmp_path / "out", experiment_from(told))
    split = folder.split("bridges")
    split.mkdir(parents=True)
    (split / "held_out.jsonl").touch()
    stages = {stage.name: stage for stage in plan(folder)}
    for seed in (0, 1):
        for stage, flag in (("generate-katsuo", "-c"), ("adapt-katsuo", "-r"), ("pretrain", "-r")):
            command = list(stages[f"bridges/seed-{seed}/{stage}"].command())
            assert f"/seed-{seed}/" in command[command.index(flag) + 1]
            assert Path(command[command.index(flag) + 1]).is_file()
    command = list(stages["bridges/evaluate-zero-shot"].command())
    assert json.loads(command[command.index("--labels") + 1]) == ["yes, it is", "no"]


def test_a_folder_is_taken_up_only_with_the_settings_that_it_was_begun_with(
    bridges: tuple[Path, Path], folder: ExperimentFolder, tmp_path: Path
) -> None:
    assert open_folder(folder.path, folder.experiment).path == folder.path
    with pytest.raises(RunChangedError, match="seeds"):
        open_folder(folder.path, experiment_from(recipe(*bridges, "model", seeds=[5])))
    with pytest.raises(RunExistsError):
        open_folder(bridges[0], folder.experiment)
    with pytest.raises(StoreError):
        ExperimentFolder(tmp_path)
