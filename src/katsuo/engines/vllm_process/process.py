"""A server in a process of its own: started, waited for, watched, and ended with whoever started it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from katsuo.errors import EngineError

_GRACE_S = 15.0
_LINES = 4
_LONGEST_LINE = 400
_LONGEST_PLACE = 44
"""Bytes of the temporary directory's path: with our folder and a name of 36 characters a socket's may have 103."""
_CAUSE = re.compile(r"\b\w*(Error|Exception)\b: |died unexpectedly")
_FOLLOWS = re.compile(r"Engine core initialization failed|EngineDeadError|RuntimeError: cancelled")
"""What the other processes say when one of them has failed."""
_HEAD = re.compile(r"^\([\w-]+ pid=\d+\)\s*")
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\]\s*")
_HARMLESS = ("DEBUG", "INFO", "WARNING")


class ServerProcess:
    """
    Start `command` with its output in a log, in a folder that nobody else may read.

    It ends when this is closed or let go, when this process ends, and, since its standard input then ends, also when
    this process is killed.
    """

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str], *, hint: str) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self._hint = hint
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt is ours to pass on, and its own processes end with it
            )
        self.close = weakref.finalize(self, _end, self._process, folder)
        """End the server and all its processes, and drop its log unless it ended by itself; again does nothing."""

    @property
    def pid(self) -> int:
        """The process's id, which is also that of its group."""
        return self._process.pid

    def check(self) -> None:
        """Raise `EngineError` with its last words when the server has ended by itself."""
        status = self._process.poll()
        if status is None:
            return
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise EngineError(
            f"the process of vLLM {how}: {self.last_words()}",
            hint=f"{self._hint} (its whole output: {self.log})",
        )

    def last_words(self) -> str:
        """Give the lines of the log that name an error, else its last ones that are no mere news."""
        lines = [line for line in (_HEAD.sub("", line).strip() for line in self._read_log()) if line]
        severe = [_LEVEL.sub("", line) for line in lines if not line.startswith(_HARMLESS)]
        causes = dict.fromkeys(line for line in severe if _CAUSE.search(line) and not _FOLLOWS.search(line))
        quoted = list(causes)[:2] or severe[-_LINES:]
        return " / ".join(line[:_LONGEST_LINE] for line in quoted) or "it told of no error"

    def _read_log(self) -> list[str]:
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            return [f"its log cannot be read: {error}"]


def make_folder() -> Path:
    """Make a folder that nobody else may read, at a path short enough for the names of sockets in it."""
    usual = tempfile.gettempdir()
    place = usual if len(os.fsencode(usual)) <= _LONGEST_PLACE else "/tmp"  # noqa: S108
    try:
        return Path(tempfile.mkdtemp(prefix="katsuo-vllm-", dir=place))
    except OSError as error:
        raise EngineError(
            f'no folder can be made in "{place}" for the sockets of vLLM: {error.strerror}',
            hint=f"set TMPDIR to a folder that can be written to, with a path of at most {_LONGEST_PLACE} characters",
        ) from error


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    ended_by_itself = process.poll() is not None
    if not ended_by_itself:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    with suppress(ProcessLookupError):  # nobody of its group is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    if not ended_by_itself:
        shutil.rmtree(folder, ignore_errors=True)
