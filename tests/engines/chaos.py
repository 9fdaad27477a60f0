"""
A proxy that stands before a real server and fails in nine ways, one request at a time.

A few more are ways of servers that take less than others: one that refuses (such as "403"), "400 FIELD" for one that
refuses a field, and "echo" for one whose answer is what it was sent, headers included.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, urlsplit

FAULTS = (
    "429",
    "429 and when to come back",
    "500",
    "hang",
    "cut",
    "half a JSON",
    "wrong content type",
    "drip",
    "error as 200",
)
REFUSALS = {
    "302": '<a href="/login">Found</a>',
    "402": '{"error": {"message": "the credit is used up"}}',
    "403": '{"error": {"message": "this key may not do that"}}',
    "404": '{"error": {"message": "there is no model of this name"}}',
}
_COME_BACK_S = 1
_SECONDS_PER_BYTE = 0.3

Draw = Callable[[str, str], str]
"""From a request's path and body to a fault, or to nothing."""


class ChaosProxy:
    """Pass requests on to `target` unless `draw` names a fault; remember what was asked, when, and what befell it."""

    def __init__(self, target: str) -> None:
        self.target = self.place_of(target)
        self.draw: Draw = lambda path, body: ""
        self.dropped_fields: tuple[str, ...] = ()
        self.dropped_from_answers: tuple[str, ...] = ()
        self.is_dead = False
        self.faults: Counter[str] = Counter()
        self.asked: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        proxy = self

        class Handler(_Handler):
            chaos = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @staticmethod
    def place_of(address: str) -> SplitResult:
        """Give what `target` is set to when the server has moved."""
        return urlsplit(address)

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def completions_asked(self) -> list[str]:
        """The bodies that were sent to be completed, in order."""
        return [body for _, path, body in self.asked if path.endswith("completions")]

    def choose(self, path: str, body: str) -> str:
        with self._lock:
            self.asked.append((time.monotonic(), path, body))
            fault = "dead" if self.is_dead else self.draw(path, body)
            if fault:
                self.faults[fault] += 1
            return fault

    def wait(self, seconds: float) -> bool:
        """Sleep, and say whether the proxy was closed meanwhile."""
        return self._closed.wait(seconds)


def first_requests_fail(fault: str, count: int) -> Draw:
    """Let the first requests for a completion fail."""
    left = [count]

    def draw(path: str, body: str) -> str:
        if not path.endswith("completions") or not left[0]:
            return ""
        left[0] -= 1
        return fault

    return draw


def a_share_fails(share: float, seed: int) -> Draw:
    """Let a share of all requests fail in every way in turn; those that ask for no completion fail in quick ways."""
    chance, turn = random.Random(seed), [0]

    def draw(path: str, body: str) -> str:
        if chance.random() >= share:
            return ""
        turn[0] += 1
        fault = FAULTS[turn[0] % len(FAULTS)]
        return "500" if fault in ("hang", "drip") and not path.endswith("completions") else fault

    return draw


class _Handler(BaseHTTPRequestHandler):
    chaos: ChaosProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.chaos.choose(self.path, body.decode())
        try:
            if fault == "dead":
                self._hang_up()
            elif fault.startswith("429"):
                when = {"retry-after": str(_COME_BACK_S)} if "come back" in fault else {}
                self._send(429, b'{"error": {"message": "too many requests"}}', **when)
            elif fault == "500":
                self._send(500, f"oops, {self.headers.get('authorization', '')}".encode(), kind="text/plain")
            elif fault == "wrong content type":
                self._send(200, b"<html><body>Sign in to go on</body></html>", kind="text/html")
            elif fault == "error as 200":
                self._send(200, b'{"error": {"message": "the model behind me is busy"}}')
            elif fault.startswith("400") or fault in (*REFUSALS, "echo"):
                self._take_less(body, fault)
            elif fault == "hang":
                self.chaos.wait(60)
                self._hang_up()
            else:
                self._pass_on(method, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            self._hang_up()

    def _take_less(self, body: bytes, fault: str) -> None:
        if fault in REFUSALS:
            self._send(int(fault), REFUSALS[fault].encode())
        elif fault == "echo":
            self._send(200, json.dumps({"headers": dict(self.headers), "body": json.loads(body)}).encode())
        else:
            self._send(400, json.dumps({"detail": f"Unsupported parameter: '{fault[4:]}'"}).encode())

    def _pass_on(self, method: str, body: bytes, fault: str) -> None:
        if self.chaos.dropped_fields and body:
            fields = json.loads(body)
            body = json.dumps({k: v for k, v in fields.items() if k not in self.chaos.dropped_fields}).encode()
        connection = http.client.HTTPConnection(self.chaos.target.hostname, self.chaos.target.port)
        headers = {name: self.headers[name] for name in ("content-type", "authorization") if name in self.headers}
        try:
            connection.request(method, self.path, body, headers)
            response = connection.getresponse()
            status, kind, answer = response.status, response.getheader("content-type"), response.read()
        except OSError:
            self._hang_up()
            return
        finally:
            connection.close()
        if self.chaos.dropped_from_answers:
            told = json.loads(answer)
            answer = json.dumps({k: v for k, v in told.items() if k not in self.chaos.dropped_from_answers}).encode()
        if fault == "half a JSON":
            self._send(status, answer[: len(answer) // 2], kind=kind)
            return
        self._send_head(status, len(answer), kind)
        if fault == "cut":
            self.wfile.write(answer[: len(answer) // 2])
            self._hang_up()
        elif fault == "drip":
            for byte in answer:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.chaos.wait(_SECONDS_PER_BYTE):
                    break
            self._hang_up()
        else:
            self.wfile.write(answer)

    def _send(self, status: int, answer: bytes, *, kind: str | None = "application/json", **more: str) -> None:
        self._send_head(status, len(answer), kind, **more)
        self.wfile.write(answer)

    def _send_head(self, status: int, length: int, kind: str | None, **more: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind or "application/json")
        self.send_header("content-length", str(length))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()

    def _hang_up(self) -> None:
        self.close_connection = True
