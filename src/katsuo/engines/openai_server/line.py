"""One request, one outcome: what a server said, or what kept it from saying anything, in katsuo's own words."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from katsuo.errors import EngineError, RecipeError

_PUSHES_BACK = (408, 409, 425, 429)
_LONGEST_QUOTE = 300
_HIDDEN = "[key]"
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=64)


@dataclass(frozen=True)
class Reply:
    """The server answered, with a JSON object."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """The server will not answer this request, now or later; `code` is its own word for why, if it has one."""

    status: int
    code: str
    words: str


@dataclass(frozen=True)
class Trouble:
    """The request may be answered if it is made again; `wait_s` is how long the server asks to be left alone."""

    words: str
    wait_s: float | None = None
    is_push_back: bool = False
    ran_out_of_time: bool = False


Outcome = Reply | Refusal | Trouble


class Line:
    """
    The way to one server. It is used from one event loop, follows no redirect, and keeps the key to itself.

    `address` is where the protocol begins, as a rule ending in `/v1`. Raise `RecipeError` for one that would put a key
    into a file or send it in the clear.

    A server on this machine may listen at a `socket` of the file system. `on_trouble` is called when a request was not
    answered, and may raise where there is no hope that the next one is.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None,
        timeout_s: float,
        socket: Path | None = None,
        on_trouble: Callable[[], None] = lambda: None,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RecipeError(
                f'the base URL "{address}" is no address of a server',
                hint="give it whole, such as `--base-url http://127.0.0.1:8080/v1`",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise RecipeError(
                f'the base URL of "{parts.hostname}" holds more than an address',
                hint="leave out what stands before @ or after ?; a key goes into KATSUO_API_KEY",
            )
        is_here = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        if key and parts.scheme == "http" and not is_here:
            raise RecipeError(
                f'a key would go to "{parts.hostname}" in the clear',
                hint="use https, or unset KATSUO_API_KEY and OPENAI_API_KEY for a server that needs no key",
            )
        self.address = address.rstrip("/")
        self.timeout_s = timeout_s
        self._key = key
        self._on_trouble = on_trouble
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s),
            limits=_LIMITS,
            transport=httpx2.AsyncHTTPTransport(uds=str(socket), limits=_LIMITS) if socket else None,
            trust_env=not is_here,  # a proxy is for far servers; texts for this machine do not leave it
        )

    @property
    def root(self) -> str:
        """The address without the protocol's version, where some servers keep what is not of the protocol."""
        return self.address.removesuffix("/v1")

    async def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Outcome:
        """Send `body` as JSON, or ask for what lies at `url`; give what comes of it, within the time limit."""
        outcome = await self._ask(url, body)
        if isinstance(outcome, Trouble):
            self._on_trouble()
        return outcome

    async def _ask(self, url: str, body: Mapping[str, Any] | None) -> Outcome:
        method = "GET" if body is None else "POST"
        request = self._client.build_request(method, url, json=body)
        try:
            # The client's own time limits are per piece that arrives: a server that drips would never reach them.
            response = await asyncio.wait_for(self._client.send(request), self.timeout_s)
        except (asyncio.TimeoutError, httpx2.TimeoutException):
            return Trouble(f"no answer within {self.timeout_s:g} s", is_push_back=True, ran_out_of_time=True)
        except httpx2.HTTPError as error:
            return Trouble(self._hide(f"the connection broke: {error or type(error).__name__}"))
        return self._read(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _read(self, response: httpx2.Response) -> Outcome:
        status = response.status_code
        if status in (401, 403):
            raise EngineError(
                f'the server at "{self.address}" refuses the key ({status}): {self._quote(response)}',
                hint="set KATSUO_API_KEY (or OPENAI_API_KEY) to a key that it takes",
            )
        if status in _PUSHES_BACK or status >= 500:
            words = f"status {status}: {self._quote(response)}"
            return Trouble(words, wait_s=_retry_after(response.headers.get("retry-after")), is_push_back=True)
        if status >= 300:
            return Refusal(status, *self._explanation(response))
        return self._parsed(response)

    def _parsed(self, response: httpx2.Response) -> Outcome:
        try:
            body = json.loads(response.content)
        except ValueError:
            kind = response.headers.get("content-type", "of no type")
            return Trouble(f"what came ({kind}) is not whole JSON: {self._quote(response)}")
        if not isinstance(body, dict) or body.get("error"):  # gateways tell of errors behind them with status 200
            return Trouble(f"no answer came: {self._quote(response)}")
        return Reply(body)

    def _explanation(self, response: httpx2.Response) -> tuple[str, str]:
        """Give the server's word for a refusal and its sentence; servers differ in where they put them."""
        try:
            body = json.loads(response.content)
        except ValueError:
            return "", self._quote(response)
        error = body.get("error", body) if isinstance(body, dict) else {}
        if not isinstance(error, dict):
            return "", self._quote(response)
        words = error.get("message") or error.get("detail")
        code = " ".join(str(error.get(name, "")) for name in ("type", "code"))
        return code, self._hide(str(words))[:_LONGEST_QUOTE] if words else self._quote(response)

    def _quote(self, response: httpx2.Response) -> str:
        text = " ".join(self._hide(response.text).split())
        return text[:_LONGEST_QUOTE] or "(nothing)"

    def _hide(self, text: str) -> str:
        return text.replace(self._key, _HIDDEN) if self._key else text


def _retry_after(value: str | None) -> float | None:
    """Read the header `Retry-After`: seconds, or a date; None where there is none or nobody could read it."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # a date, then
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
