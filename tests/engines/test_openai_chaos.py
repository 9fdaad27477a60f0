"""Faults on the way to a real server: every prompt ends once, and a run ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos import FAULTS, REFUSALS, ChaosProxy, a_share_fails, first_requests_fail
from servers import RunningServer, start_llama

from katsuo.api import generate
from katsuo.config import EngineOptions, Sampling
from katsuo.engines import EngineSettings, open_engine
from katsuo.errors import EngineError, KatsuoWarning
from katsuo.records import Passage, Prompt, Reason, Reject
from katsuo.store import Run

WORDS = ("harbour", "bridge", "orchard", "ferry", "council", "winter", "bread", "choir", "copper", "lantern", "river")
GREEDY = Sampling(temperature=0, max_new_tokens=8)


def prompts(count: int) -> list[Prompt]:
    passage = Passage("p", "", "f", 0, 0)
    return [Prompt(f"{number}", passage, "qa", 0, number, text=f"Letter {number}: ") for number in range(count)]


def write_documents(folder: Path, count: int) -> Path:
    folder.mkdir()
    draw = random.Random(1)
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=14)).capitalize()
        (folder / f"{number:02d}.txt").write_text(f"{text} in {1900 + number}.")
    return folder


def run_over(documents: Path, address: str, output: Path, **settings) -> Run:
    """Ask a task type whose grammar leaves a tiny random model little to get wrong."""
    chosen = {"shard_size": 8, "sampling__temperature": 0, "sampling__max_new_tokens": 200, "codec": "instruct"}
    chosen |= {"engine_options__base_url": f"{address}/v1", "engine_options__timeout_s": 10.0, **settings}
    return generate(documents, "sentiment", output, engine="openai", **chosen)


def assert_ledger_adds_up(run: Run) -> None:
    summary = run.summary()
    assert summary.is_complete
    ended = [example.id for example in run.examples()]
    ended += [reject.id for reject in run.rejects() if reject.kind == "prompt"]
    assert len(ended) == len(set(ended)) == summary.prompts


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_is_made_again_and_its_answer_is_the_same(chaos: ChaosProxy, fault: str):
    options = EngineOptions(base_url=f"{chaos.address}/v1", timeout_s=3, retries=6)
    engine = open_engine("openai", EngineSettings("smollm2-135m-instruct", options=options))
    clean = engine.generate(prompts(6), GREEDY)
    chaos.draw = first_requests_fail(fault, 3)
    began = time.monotonic()
    assert engine.generate(prompts(6), GREEDY) == clean
    assert time.monotonic() - began < 60, "a reply that drips takes two minutes when it is not cut short"
    assert chaos.faults == {fault: 3}


def test_when_the_server_says_when_to_come_back_nobody_asks_before(chaos: ChaosProxy):
    options = EngineOptions(base_url=f"{chaos.address}/v1", timeout_s=20, batch_size=1)
    engine = open_engine("openai", EngineSettings("smollm2-135m-instruct", options=options))
    engine.generate(prompts(1), GREEDY)
    chaos.draw = first_requests_fail("429 and when to come back", 1)
    chaos.asked.clear()
    engine.generate(prompts(6), GREEDY)
    first, *others = [when for when, _, _ in chaos.asked]
    assert len(others) == 6
    assert min(others) - first >= 1.0


def test_a_run_with_a_fifth_of_all_requests_failing_keeps_the_same_examples(
    llama_server: RunningServer, chaos: ChaosProxy, tmp_path: Path
):
    documents = write_documents(tmp_path / "documents", 20)
    clean = run_over(documents, llama_server.address, tmp_path / "clean")
    chaos.draw = a_share_fails(0.2, seed=5)
    run = run_over(documents, chaos.address, tmp_path / "chaos", engine_options__timeout_s=4.0)
    assert set(chaos.faults) == set(FAULTS)
    assert_ledger_adds_up(run)
    assert clean.summary().kept == 20
    assert list(run.examples()) == list(clean.examples())


def test_what_a_server_did_not_take_stays_told_when_nothing_is_left_to_ask(chaos: ChaosProxy, tmp_path: Path):
    documents = write_documents(tmp_path / "documents", 2)
    chaos.dropped_fields = ("grammar",)
    with pytest.warns(KatsuoWarning, match="takes no grammar"):
        run_over(documents, chaos.address, tmp_path / "run")
    again = run_over(documents, chaos.address, tmp_path / "run")
    assert again.manifest["model"]["not_taken"] == ["grammar"]


def test_prompts_that_alone_fail_are_rejected_and_the_run_goes_on(chaos: ChaosProxy, tmp_path: Path):
    documents = write_documents(tmp_path / "documents", 6)
    chaos.draw = lambda path, body: "500" if "in 1903" in body and path.endswith("completions") else ""
    run = run_over(documents, chaos.address, tmp_path / "run", engine_options__retries=1)
    assert_ledger_adds_up(run)
    (reject,) = [reject for reject in run.rejects() if reject.reason is Reason.ENGINE_ERROR]
    assert "03.txt" in reject.source
    assert "status 500" in reject.detail


def engine_errors(run: Run) -> list[Reject]:
    return [reject for reject in run.rejects() if reject.reason is Reason.ENGINE_ERROR]


@pytest.mark.parametrize("fault", ["302", "404"])
def test_prompts_that_alone_are_refused_are_rejected_and_the_run_goes_on(chaos: ChaosProxy, tmp_path: Path, fault: str):
    documents = write_documents(tmp_path / "documents", 8)

    def refuses_two(path: str, body: str) -> str:
        return fault if path.endswith("completions") and ("in 1903" in body or "in 1904" in body) else ""

    chaos.draw = refuses_two
    run = run_over(documents, chaos.address, tmp_path / "run")
    assert_ledger_adds_up(run)
    assert {Path(reject.source).name for reject in engine_errors(run)} == {"03.txt", "04.txt"}
    assert all(REFUSALS[fault][-20:-5] in reject.detail for reject in engine_errors(run))
    assert run.summary().kept == 6


@pytest.mark.parametrize(
    ("fault", "told"), [("302", "302.*login"), ("402", "credit is used up"), ("404", "no model of this name")]
)
def test_a_server_that_begins_to_refuse_everything_stops_the_run_and_the_same_command_goes_on(
    chaos: ChaosProxy, tmp_path: Path, fault: str, told: str
):
    documents = write_documents(tmp_path / "documents", 12)
    clean = run_over(documents, chaos.address, tmp_path / "clean", cache=False, shard_size=4)
    # Three requests open the way, and each prompt is two: this is in the second shard.
    begins = len(chaos.completions_asked()) + 3 + 8 + 3
    chaos.draw = lambda path, body: fault if len(chaos.completions_asked()) > begins else ""
    with pytest.raises(EngineError, match=told) as caught:
        run_over(documents, chaos.address, tmp_path / "run", shard_size=4)
    assert "the same command then goes on" in caught.value.hint
    assert Run(tmp_path / "run").done_shards() == [0]
    assert not engine_errors(Run(tmp_path / "run"))
    chaos.draw = lambda path, body: ""
    run = run_over(documents, chaos.address, tmp_path / "run", shard_size=4)
    assert_ledger_adds_up(run)
    assert list(run.examples()) == list(clean.examples())


def test_credit_that_lasts_for_a_harmless_question_alone_is_used_up(chaos: ChaosProxy, tmp_path: Path):
    documents = write_documents(tmp_path / "documents", 4)
    chaos.draw = lambda path, body: "402" if "in 190" in body and path.endswith("completions") else ""
    with pytest.raises(EngineError, match="credit is used up"):
        run_over(documents, chaos.address, tmp_path / "run")


def test_an_overlong_prompt_is_rejected_alone(llama_server: RunningServer, tmp_path: Path):
    documents = write_documents(tmp_path / "documents", 4)
    (documents / "long.txt").write_text("The ledger of the mill. " * 280)
    # The recipe claims more room than the server has, so that the passage is not cut down to size beforehand.
    long = {"chunk__size": 16000, "engine_options__context_tokens": 20000}
    run = run_over(documents, llama_server.address, tmp_path / "run", **long)
    assert_ledger_adds_up(run)
    assert [Path(r.source).name for r in run.rejects() if r.reason is Reason.TOO_LONG] == ["long.txt"]
    assert run.summary().kept == 4


def test_a_server_that_dies_for_good_stops_the_run_and_the_same_command_goes_on(tiny_gguf: Path, tmp_path: Path):
    documents = write_documents(tmp_path / "documents", 8)
    server = start_llama(tiny_gguf, tmp_path / "first.txt")
    chaos = ChaosProxy(server.address)
    try:
        clean = run_over(documents, chaos.address, tmp_path / "clean", cache=False, shard_size=4)
        before = len(chaos.completions_asked())

        def dies_in_the_second_shard(path: str, body: str) -> str:
            # Four prompts of two requests each are the first shard, and three requests open the way.
            if len(chaos.completions_asked()) > before + 3 + 8 + 6:
                server.kill()
            return ""

        chaos.draw = dies_in_the_second_shard
        command = _command(documents, chaos.address, tmp_path / "run")
        died = subprocess.run(command, capture_output=True, text=True, env=_environment(tmp_path))
        assert died.returncode == 1, died.stderr
        assert "does not answer" in died.stderr
        assert "the same command then goes on" in died.stderr
        assert "Traceback" not in died.stderr
        assert Run(tmp_path / "run").done_shards() == [0]

        server = start_llama(tiny_gguf, tmp_path / "second.txt")
        chaos.draw, chaos.target = (lambda path, body: ""), ChaosProxy.place_of(server.address)
        asked_before = len(chaos.completions_asked())
        went_on = subprocess.run(command, capture_output=True, text=True, env=_environment(tmp_path))
        assert went_on.returncode == 0, went_on.stderr
        assert_ledger_adds_up(Run(tmp_path / "run"))
        assert list(Run(tmp_path / "run").examples()) == list(clean.examples())
        asked_again = len(chaos.completions_asked()) - asked_before
        # Three prompts of the second shard had been answered: the fourth is asked again, and nothing else.
        assert asked_again == 3 + 2
    finally:
        chaos.close()
        server.kill()


def _command(documents: Path, address: str, output: Path) -> list[str]:
    settings = ["codec=instruct", "shard_size=4", "sampling.temperature=0", "sampling.max_new_tokens=200"]
    settings += ["engine_options.retries=2", "engine_options.timeout_s=10", "engine_options.batch_size=1"]
    command = [sys.executable, "-m", "katsuo", "generate", str(documents), "--task", "sentiment", "--quiet"]
    command += ["--engine", "openai", "--base-url", f"{address}/v1", "-o", str(output)]
    return command + [part for setting in settings for part in ("--set", setting)]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "KATSUO_CACHE": str(folder / "cache")}
