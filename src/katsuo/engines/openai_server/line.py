"""One request, one outcome: what a server said, or what kept it from saying anything, in katsuo's own words."""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from katsuo.errors import RecipeError

_DENIES = (401, 403)
_WANTS_MONEY = 402
_PUSHES_BACK = (408, 409, 425, 429)
_IS_BUSY = (429, 503)
_LONGEST_QUOTE = 300
_HIDDEN = "[key]"
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=64)


@dataclass(frozen=True)
class Reply:
    """The server answered, with a JSON object; `quote` gives any part of it as people and files may have it."""

    body: Mapping[str, Any]
    quote: Callable[[object], str]


@dataclass(frozen=True)
class Refusal:
    """The server will not answer this request as it is; `code` is its own word for why, if it has one."""

    status: int
    code: str
    words: str

    @property
    def is_denial(self) -> bool:
        """True where the server does not let this key do what was asked."""
        return self.status in _DENIES

    @property
    def is_for_all(self) -> bool:
        """True where it is no prompt's fault: the credit is used up, if only for answers as long as those asked for."""
        return self.status == _WANTS_MONEY


@dataclass(frozen=True)
class Trouble:
    """
    The request may be answered if it is made again; `wait_s` is how long the server asks to be left alone.

    `is_busy` is true where the server says that it is asked too much, which tells of all requests and not of this one.
    """

    words: str
    wait_s: float | None = None
    is_push_back: bool = False
    is_busy: bool = False
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
        is_here = _is_this_machine(parts.hostname)
        if key and parts.scheme == "http" and not is_here:
            raise RecipeError(
                f'a key would go to "{parts.hostname}" in the clear',
                hint="use https, or unset KATSUO_API_KEY and OPENAI_API_KEY for a server that needs no key",
            )
        self.address = address.rstrip("/")
        self.timeout_s = timeout_s
        # As it is, and as JSON and Python write it within quotes.
        forms = [form for written in (json.dumps(key), repr(key)) for form in (written, written.replace("/", "\\/"))]
        self._key_forms = sorted({key, *(form[1:-1] for form in forms)}, key=len, reverse=True) if key else []
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
        told, is_json = _parsed(response)
        if status in _PUSHES_BACK or status >= 500:
            words = f"status {status}: {self._quote(told)}"
            wait_s = _retry_after(response.headers.get("retry-after"))
            return Trouble(words, wait_s, is_push_back=True, is_busy=status in _IS_BUSY)
        if status >= 300:
            return Refusal(status, *self._explanation(told))
        if not is_json:
            kind = response.headers.get("content-type", "of no type")
            return Trouble(f"what came ({kind}) is not whole JSON: {self._quote(told)}")
        if not isinstance(told, dict) or told.get("error"):  # gateways tell of errors behind them with status 200
            return Trouble(f"no answer came: {self._quote(told)}")
        return Reply(told, self._quote)

    def _explanation(self, told: object) -> tuple[str, str]:
        """Give the server's word for a refusal and its sentence; servers differ in where they put them."""
        error = told.get("error", told) if isinstance(told, dict) else None
        if not isinstance(error, dict):
            return "", self._quote(told)
        code = " ".join(str(error.get(name) or "") for name in ("type", "code", "param"))
        return code, self._quote(error.get("message") or error.get("detail") or told)

    def _quote(self, told: object) -> str:
        text = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
        return " ".join(self._hide(text).split())[:_LONGEST_QUOTE] or "(nothing)"

    def _hide(self, text: str) -> str:
        for form in self._key_forms:
            text = text.replace(form, _HIDDEN)
        return text


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name may be anybody's, however it begins


def _parsed(response: httpx2.Response) -> tuple[Any, bool]:
    """Give what came, as JSON or else as text, and whether it was JSON."""
    try:
        return json.loads(response.content), True
    except (ValueError, RecursionError):
        return response.text, False


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
