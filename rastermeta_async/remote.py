"""Headers of objects in stores: fetched in the event loop, decoded from their first bytes.

    paths ──▶ heads, hundreds at once ──▶ decoded here  ──▶ rows
                                     └──▶ rasterio in a thread, for what is not plain ──┘

Local files go to the thread pool that this one stands before.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa

from rastermeta_async.config import Settings
from rastermeta_async.fetch import Fetcher, FetchError, Head
from rastermeta_async.footprint import rows_of
from rastermeta_async.pool import Reader, ThreadPool
from rastermeta_async.record import Record, failure
from rastermeta_async.stores import Stores
from rastermeta_async.tiff_bytes import MAX_READS, NotPlain
from rastermeta_async.tiff_reader import Facts, TiffReader, Unknown
from rastermeta_async.urls import is_url, without_secrets

REQUEST_SECONDS = 20.0
"""For one request, so that another may follow within the time of the object."""

GDAL_TRIES = 3
"""Opens of one object: GDAL does not tell a lost connection from a broken file."""


class StorePool:
    """A pool that reads objects in stores, and hands local files to a thread pool.

    Args:
        local: reads local files, and with rasterio what is not plain.
        reader: what reads local files; a `TiffReader` decodes heads of objects, too.
        settings: `requests` under way at once, `timeout` for each object.
    """

    def __init__(self, local: ThreadPool, reader: Reader, settings: Settings) -> None:
        self.capacity = local.capacity
        self._local = local
        self._reader = reader if isinstance(reader, TiffReader) else None
        self._learning = asyncio.Lock()
        stores = Stores(settings.access, min(REQUEST_SECONDS, settings.timeout / 3))
        self._fetcher = Fetcher(stores, settings.requests, settings.timeout)

    async def __aenter__(self) -> Self:
        """See `Pool`."""
        await self._local.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `Pool`."""
        await self._local.__aexit__(kind, error, trace)

    @property
    def stuck(self) -> int:
        """See `ThreadPool.stuck`."""
        return self._local.stuck

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._local.stop()

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`; rows come in the order of the paths."""
        for remote, some in itertools.groupby(paths, is_url):
            if not remote:
                async for batch in self._local.read(list(some)):
                    yield batch
            else:
                records = await self._read_urls(list(some))
                if records:
                    yield rows_of(records)
            if self._local.stopping:
                return

    async def _read_urls(self, urls: Sequence[bytes]) -> list[Record]:
        """Return the records of the first URLs: all, unless the pool is stopping."""
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(self._read(url)) for url in urls]
        records = [task.result() for task in reading]
        read = records.index(None) if None in records else len(records)
        return [record for record in records[:read] if record]

    async def _read(self, path: bytes) -> Record | None:
        if self._local.stopping:
            return None
        shown = without_secrets(path)
        try:
            url = path.decode()
            head = await self._fetcher.head(url)
        except UnicodeDecodeError:
            return failure(shown, "error", "UnicodeDecodeError", "a URL must be UTF-8")
        except FetchError as error:
            if error.problem.status == 416:  # it has no byte
                return failure(shown, "error", "RasterioIOError", "the object is empty")
            return _failed(shown, error)
        facts = Facts(head.size, head.mtime, head.etag)
        try:
            return await self._decoded(shown, head, facts)
        except NotPlain:
            record = await self._read_with_rasterio(path)
        except FetchError as error:
            record = _failed(shown, error)
        return record and record._replace(file_size=facts.size, mtime=facts.mtime, etag=facts.etag)

    async def _decoded(self, path: bytes, head: Head, facts: Facts) -> Record:
        """Return what the header says; bytes beyond the first are fetched as they are missed."""
        if self._reader is None:
            raise NotPlain("rasterio is to read it")
        known = _Known(head)
        for _ in range(MAX_READS):
            try:
                return self._reader.decoded(path, head.content, facts, known.read_at)
            except _Missing as missing:
                known.add(missing.offset, await self._fetcher.more(head, *missing.args))
            except Unknown as unknown:
                async with self._learning:  # or all that are under way would ask at once
                    if not self._reader.knows(unknown.header):
                        learn = self._reader.learn_from_bytes
                        arguments = unknown.header, path, facts, known.parts
                        return await asyncio.to_thread(learn, *arguments)
        raise NotPlain("values all over the file")

    async def _read_with_rasterio(self, path: bytes) -> Record | None:
        for _ in range(GDAL_TRIES):
            record = await self._local.read_one(path)
            if record is None or record.ok or record.error_type == "Timeout":
                break
        return record


class _Missing(Exception):  # noqa: N818  # an event
    """Bytes are wanted that were not fetched yet: (offset, size)."""

    @property
    def offset(self) -> int:
        return int(self.args[0])


class _Known:
    """What was fetched of an object so far."""

    def __init__(self, head: Head) -> None:
        self._size = head.size
        self.parts = {0: head.content}
        """Bytes by offset."""

    def add(self, offset: int, content: bytes) -> None:
        self.parts[offset] = content

    def read_at(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self._size)
        for start, content in self.parts.items():
            if start <= offset and end <= start + len(content):
                return content[offset - start : end - start]
        raise _Missing(offset, size)


def _failed(path: bytes, error: FetchError) -> Record:
    problem = error.problem
    status = "error" if problem.kind == "NotFound" else "fatal"
    tries = f" (tried {error.tries} times)" if error.tries > 1 else ""
    return failure(path, status, problem.kind, problem.message + tries)
