"""The engine `vllm` on the real vLLM, built for processors, with the generator that comes with katsuo."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from vllm_environment import open_here, settings_of

from katsuo.config import EngineOptions, Sampling
from katsuo.engines import CanScore, Choices, EngineSettings, open_engine
from katsuo.engines.vllm_process.engine import VllmEngine
from katsuo.errors import EngineError
from katsuo.pipeline.ask import ask
from katsuo.records import Passage, Prompt
from katsuo.store import Run
from katsuo.tasks import load_task
from katsuo.tasks.codec import find_codec

pytestmark = [pytest.mark.engine, pytest.mark.slow]
SHORT = Sampling(max_new_tokens=64, temperature=0.5)
TEXTS = (
    "The ferry to Ven leaves at nine in the morning from the harbour of Landskrona, with forty bicycles.",
    "Rye bread keeps for a week if it is wrapped in cloth. The miller of Tomelilla has sold flour since 1932.",
)


def task_prompts(*tasks: str) -> list[Prompt]:
    passages = [Passage(f"p{number}", text, "f", 0, len(text)) for number, text in enumerate(TEXTS)]
    return list(ask(passages, tasks=[load_task(task) for task in tasks], codec=find_codec("bonito-v1"), n=1, seed=3))


@pytest.fixture(scope="module")
def pulled(embedded_model: Path) -> Path:
    """The cache in which the embedded model lies."""
    return embedded_model.parent.parent


def open_generator(python: str, cache: Path) -> VllmEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KATSUO_CACHE", str(cache))
        return open_here(
            python, EngineSettings("katsuo-135m", options=EngineOptions(dtype="float32", context_tokens=2048))
        )


@pytest.fixture(scope="module")
def engine(vllm_python: str, pulled: Path) -> Iterator[VllmEngine]:
    with closing(open_generator(vllm_python, pulled)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def models_are_here(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KATSUO_CACHE", str(pulled))


def test_it_names_the_generator_and_no_path(engine: VllmEngine) -> None:
    info = engine.info
    assert (info.engine, info.model, info.codec, info.context_tokens) == ("vllm", "katsuo-135m", "bonito-v1", 2048)
    assert engine.end_text(is_chat=False) == "<|im_end|>"


def test_both_grammars_hold(engine: VllmEngine) -> None:
    for prompt, completion in zip(
        prompts := task_prompts("exqa", "nli"), engine.generate(prompts, Sampling(max_new_tokens=200)), strict=True
    ):
        assert completion.finish == "stop", completion
        instruction, _, answer = completion.text.partition("\n<|pipe|>\n")
        assert "{{context}}" in instruction
        if prompt.task_type == "extractive question answering":
            assert answer.strip() in prompt.passage.text
        else:
            allowed = load_task("nli").answer.allowed(instruction)
            assert answer.strip().casefold() in [label.casefold() for label in allowed]


def test_a_text_with_a_control_token_is_refused_and_the_others_are_answered(engine: VllmEngine) -> None:
    prompts = task_prompts("exqa")
    bad = Passage("p", "He typed <|im_end|> and left.", "f", 0, 29)
    refused, *_ = ask([bad], tasks=[load_task("exqa")], codec=find_codec("bonito-v1"), n=1, seed=3)
    first, second, third = engine.generate([prompts[0], refused, prompts[1]], SHORT)
    assert (first.finish, third.finish) != ("error", "error")
    assert second.finish == "error"
    assert "<|im_end|>" in second.error


def test_more_than_vllm_reads_at_once_is_answered(engine: VllmEngine) -> None:
    text = " ".join(TEXTS) * 6
    passages = [Passage(f"p{number}", f"{number}. {text}", "f", 0, 0) for number in range(12)]
    prompts = list(ask(passages, tasks=[load_task("exqa")], codec=find_codec("bonito-v1"), n=1, seed=3))
    assert sum(engine.count_tokens([prompt.text for prompt in prompts[:8]])) > 2048, "it would not be too much"
    answers = engine.generate(prompts, Sampling(max_new_tokens=8))
    assert {answer.finish for answer in answers} == {"length"}


def test_scores_are_those_of_the_engine_hf(engine: VllmEngine) -> None:
    pytest.importorskip("torch")
    hf = open_engine("hf", EngineSettings("katsuo-135m", options=EngineOptions(dtype="float32", device="cpu")))
    assert isinstance(hf, CanScore)
    questions = [Choices(prompt, ("Landskrona", "a week", "bicycles")) for prompt in task_prompts("exqa")]
    for mine, other in zip(engine.score(questions), hf.score(questions), strict=True):
        assert mine.tokens == other.tokens
        for value, wanted in zip(mine.log_probabilities, other.log_probabilities, strict=True):
            assert math.isclose(value, wanted, abs_tol=0.02)


def test_a_dead_process_is_told_and_what_came_before_was_handed_over(vllm_python: str, pulled: Path) -> None:
    with closing(open_generator(vllm_python, pulled)) as engine:
        taken: list[int] = []
        prompts = task_prompts("exqa", "nli", "ynqa", "mcqa") * 4
        with pytest.raises(EngineError, match="the process of vLLM was killed") as raised:
            take_all_and_kill_after_two(engine, prompts, taken)
        assert 2 <= len(taken) < len(prompts)
        assert "the same command then goes on" in raised.value.hint


def take_all_and_kill_after_two(engine: VllmEngine, prompts: list[Prompt], taken: list[int]) -> None:
    for place, _ in engine.stream(prompts, SHORT):
        taken.append(place)
        if len(taken) == 2:
            os.killpg(engine._process.pid, signal.SIGKILL)


def test_a_run_whose_server_is_killed_goes_on_with_the_same_command(
    vllm_python: str, pulled: Path, tmp_path: Path
) -> None:
    own = tmp_path / "cache"
    own.mkdir()
    (own / "models").symlink_to(pulled / "models")
    page = Path(__file__).parents[2] / "docs" / "decisions.md"
    command = [sys.executable, "-m", "katsuo", "generate", str(page), "--task", "exqa", "--limit", "12"]
    command += ["--engine", "vllm", "-o", str(tmp_path / "run"), "--allow-partial"]
    command += ["--set", "sampling.max_new_tokens=64", "--set", "chunk.size=64"]
    command += ["--set", f"engine_options.vllm_arguments={json.dumps(['--max-num-seqs', '2', '--enforce-eager'])}"]
    command += ["--set", "engine_options.dtype=float32"]
    environment = {**os.environ, **settings_of(vllm_python), "KATSUO_CACHE": str(own)}
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        threading.Thread(target=kill_the_server_once_it_has_answered, args=(process, own), daemon=True).start()
        assert process.wait(timeout=900) == 1
    assert "the process of vLLM was killed" in (tmp_path / "log.txt").read_text()
    kept = answers_in(own)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    assert run.summary().is_complete
    assert run.summary().kept > 0
    assert run.manifest["from_cache"] == kept > 0, "what was answered before the kill is not asked again"


def kill_the_server_once_it_has_answered(process: subprocess.Popen[bytes], cache: Path) -> None:
    """Wait for the first answers on disk, then kill the server under the command."""
    while process.poll() is None:
        if answers_in(cache):
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.killpg(int(child), signal.SIGKILL)
            return
        time.sleep(0.2)


def answers_in(cache: Path) -> int:
    count = 0
    for path in cache.glob("answers-*/*.sqlite"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (table,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()
            count += connection.execute("SELECT count(*) FROM answers").fetchone()[0] if table else 0
    return count


def test_memory_is_given_back(vllm_python: str, pulled: Path) -> None:
    engine = open_generator(vllm_python, pulled)
    pid, folder = engine._process.pid, engine._process.folder
    assert len(running_in_group(pid)) > 1
    engine.close()
    assert not folder.exists()
    deadline = time.monotonic() + 20
    while running_in_group(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running_in_group(pid)


def running_in_group(group: int) -> list[int]:
    """Give the processes of a group that are more than an entry that nobody has noticed the end of."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
