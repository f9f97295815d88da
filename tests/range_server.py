"""An object store on the loopback: a folder listed and read by ranges, counted and disturbed.

It speaks as much of S3's path-style API (``/bucket/key``, anonymous) as header reads and
listings (ListObjectsV2) need. As a
program it prints its port, serves until its input ends, and then prints its counts as JSON:

    python tests/range_server.py FOLDER [DELAY_SECONDS]
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import re
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import cast
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

_RANGE = re.compile("\r\nrange: *(.*?) *(?:\r\n|$)", re.IGNORECASE)

Fault = Callable[[str, int], str | None]
"""From a path and how often it was asked for before: the name of a fault, or None."""

NO_SUCH_KEY = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
PAGE = 1000
"""Keys a page of a listing, as with S3."""

_ERRORS = {
    status: b"<Error><Code>%b</Code><Message>no</Message></Error>" % code
    for status, code in {"400": b"ExpiredToken", "403": b"AccessDenied", "404": b"NoSuchKey",
                         "503": b"SlowDown"}.items()
}  # fmt: skip
"""As S3 words them."""

_REASONS = {200: "OK", 206: "Partial Content", 301: "Moved", 302: "Found", 403: "Forbidden",
            404: "Not Found", 416: "Range Not Satisfiable", 429: "Too Many Requests",
            500: "Internal Server Error", 503: "Slow Down"}  # fmt: skip


class Server:
    """Serves a folder; `url` ends without a slash.

    Args:
        folder: what is served; a bucket is a folder in it.
        delay: seconds before each answer.
        fault: what goes wrong: a status such as "503", "reset", "short", "slow", "redirect".
        certificate: key and certificate in one file, to speak TLS.
    """

    def __init__(
        self,
        folder: str,
        delay: float = 0.0,
        fault: Fault | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.folder = folder
        self._certificate = certificate
        self.delay = delay
        self.fault = fault
        self.counts: Counter[str] = Counter()
        """Requests by method, "bytes" of bodies, "listing" pages, faults by name."""
        self.folders: Counter[str] = Counter()
        """Requests by bucket and first folder below it."""
        self.headers: list[str] = []
        """Heads of the first thousand requests."""
        self.most_at_once = 0
        self.ranges = True
        """Whether it serves parts of files."""
        self.keys: list[str] = []
        """What a listing holds; empty: what is there."""
        self._asked: Counter[str] = Counter()
        self.transports: set[asyncio.Transport] = set()
        self.open = 0
        """Requests under way."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}"

    async def start(self) -> asyncio.Server:
        """Listen on a free port."""
        context = None
        if self._certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._certificate)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=1024, ssl=context
        )
        self.port: int = server.sockets[0].getsockname()[1]
        return server

    def answer(self, method: str, target: str, wanted: str) -> tuple[bytes, str | None]:
        """Return an answer, and the fault that it is to be disturbed by."""
        path = unquote(target.partition("?")[0], errors="surrogateescape")
        fault = self.fault(path, self._asked[path]) if self.fault else None
        if self.fault:
            self._asked[path] += 1
        self.counts[method] += 1
        self.folders["/".join(path.split("/")[1:3])] += 1
        if fault:
            self.counts[fault] += 1
        if fault and fault.isdigit():
            return _message(int(fault), _ERRORS.get(fault, b"")), None
        if "list-type=2" in target:
            return self._listing(path, parse_qs(target.partition("?")[2])), fault
        if fault == "redirect":
            return _message(302, b"", f"Location: {self.url}{target}#again\r\n"), None
        try:
            file = os.open(os.path.join(self.folder, path.lstrip("/")), os.O_RDONLY)
            if S_ISDIR(os.fstat(file).st_mode):  # GDAL looks whether a sidecar is a folder
                os.close(file)
                return _message(404, NO_SUCH_KEY), None
        except OSError:
            return _message(404, NO_SUCH_KEY), None
        try:
            return self._part(method, file, wanted if self.ranges else ""), fault
        finally:
            os.close(file)

    def _listing(self, bucket: str, asked: dict[str, list[str]]) -> bytes:
        self.counts["listing"] += 1
        top = os.path.join(self.folder, bucket.strip("/"))
        prefix = asked.get("prefix", [""])[0]
        if not self.keys:
            found = (os.path.join(at, name) for at, _, names in os.walk(top) for name in names)
            self.keys = sorted(os.path.relpath(path, top) for path in found)
        keys = [key for key in self.keys if key.startswith(prefix)]
        start = int(asked.get("continuation-token", ["0"])[0])
        encoded = "encoding-type" in asked
        named = quote if encoded else escape
        rows = "".join(
            f"<Contents><Key>{named(key)}</Key>{_facts(os.path.join(top, key))}</Contents>"
            for key in keys[start : start + PAGE]
        )
        rows += "<EncodingType>url</EncodingType>" if encoded else ""
        more = start + PAGE < len(keys)
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        return _message(
            200,
            f"<ListBucketResult>{rows}{token}<IsTruncated>{str(more).lower()}</IsTruncated>"
            "</ListBucketResult>".encode(),
        )

    def _part(self, method: str, file: int, wanted: str) -> bytes:
        status = os.fstat(file)
        size = status.st_size
        facts = (
            f"ETag: {_etag(status)}\r\nAccept-Ranges: bytes\r\n"
            f"Last-Modified: {_date(int(status.st_mtime))}\r\n"
        )
        if method == "HEAD":
            return _message(200, b"", facts, length=size)
        if not wanted:
            body = os.pread(file, size, 0)
            self.counts["bytes"] += len(body)
            return _message(200, body, facts)
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        first = int(start) if start else max(0, size - int(end))
        last = min(int(end) if start and end else size - 1, size - 1)
        if first >= size:
            return _message(416, b"")
        body = os.pread(file, last + 1 - first, first)
        self.counts["bytes"] += len(body)
        return _message(206, body, f"{facts}Content-Range: bytes {first}-{last}/{size}\r\n")


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            text = head.decode("latin-1")
            method, target, _ = text.partition("\r\n")[0].split(" ")
            if len(self._server.headers) < 1000:
                self._server.headers.append(text)
            wanted = _RANGE.search(text)
            answer, fault = self._server.answer(method, target, wanted[1] if wanted else "")
            self._server.open += 1
            self._server.most_at_once = max(self._server.most_at_once, self._server.open)
            delay = 20.0 if fault == "slow" else self._server.delay
            if delay:
                asyncio.get_running_loop().call_later(delay, self._send, answer, fault)
            else:
                self._send(answer, fault)

    def _send(self, answer: bytes, fault: str | None) -> None:
        self._server.open -= 1
        if self._transport.is_closing():  # the client has not waited for it
            return
        if fault == "reset":
            self._transport.abort()
        elif fault == "short":
            self._transport.write(answer[: max(len(answer) // 2, answer.find(b"\r\n\r\n") + 4)])
            self._transport.close()
        else:
            self._transport.write(answer)


@lru_cache(4096)
def _date(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _facts(path: str) -> str:
    """Return what a listing says of an object."""
    status = os.stat(path if os.path.exists(path) else os.path.dirname(path))
    when = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return (
        f"<LastModified>{when}</LastModified><ETag>{_etag(status)}</ETag>"
        f"<Size>{status.st_size}</Size>"
    )


def _message(status: int, body: bytes, fields: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    retry = "Retry-After: 1\r\n" if status == 429 else ""
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Odd')}\r\n{retry}{fields}"
    return f"{head}Content-Length: {size}\r\n\r\n".encode("latin-1") + body


def some(share: float, fault: str, seed: int = 0) -> Fault:
    """Return a fault that strikes a share of all requests."""
    chance = random.Random(seed)
    return lambda _path, _before: fault if chance.random() < share else None


@contextmanager
def serving(
    folder: str,
    delay: float = 0.0,
    fault: Fault | None = None,
    certificate: Path | None = None,
) -> Iterator[Server]:
    """Serve a folder from a thread."""
    server = Server(folder, delay, fault, certificate)
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(listening.close)
        for transport in list(server.transports):
            loop.call_soon_threadsafe(transport.abort)
        loop.call_soon_threadsafe(loop.call_later, 0.05, loop.stop)
        thread.join(5)
        loop.close()


@contextmanager
def serving_apart(folder: str, delay: float = 0.0) -> Iterator[str]:
    """Serve a folder from a process of its own, as rasterio may hold the GIL while GDAL waits.

    Yields:
        the server's address.
    """
    server = subprocess.Popen(
        [sys.executable, __file__, folder, str(delay)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with server:
        assert server.stdout
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.communicate()


async def _main() -> None:
    server = Server(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    await server.start()
    print(server.port, flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({**server.counts, "folders": server.folders}), flush=True)  # noqa: T201


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main())
