"""A hub on this machine that takes one data set."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalHub(ThreadingHTTPServer):
    """The few addresses of a hub that a push needs; files that are committed stay in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.private: bool | None = None
        self.tokens: set[str] = set()
        self.refuse_commits = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: LocalHub

    def do_GET(self) -> None:
        siblings = [{"rfilename": name} for name in self.server.files]
        name = self.path.removeprefix("/api/datasets/").partition("?")[0].removesuffix("/revision/main")
        self._send(200, {"id": name, "private": self.server.private, "siblings": siblings})

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            if self.server.private is None:
                self.server.private = asked.get("private", asked.get("visibility") == "private")
            self._send(
                200, {"url": f"{self.server.address}/datasets/{asked.get('organization', 'me')}/{asked['name']}"}
            )
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})
        elif "/commit/" in self.path and not self.server.refuse_commits:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._send(200, {"commitUrl": f"{self.server.address}/datasets/me/bridges/commit/1", "commitOid": "1"})
        elif "/validate-yaml" in self.path:
            self._send(200, {"errors": [], "warnings": []})
        else:
            self._send(403, {"error": "this token cannot write"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
