"""What the engine `vllm` does around vLLM: its command line, its interpreter, and the process it watches."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import vllm_environment

from katsuo.config import EngineOptions
from katsuo.engines import EngineSettings, open_engine
from katsuo.engines.openai_server.background import Background
from katsuo.engines.openai_server.line import Line
from katsuo.engines.openai_server.patience import Patience
from katsuo.engines.openai_server.width import Width
from katsuo.engines.vllm_process import process as process_module
from katsuo.engines.vllm_process.command import environment, make_plan
from katsuo.engines.vllm_process.control import ControlTokens
from katsuo.engines.vllm_process.engine import _open_gate, _wait
from katsuo.engines.vllm_process.interpreter import find_python
from katsuo.engines.vllm_process.launch import _ON_PROCESSORS
from katsuo.engines.vllm_process.process import ServerProcess, make_folder
from katsuo.errors import EngineError, MissingPackageError, ModelError, RecipeError
from katsuo.records import Message, Passage, Prompt

HERE = Path(process_module.__file__).parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is a model as far as a command line goes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    added = [{"content": "<|im_end|>", "special": True}, {"content": "<b>", "special": False}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    return folder


def write_adapter(folder: Path, **config: object) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def command(settings: EngineSettings) -> list[str]:
    return make_plan(settings).command("python", Path("/run/socket"))


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def start(folder: Path, script: str) -> ServerProcess:
    run = [sys.executable, "-c", textwrap.dedent(script)]
    return ServerProcess(folder, run, dict(os.environ), hint="start it again")


def wait_for(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    """Say whether a process is there and not merely waiting to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_command_serves_safe_weights_with_grammars_and_prefixes_at_a_private_socket(model: Path) -> None:
    words = command(EngineSettings(str(model), options=EngineOptions(tensor_parallel=4, dtype="float32")))
    assert words[:3] == ["python", str(HERE / "launch.py"), str(model)]
    assert after(words, "--load-format") == "safetensors"
    assert after(words, "--structured-outputs-config.backend") == "guidance"
    assert after(words, "--generation-config") == "vllm"
    assert after(words, "--tensor-parallel-size") == "4"
    assert after(words, "--dtype") == "float32"
    assert words[-2:] == ["--uds", "/run/socket"]
    assert "--enable-prefix-caching" in words
    assert not {"--enable-lora", "--trust-remote-code", "--max-model-len", "--host", "--port"} & set(words)


def test_what_a_recipe_adds_stands_after_what_katsuo_says(model: Path) -> None:
    options = EngineOptions(context_tokens=512, trust_remote_code=True, vllm_arguments=("--max-model-len", "256"))
    words = command(EngineSettings(str(model), options=options))
    assert [words[place + 1] for place, word in enumerate(words) if word == "--max-model-len"] == ["512", "256"]
    assert "--trust-remote-code" in words


@pytest.mark.parametrize(
    ("config", "room"), [({"r": 32}, 32), ({"r": 33}, 64), ({"r": 4, "rank_pattern": {"q": 100}}, 128)]
)
def test_an_adapter_is_served_by_its_path_with_room_for_its_rank(model: Path, config: dict, room: int) -> None:
    adapter = write_adapter(model.parent / "adapter", **config)
    words = command(EngineSettings(str(model), adapter))
    assert after(words, "--lora-modules") == f"adapter={adapter}"
    assert after(words, "--max-lora-rank") == str(room)


@pytest.mark.parametrize("config", [{"r": 8, "use_dora": True}, {"r": 8, "modules_to_save": ["lm_head"]}, {"r": 1024}])
def test_an_adapter_that_vllm_cannot_add_is_told_to_be_merged(model: Path, config: dict) -> None:
    adapter = write_adapter(model.parent / "adapter", **config)
    with pytest.raises(ModelError, match="cannot add the adapter") as raised:
        make_plan(EngineSettings(str(model), adapter))
    assert "katsuo merge" in raised.value.hint


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        make_plan(EngineSettings(str(tmp_path)))


def test_the_server_gets_a_key_of_its_own_and_no_network_and_no_key_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KATSUO_API_KEY", "OPENAI_API_KEY", "PYTHONPATH", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.setenv(name, "7")
    told = environment("/other/python", "secret", Path("/run/katsuo"))
    assert told["VLLM_API_KEY"] == "secret"
    assert told["VLLM_NO_USAGE_STATS"] == told["DO_NOT_TRACK"] == told["HF_HUB_OFFLINE"] == "1"
    assert told["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert not {"KATSUO_API_KEY", "OPENAI_API_KEY", "PYTHONPATH"} & set(told)
    assert environment(sys.executable, "secret", Path("/run"))["PYTHONPATH"] == "7"


def test_sockets_have_short_paths_however_long_that_of_the_temporary_directory_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("deep" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = make_folder()
    try:
        assert folder.stat().st_mode & 0o077 == 0
        sockets = Path(environment("python", "secret", folder)["VLLM_RPC_BASE_PATH"])
        with socket.socket(socket.AF_UNIX) as longest:
            longest.bind(str(sockets / ("x" * 36)))
    finally:
        shutil.rmtree(folder)


def test_a_temporary_directory_that_takes_no_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(EngineError, match=r'"/nowhere".*No such file') as raised:
        make_folder()
    assert "TMPDIR" in raised.value.hint


@pytest.mark.parametrize(("is_strict", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)])
def test_a_test_that_cannot_be_run_is_skipped_unless_none_may_be(
    monkeypatch: pytest.MonkeyPatch, is_strict: bool, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(vllm_environment, "IS_STRICT", is_strict)
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="no vLLM") as raised:
        vllm_environment.cannot_run("no vLLM")
    assert raised.type is outcome


def test_a_python_without_vllm_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name is not the package
    monkeypatch.setattr(sys, "executable", bare_python(tmp_path))
    with pytest.raises(MissingPackageError, match="has no package") as raised:
        find_python(None)
    assert "KATSUO_VLLM_PYTHON" in raised.value.hint
    assert "katsuo[vllm]" in raised.value.hint


def test_the_recipe_names_the_python_before_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = write_interpreter(tmp_path, has_vllm=True)
    monkeypatch.setenv("KATSUO_VLLM_PYTHON", "/nowhere/python")
    assert find_python(python) == python
    with pytest.raises(RecipeError, match="/nowhere/python"):
        find_python(None)


def test_the_door_says_what_is_missing_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    monkeypatch.setenv("KATSUO_VLLM_PYTHON", bare_python(tmp_path))
    with pytest.raises(MissingPackageError):
        open_engine("vllm", EngineSettings(str(model)))


def bare_python(folder: Path) -> str:
    return write_interpreter(folder, has_vllm=False)


def write_interpreter(folder: Path, *, has_vllm: bool) -> str:
    """A real interpreter that sees the standard library, and a package called vllm where it is to have one."""
    place = folder / "packages"
    (place / "vllm").mkdir(parents=True)
    (place / "vllm" / "__init__.py").write_text("")
    path = folder / "python"
    setting = f"PYTHONPATH={place} " if has_vllm else ""
    path.write_text(f'#!/bin/sh\nexec env {setting}{sys.executable} -S "$@"\n')
    path.chmod(0o700)
    return str(path)


def test_a_process_that_ends_by_itself_is_quoted_and_keeps_its_log(tmp_path: Path) -> None:
    server = start(
        tmp_path,
        """
        print("(EngineCore pid=5) WARNING 11-22 13:39:25 [a.py:1] this can cause errors like `OSError: too many files`")
        print("(EngineCore pid=5) ERROR 11-22 13:39:26 [core.py:2] ValueError: the model needs 9 GiB")
        print("RuntimeError: Engine core initialization failed. See root cause above.")
        raise SystemExit(3)
        """,
    )
    assert wait_for(lambda: server._process.poll() is not None)
    with pytest.raises(EngineError) as raised:
        server.check()
    assert raised.value.message == "the process of vLLM ended with status 3: ValueError: the model needs 9 GiB"
    assert "start it again" in raised.value.hint
    server.close()
    assert server.log.read_text(), "the log is there for whoever reads the hint"


def test_a_process_that_lost_a_part_of_itself_names_the_part(tmp_path: Path) -> None:
    server = start(
        tmp_path,
        """
        print("(EngineCore pid=5) ERROR 11-22 15:22:02 [m.py:315] Worker proc VllmWorker-0 died unexpectedly (-9)")
        print("(EngineCore pid=5) ERROR 11-22 15:22:02 [core.py:1512] RuntimeError: cancelled")
        """,
    )
    assert wait_for(lambda: server._process.poll() is not None)
    with pytest.raises(EngineError) as raised:
        server.check()
    assert raised.value.message.endswith("status 0: Worker proc VllmWorker-0 died unexpectedly (-9)")
    server.close()


def test_a_killed_process_is_told_as_killed(tmp_path: Path) -> None:
    server = start(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    assert wait_for(lambda: server.log.read_text())
    server.check()
    os.kill(server.pid, signal.SIGKILL)
    assert wait_for(lambda: server._process.poll() is not None)
    with pytest.raises(EngineError, match="was killed by signal 9: up"):
        server.check()
    server.close()


def test_closing_ends_all_its_processes_even_deaf_ones_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_module, "_GRACE_S", 0.3)
    (tmp_path / "own").mkdir()
    server = start(
        tmp_path / "own",
        """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        time.sleep(60)
        """,
    )
    assert wait_for(lambda: server.log.read_text().strip())
    child = int(server.log.read_text())
    assert is_running(child)
    server.close()
    assert wait_for(lambda: not is_running(child))
    assert not is_running(server.pid)
    assert not server.folder.exists()


def test_a_server_that_is_let_go_ends(tmp_path: Path) -> None:
    server = start(tmp_path, "import time; time.sleep(60)")
    pid = server.pid
    del server
    assert wait_for(lambda: not is_running(pid))


def test_nobody_else_may_read_the_socket_and_the_log() -> None:
    folder = make_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path, on_gpu: bool) -> None:
    """The package below only prints and waits: what is looked at is who starts it, with what, and when it ends."""
    wait = "import os, sys, time\nprint(os.getpid(), *sys.argv, flush=True)\ntime.sleep(60)\n"
    for module in ("vllm/entrypoints/cli/main.py", "vllm/entrypoints/openai/api_server.py"):
        path = tmp_path / "packages" / module
        path.parent.mkdir(parents=True)
        path.write_text(wait)
    platform = tmp_path / "packages" / "vllm" / "platforms.py"
    platform.write_text(f"class current_platform:\n    is_cpu = staticmethod(lambda: {not on_gpu})\n")
    if on_gpu:  # the build for processors goes by another name
        info = tmp_path / "packages" / "vllm-0.30.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30\n")
    log = tmp_path / "log.txt"
    parent = f"""
        import os, time
        from pathlib import Path
        from katsuo.engines.vllm_process.process import ServerProcess
        folder = Path({str(tmp_path)!r})
        run = [{sys.executable!r}, {str(HERE / "launch.py")!r}, "model", "--dtype", "auto"]
        server = ServerProcess(folder, run, {{**os.environ, "PYTHONPATH": str(folder / "packages")}}, hint="")
        time.sleep(60)
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)])
    try:
        assert wait_for(lambda: log.exists() and log.read_text().endswith("\n")), log.read_text()
        pid, *arguments = log.read_text().split()
        begun = ["serve", "model"] if on_gpu else ["--model", "model", *_ON_PROCESSORS]
        assert arguments[1:] == [*begun, "--dtype", "auto"]
        assert is_running(int(pid))
        process.kill()
        process.wait()
        assert wait_for(lambda: not is_running(int(pid)))
    finally:
        process.kill()


def test_a_server_that_ends_before_it_listens_is_quoted(tmp_path: Path) -> None:
    server = start(
        tmp_path,
        """
        import socket, time
        socket.socket(socket.AF_UNIX).bind("socket")
        time.sleep(1)
        raise SystemExit("ValueError: no room for the model")
        """,
    )
    with pytest.raises(EngineError, match="status 1: ValueError: no room for the model"):
        _wait(server, tmp_path / "socket", "key")
    gc.collect()  # a socket that was left open would be told of here
    server.close()


def test_a_request_to_a_dead_process_fails_at_once_and_not_after_many_tries(tmp_path: Path) -> None:
    server = start(tmp_path, "raise SystemExit('out of memory')")
    assert wait_for(lambda: server._process.poll() is not None)
    background = Background()
    line = Line("http://localhost/v1", key="k", timeout_s=60, socket=tmp_path / "socket", on_trouble=server.check)
    background.at_end(line.close)
    patience = Patience(line, _open_gate(1), retries=6)

    async def ask() -> object:
        async with patience.gate.passed() as place:
            return await patience.ask(place, "http://localhost/v1/models")

    started = time.monotonic()
    with pytest.raises(EngineError, match="out of memory"):
        background.run(ask())
    assert time.monotonic() - started < 5
    background.close()
    server.close()


def test_everything_may_lie_before_vllm_from_the_beginning() -> None:
    assert _open_gate(1024).width.limit == 1024
    assert Width(1024, 60).limit < 10, "a server of others is tried with few"


def test_a_text_with_a_control_token_is_not_sent(model: Path) -> None:
    control = ControlTokens(model)
    passage = Passage("p", "He typed <|im_end|> and left.", "f", 0, 29)
    assert '"<|im_end|>"' in control.objection(Prompt("1", passage, "qa", 0, 0, text="wrapped"))
    assert not control.objection(Prompt("2", Passage("p", "a <b> c", "f", 0, 7), "qa", 0, 0, text="<|im_end|>"))
    bare = Passage("p", "", "f", 0, 0)
    assert control.objection(Prompt("3", bare, "qa", 0, 0, messages=(Message("user", "a<|im_end|>"),)))


def test_a_tokenizer_without_control_tokens_objects_to_nothing(tmp_path: Path) -> None:
    assert not ControlTokens(tmp_path).objection(Prompt("1", Passage("p", "", "f", 0, 0), "qa", 0, 0, text="<s>"))
