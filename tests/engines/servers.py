"""Real servers in processes of their own: llama.cpp's, and that of transformers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

_DIGITS = {"type": "Digits", "individual_digits": True}
_PIECES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@dataclass
class RunningServer:
    """A server on loopback; `address` ends where its paths begin."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start_llama(gguf: Path, log: Path, *, key: str = "") -> RunningServer:
    """Start llama.cpp's server, one request at a time and nothing remembered, so that its words are always the same."""
    process = _start([sys.executable, __file__, str(gguf), key], log)
    return RunningServer(process, _wait_for(process, log, lambda: _address_in(log)))


def start_transformers(folder: Path, log: Path) -> RunningServer:
    """Start `transformers serve` with one model."""
    port = _free_port()
    command = Path(sys.executable).with_name("transformers")
    process = _start([str(command), "serve", str(folder), "--port", str(port), "--device", "cpu"], log)
    address = f"http://localhost:{port}"
    return RunningServer(process, _wait_for(process, log, lambda: address if _is_healthy(address) else ""))


def start_echo(folder: Path, log: Path) -> RunningServer:
    """Start the small server that gives prompt log-probabilities; see echo_server.py for what it is and is not."""
    process = _start([sys.executable, str(Path(__file__).with_name("echo_server.py")), str(folder)], log)
    return RunningServer(process, _wait_for(process, log, lambda: _address_in(log)))


def has_transformers_server() -> bool:
    return shutil.which("transformers", path=str(Path(sys.executable).parent)) is not None


def write_tiny_gguf(folder: Path, path: Path) -> Path:
    """Write a tiny model as GGUF, with digits that stand alone, as the one tokenizer that can be written has them."""
    from katsuo.models.gguf_files.checkpoint import FolderCheckpoint
    from katsuo.models.gguf_files.write import write_gguf

    copy = path.with_suffix("")
    shutil.copytree(folder, copy)
    _edit(copy / "config.json", max_position_embeddings=4096)
    _edit(copy / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": [_DIGITS, _PIECES]})
    write_gguf(FolderCheckpoint(copy), path, kind="f32")
    return path


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def _wait_for(process: subprocess.Popen[bytes], log: Path, find_address) -> str:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if address := find_address():
            return str(address)
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _address_in(log: Path) -> str:
    # The library's own log goes to the same file from another thread, and may put the time before the address.
    found = re.search(r"address=(http://\S+)\n", log.read_text(errors="replace"))
    return found[1] if found else ""


def _is_healthy(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/health", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve_llama(gguf: str, key: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 1
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if key:
        params.api_keys = [key]
    server = xllamacpp.Server(params)
    sys.stdout.write(f"address={server.listening_address}\n")
    sys.stdout.flush()
    parent = os.getppid()
    while os.getppid() == parent:  # nobody else ends it when the tests are killed
        time.sleep(1)


if __name__ == "__main__":
    _serve_llama(sys.argv[1], sys.argv[2])
