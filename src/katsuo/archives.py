"""One file of a distribution from the user's own package index: checked, kept, never installed, never run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, BinaryIO

from katsuo.config import cache_dir
from katsuo.errors import SourceError

# pip alone knows its defaults, its files, its variables and which of them wins, so pip is asked rather than imitated.
_ASK_PIP = """
import json
from pip._internal.commands import create_command
options, _ = create_command("download").parse_args([])
try:
    from pip._vendor import certifi
    authorities = certifi.where()
except ImportError:
    authorities = None
print(json.dumps({
    "index_urls": [] if options.no_index else [options.index_url, *options.extra_index_urls],
    "find_links": options.find_links, "certificate": options.cert, "authorities": authorities,
    "proxy": options.proxy, "timeout_s": options.timeout,
}))
"""
_SIMPLE = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class PackageIndex:
    """Where packages come from on this machine, as pip is configured."""

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    certificate: str | None = None
    authorities: str | None = None
    proxy: str | None = None
    timeout_s: float = 60.0


def fetch_archive(distribution: str, version: str, *, filename: str, sha256: str) -> Path:
    """
    Give the path of one wheel or source archive, fetched from the configured package index if it is not in the cache.

    Nothing of it is installed, built or run, and no dependency is asked for. The file is checked against `sha256`,
    also when it was already there (it may have been put there by hand). Raise `SourceError` when it cannot be had.
    """
    kept = cache_dir() / "archives" / filename
    by_hand = f'run again with the network, or put the file at "{kept}" yourself (sha256 {sha256})'
    if kept.exists():
        _check(kept, sha256, hint=f'delete "{kept}" and run again with the network')
        return kept
    index = configured_index(hint=by_hand)
    failures: list[str] = []
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for place in _places(index, distribution, filename, failures):
            _download(place, kept, sha256, index, hint=by_hand)
            return kept
    except OSError as error:
        raise SourceError(f'cannot fetch "{filename}": {error}', hint=by_hand) from error
    tried = "; ".join(failures) or "no index is configured"
    raise SourceError(f'cannot find "{filename}" ({distribution} {version}): {tried}', hint=by_hand)


def configured_index(*, hint: str = "install pip or uv") -> PackageIndex:
    """Ask pip (of this environment, on PATH, or brought by uv) where packages come from; variables of uv go first."""
    first = [os.environ[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if os.environ.get(name)]
    first += os.environ.get("UV_EXTRA_INDEX_URL", "").split()
    problems: list[str] = []
    for command, environment in _ways_to_ask_pip():
        asked = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if asked.returncode == 0:
            told: dict[str, Any] = json.loads(asked.stdout.strip().splitlines()[-1])
            urls = (*first, *told.pop("index_urls"))
            return PackageIndex(urls, tuple(told.pop("find_links")), **told)
        problems.append(asked.stderr.strip()[-200:])
    if first:
        return PackageIndex(tuple(first))
    raise SourceError(f"neither pip nor uv answers, so the package index is not known {problems}", hint=hint)


def _ways_to_ask_pip() -> Iterator[tuple[list[str], dict[str, str]]]:
    environment = dict(os.environ)
    yield [sys.executable, "-c", _ASK_PIP], environment
    if pip := shutil.which("pip") or shutil.which("pip3"):
        about = subprocess.run([pip, "--version"], capture_output=True, text=True, check=False).stdout
        if found := re.search(r" from (.+?)[/\\]pip ", about):
            # pip is pure Python: this interpreter can run it from where it lies.
            yield [sys.executable, "-c", _ASK_PIP], {**environment, "PYTHONPATH": found[1]}
    if uv := shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent)):
        yield [uv, "run", "--quiet", "--no-project", "--with", "pip", "python", "-c", _ASK_PIP], environment


def _places(index: PackageIndex, distribution: str, filename: str, failures: list[str]) -> Iterator[str]:
    """Yield the addresses at which an index or a find-links folder offers `filename`."""
    project = re.sub(r"[-_.]+", "-", distribution).lower()
    for folder in index.find_links:
        if (Path(folder) / filename).is_file():
            yield (Path(folder) / filename).resolve().as_uri()
    pages = [folder for folder in index.find_links if "://" in folder]
    for page in [*pages, *(f"{url.rstrip('/')}/{project}/" for url in index.index_urls)]:
        host = urllib.parse.urlsplit(page).hostname or "file"
        try:
            links = _links(page, index)
        except (OSError, ValueError) as error:
            failures.append(f"{host}: {error}")
            continue
        if filename in links:
            yield links[filename]
        else:
            failures.append(f"{host}: does not offer it")


def _links(page: str, index: PackageIndex) -> dict[str, str]:
    """Read one project page of the simple API, JSON or HTML: file name → address."""
    with _open(page, index) as answer:
        body, kind = answer.read(), answer.headers.get_content_type()
        base = answer.geturl()
    if kind.endswith("json"):
        return {file["filename"]: urllib.parse.urljoin(base, file["url"]) for file in json.loads(body)["files"]}
    anchors = _Anchors()
    anchors.feed(body.decode("utf-8", "replace"))
    addresses = [urllib.parse.urljoin(base, href).partition("#")[0] for href in anchors.hrefs]
    return {urllib.parse.unquote(address.rpartition("/")[2]): address for address in addresses}


class _Anchors(HTMLParser):
    """Collect where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _open(url: str, index: PackageIndex) -> Any:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"https", "http", "file"}:
        raise ValueError(f'cannot read "{parts.scheme}" addresses')
    headers = {"Accept": _SIMPLE, "User-Agent": "katsuo"}
    if parts.username:  # urllib does not send the user of an address by itself
        user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme == "file" and url.endswith("/"):
        url += "index.html"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  the scheme is checked above
    return _opener(index).open(request, timeout=index.timeout_s)


def _opener(index: PackageIndex) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=index.certificate)
    if index.authorities and not index.certificate and not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(index.authorities)  # a Python without the system's certificates
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if index.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": index.proxy, "https": index.proxy}))
    return urllib.request.build_opener(*handlers)


def _download(url: str, kept: Path, sha256: str, index: PackageIndex, *, hint: str) -> None:
    """Write to a file beside `kept`, check it, then rename: a half or wrong file never bears the name."""
    handle, part = tempfile.mkstemp(prefix=f".{kept.name}.", dir=kept.parent)
    try:
        with os.fdopen(handle, "wb") as file, _open(url, index) as answer:
            shutil.copyfileobj(answer, file, _BLOCK)
        _check(Path(part), sha256, hint=hint)
        Path(part).replace(kept)
    finally:
        Path(part).unlink(missing_ok=True)


def _check(path: Path, sha256: str, *, hint: str) -> None:
    with path.open("rb") as file:
        found = _digest(file)
    if found != sha256:
        raise SourceError(f'"{path.name}" has sha256 {found}, not {sha256} as expected', hint=hint)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
