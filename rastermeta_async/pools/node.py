"""What runs on a node of a cluster: a pool of worker processes, for as long as a run needs it.

A node is a process of the cluster's own. Its functions are called by the cluster in any thread.
They raise nothing: what an exception says, with the paths of signed URLs, would be in the
cluster's logs.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from rastermeta_async.model.errors import RastermetaError
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.settings import Settings
from rastermeta_async.pools.processes import WorkerPool

IDLE_SECONDS = 120.0
"""A node without work for so long ends its processes: its run may have died."""

_LOOK_SECONDS = 0.5

_COMPRESSION = "lz4"


class Paths:
    """Paths on their way to a node; their text stays out of the cluster's logs."""

    def __init__(self, paths: Sequence[bytes]) -> None:
        self.paths = list(paths)

    def __repr__(self) -> str:
        return f"<{len(self.paths)} paths>"


class Job(NamedTuple):
    """The run that a node works for."""

    run: str
    """Identifies the run."""
    settings: Settings
    """Of the run; `concurrency` holds for each node, which has a process for each thread."""

    def __repr__(self) -> str:
        return f"<run {self.run}>"


class Answer(NamedTuple):
    """What a node returns of some paths."""

    rows: bytes
    """Of `encoded`."""
    error: str = ""
    """Why the node cannot work; rows may be missing then."""


def versions() -> dict[str, str]:
    """Return what must be the same on all machines, as it may change rows."""
    import rasterio

    from rastermeta_async import __version__

    return {
        "rastermeta-async": f"{__version__} ({_code()})",
        "rasterio": rasterio.__version__,
        "GDAL": rasterio.__gdal_version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


@cache
def _code() -> str:
    """Return a fingerprint of this package's code: two versions in development have one number."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def here() -> tuple[str, dict[str, str]]:
    """Return this machine's name and its versions."""
    return socket.gethostname(), versions()


def read(job: Job, wanted: dict[str, str], paths: Paths) -> Answer:
    """Return the rows of paths; fewer after `stop`.

    Args:
        job: the run.
        wanted: the versions of the machine that keeps the catalog.
        paths: what to read.
    """
    name, found = here()
    if found != wanted:
        return Answer(b"", mismatch(name, found, wanted))
    try:
        return Answer(encoded(_node_of(job).read(paths.paths)))
    except RastermetaError as error:
        return Answer(b"", f"on {name}: {error}")
    except Exception as error:  # noqa: BLE001  # see the top
        return Answer(b"", f"on {name}: {type(error).__name__}")


def mismatch(name: str, found: dict[str, str], wanted: dict[str, str]) -> str:
    """Return in what the versions of a machine differ, as a sentence."""
    differing = [one for one in wanted if found.get(one) != wanted[one]]
    theirs = ", ".join(f"{one} {found.get(one)}" for one in differing)
    ours = ", ".join(f"{one} {wanted[one]}" for one in differing)
    return f"{name} has {theirs}, but this machine has {ours}: install the same everywhere"


def encoded(batches: Sequence[pa.RecordBatch]) -> bytes:
    """Return rows as an Arrow IPC stream that is compressed as a whole.

    Arrow's own compression takes ten times as long for some hundred rows of many columns.
    """
    out = pa.BufferOutputStream()
    compressed = pa.CompressedOutputStream(out, _COMPRESSION)
    with compressed, pa.ipc.new_stream(compressed, SCHEMA) as stream:
        for batch in batches:
            stream.write_batch(batch)
    content: bytes = out.getvalue().to_pybytes()
    return content


def decoded(rows: bytes) -> list[pa.RecordBatch]:
    """Return the rows of `encoded`."""
    compressed = pa.CompressedInputStream(pa.py_buffer(rows), _COMPRESSION)
    with compressed, pa.ipc.open_stream(compressed) as stream:
        return list(stream)


def stop(run: str) -> None:
    """Have a run's node open no further file, and end when it is idle."""
    with _lock:
        node = _nodes.get(run)
    if node:
        node.stop()


_nodes: dict[str, _Node] = {}
_lock = threading.Lock()


def _node_of(job: Job) -> _Node:
    from distributed import get_worker

    with _lock:
        node = _nodes.get(job.run)
        if node is None or node.ended:
            threads: int = get_worker().state.nthreads
            node = _nodes[job.run] = _Node(job.run, replace(job.settings, workers=threads))
        node.called = time.monotonic()
        return node


class _Node:
    """A pool of worker processes in an event loop and thread of its own."""

    def __init__(self, run: str, settings: Settings) -> None:
        self.called = time.monotonic()
        self.ended = False
        self._run_name = run
        self._settings = settings
        self._reading = 0
        self._loop = asyncio.new_event_loop()
        self._pool: asyncio.Future[WorkerPool] = self._loop.create_future()
        threading.Thread(target=self._run, name="rastermeta-node", daemon=True).start()

    def read(self, paths: Sequence[bytes]) -> list[pa.RecordBatch]:
        """Return the rows of paths."""
        return asyncio.run_coroutine_threadsafe(self._read(paths), self._loop).result()

    def stop(self) -> None:
        """See `Pool.stop`."""
        self.called = 0.0
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop)

    async def _read(self, paths: Sequence[bytes]) -> list[pa.RecordBatch]:
        self._reading += 1
        try:
            pool = await asyncio.shield(self._pool)
            return [batch async for batch in pool.read(paths)]
        finally:
            self._reading -= 1

    async def _stop(self) -> None:
        (await asyncio.shield(self._pool)).stop()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self.ended = True
            self._loop.close()

    async def _live(self) -> None:
        """Keep the pool until it has been idle for long."""
        pool = WorkerPool(self._settings)
        try:
            async with pool:
                self._pool.set_result(pool)
                while self._is_wanted():  # noqa: ASYNC110  # other threads call
                    await asyncio.sleep(_LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001  # those who wait raise it
            if not self._pool.done():
                self._pool.set_exception(error)
                self._pool.exception()  # marks it as retrieved, as perhaps nobody waits

    def _is_wanted(self) -> bool:
        """Tell whether somebody reads or may read; else let no further call have this node."""
        with _lock:
            wanted = bool(self._reading) or time.monotonic() < self.called + IDLE_SECONDS
            if not wanted:
                _nodes.pop(self._run_name, None)
            return wanted
