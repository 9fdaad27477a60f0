"""An event loop in a thread of its own, so that an engine is synchronous outside whatever runs around it."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
_AtEnd = list[Callable[[], Coroutine[Any, Any, None]]]


class Background:
    """Run coroutines in one event loop until this is closed or let go; no process waits for it at its end."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="katsuo-openai", daemon=True)
        self._thread.start()
        self._at_end: _AtEnd = []
        self.close = weakref.finalize(self, _close, self._loop, self._thread, self._at_end)
        """Run what was to be run at the end, and stop; a second time does nothing."""

    def at_end(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine before the loop is stopped."""
        self._at_end.append(start)

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and give its result; an interrupt cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        finally:
            future.cancel()


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, at_end: _AtEnd) -> None:
    for start in at_end:
        asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=5)
    loop.close()
