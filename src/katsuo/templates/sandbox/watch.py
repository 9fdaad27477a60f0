"""End a piece of Python that runs too long, in any thread and on any system."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class OverTimeError(Exception):
    """A call took longer than it may."""


class _Stop(BaseException):
    """Thrown into the watched thread; a `BaseException`, so that no `except Exception` on the way keeps it."""


class Watch:
    """
    Run calls of the thread that made it, one at a time, and end one that takes longer than `limit_s` seconds.

    A second thread looks a few times per second and throws into the watched thread, which stops loops written in
    Python. With `hard_limit_s`, the whole process ends when one step in C keeps the interpreter that long (a huge
    power, say): only for a worker process whose parent goes on without it.
    """

    def __init__(self, limit_s: float, *, hard_limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._hard_limit_s = hard_limit_s
        self._thread_id = threading.get_ident()
        self._deadline: float | None = None
        self._lock = threading.Lock()
        self._is_open = True
        self._fired = False
        self._devnull = open(os.devnull, "w")  # noqa: PTH123, SIM115  closed in close()
        self._thread = threading.Thread(target=self._look, daemon=True, name="katsuo-watch")
        self._thread.start()

    def run(self, call: Callable[..., T], *arguments: object) -> T:
        """Give what `call` gives; raise `OverTimeError` when it had to be ended."""
        try:
            self._deadline = time.monotonic() + self.limit_s
            try:
                return call(*arguments)
            finally:
                self._settle()
        except _Stop:
            self._settle()
            raise OverTimeError(f"longer than {self.limit_s:g} s") from None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the second thread."""
        self._is_open = False
        self._thread.join()
        if self._hard_limit_s:
            faulthandler.cancel_dump_traceback_later()
        self._devnull.close()

    def _settle(self) -> None:
        with self._lock:  # after this block the second thread does not throw any more
            self._deadline = None
            if self._fired:
                self._fired = False
                _raise_in_thread(ctypes.c_ulong(self._thread_id), None)  # take back what has not arrived yet

    def _look(self) -> None:
        pause = min(0.25, self.limit_s / 4)
        while self._is_open:
            if self._hard_limit_s:  # wound up again at each look; runs down when C code holds the interpreter
                faulthandler.dump_traceback_later(self._hard_limit_s, exit=True, file=self._devnull)
            with self._lock:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._fired = True
                    _raise_in_thread(ctypes.c_ulong(self._thread_id), ctypes.py_object(_Stop))
            time.sleep(pause)
