"""Who may ask now: at most as many at once as the width says, and nobody while the server wants to be left alone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from katsuo.engines.openai_server.width import Width

LONGEST_PAUSE_S = 300.0


class Gate:
    """Let prompts through, in the order in which they came; used from one event loop."""

    def __init__(self, width: Width) -> None:
        self.width = width
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed_until = 0.0

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so long, five minutes at most."""
        self._closed_until = max(self._closed_until, time.monotonic() + min(seconds, LONGEST_PAUSE_S))

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[Place]:
        """Wait for a place, and hold it until the end or until it is given up."""
        place = Place(self)
        try:
            await place.take()
            yield place
        finally:
            place.give_up()

    async def _enter(self) -> None:
        if self._under_way < self.width.limit and not self._waiting:
            self._under_way += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # its turn had come when it went away
            raise

    def _leave(self) -> None:
        self._under_way -= 1
        while self._waiting and self._under_way < self.width.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)

    async def _opened(self) -> None:
        while (closed_s := self._closed_until - time.monotonic()) > 0:
            await asyncio.sleep(closed_s)


class Place:
    """One prompt's place behind the gate, held or given up."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._is_held = False

    async def take(self) -> None:
        """Wait for a place, and until the server may be asked."""
        await self._gate._enter()
        self._is_held = True
        await self._gate._opened()

    def give_up(self) -> None:
        """Let somebody else have the place."""
        if self._is_held:
            self._is_held = False
            self._gate._leave()

    async def step_aside(self, seconds: float) -> None:
        """Let others go first for so long, then wait for a place again."""
        self.give_up()
        await asyncio.sleep(seconds)
        await self.take()
