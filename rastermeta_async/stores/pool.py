"""Headers of objects in stores: fetched in the event loop, decoded from their first bytes.

    paths ──▶ heads, hundreds at once ──▶ decoded here  ──▶ rows
                                     └──▶ rasterio in a thread, for what is not plain ──┘

Local files go to the thread pool that this one stands before.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import pyarrow as pa

from rastermeta_async.config import REMOTE_OPENS, REQUEST_SECONDS, Settings
from rastermeta_async.copies import sparse_copy
from rastermeta_async.errors import RastermetaError, StoreError
from rastermeta_async.footprints.rows import rows_of
from rastermeta_async.memory import allow_data
from rastermeta_async.permits import Stopped
from rastermeta_async.pool import Reader, ThreadPool
from rastermeta_async.record import Record, failure
from rastermeta_async.stores.clients import Stores
from rastermeta_async.stores.fetch import EMPTY, TRIES, Fetcher, FetchError, Head
from rastermeta_async.stores.problems import NO_ANSWER
from rastermeta_async.stores.vsi import GDAL_RETRIES
from rastermeta_async.structure import GTIFF, Structure, structure_of_bytes
from rastermeta_async.tiff.bytes import MAX_READS, NotPlain
from rastermeta_async.tiff.reader import Facts, TiffReader, Unknown
from rastermeta_async.urls import is_url, without_secrets

GDAL_OPENS = TRIES // (1 + GDAL_RETRIES)
"""Opens of one object at the most: GDAL does not tell a body cut short from a broken file."""

GDAL_REQUESTS = 5
"""That GDAL sends until it finds that a store refuses an object: it asks for its size and then for
its bytes, each twice, and for a folder of that name."""

TIMES_CHANGED = 3
"""Reads of one object that is replaced meanwhile."""

OBJECTS_A_REQUEST = 2
"""Objects that are begun for each request under way: one, and another to take its place."""

_THREADS_OF_OBSTORE = 512
_STACK_OF_OBSTORE = 2 * 1024 * 1024
"""It looks up host names in threads, at the most so many, each with a stack of this size."""

_FOREIGN = "not recognized as being in a supported file format"


class StorePool:
    """A pool that reads objects in stores, and hands local files to a thread pool.

    Args:
        local: reads local files, and with rasterio what is not plain.
        reader: what reads local files; a `TiffReader` decodes heads of objects, too.
        settings: `concurrency` requests under way at once, `timeout` for each object.
    """

    def __init__(self, local: ThreadPool, reader: Reader, settings: Settings) -> None:
        self.capacity = local.capacity
        self._local = local
        self._reader = reader
        plain = isinstance(reader, TiffReader) and not settings.access.sidecars
        self._decoder = reader if plain and isinstance(reader, TiffReader) else None
        self._opens = asyncio.Semaphore(min(REMOTE_OPENS, settings.concurrency))
        self._learning = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._room = asyncio.Semaphore(OBJECTS_A_REQUEST * settings.concurrency)
        self._stacks = min(settings.concurrency, _THREADS_OF_OBSTORE) * _STACK_OF_OBSTORE
        stores = Stores(settings.access, min(REQUEST_SECONDS, settings.timeout / 3))
        self._fetcher = Fetcher(stores, settings.concurrency, settings.timeout)

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

    @property
    def threads_bytes(self) -> int:
        """See `ThreadPool.threads_bytes`."""
        return self._local.threads_bytes

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._local.stop()
        self._fetcher.throttle.stop()

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
        allow_data(self._stacks)
        self._stacks = 0
        reading: list[asyncio.Task[Record | None]] = []
        # One list of URLs after the other, or all would be half read.
        async with asyncio.TaskGroup() as tasks, self._beginning:
            for url in urls:
                await self._room.acquire()
                reading.append(tasks.create_task(self._read(url)))
                reading[-1].add_done_callback(lambda _: self._room.release())
        records = [task.result() for task in reading]
        read = records.index(None) if None in records else len(records)
        return [record for record in records[:read] if record]

    async def _read(self, path: bytes) -> Record | None:
        shown = without_secrets(path)
        for _ in range(TIMES_CHANGED):
            if self._local.stopping:
                return None
            try:
                return await self._read_url(path, shown)
            except UnicodeDecodeError:
                return failure(shown, "error", "UnicodeDecodeError", "a URL must be UTF-8")
            except Stopped:
                return None
            except StoreError as error:
                return failure(shown, "fatal", type(error).__name__, str(error))
            except FetchError as error:
                failed = _failed(shown, error)
                if error.problem.kind != "Changed":
                    break
            except RastermetaError:
                raise
            except Exception as error:  # noqa: BLE001  # an object is a row, whatever it sets off
                message = str(error) or repr(error)
                return failure(shown, "fatal", type(error).__name__, message)
        return failed

    async def _read_url(self, path: bytes, shown: bytes) -> Record | None:
        head = await self._fetcher.head(path.decode())
        facts = Facts(head.size, head.mtime, head.etag)
        try:
            return await self._decoded(shown, head, facts)
        except NotPlain:
            record = await self._read_with_rasterio(path, shown, head)
        if record and record.driver == GTIFF:
            record = record._replace(**(await self._structure(head, record))._asdict())
        return record and record._replace(file_size=facts.size, mtime=facts.mtime, etag=facts.etag)

    async def _decoded(self, path: bytes, head: Head, facts: Facts) -> Record:
        """Return what the header says; bytes beyond the first are fetched as they are missed."""
        if self._decoder is None:
            raise NotPlain("rasterio is to read it")
        known = _Known(head)
        for _ in range(MAX_READS):
            try:
                return self._decoder.decoded(path, head.content, facts, known.read_at)
            except _Missing as missing:
                content, head = await self._fetcher.more(head, *missing.args)
                known.add(missing.offset, content)
            except Unknown as unknown:
                async with self._learning:  # or all that are under way would ask at once
                    if not self._decoder.knows(unknown.header):
                        learn = self._decoder.learn_from_bytes
                        arguments = unknown.header, path, facts, known.parts
                        return await self._local.in_thread(partial(learn, *arguments))
        raise NotPlain("values all over the file")

    async def _structure(self, head: Head, record: Record) -> Structure:
        """Return what the bytes of a TIFF that rasterio reads tell, as far as they can be had."""
        known = _Known(head)
        factors = record.bands[0].overviews if record.bands else []
        with suppress(NotPlain, FetchError):
            for _ in range(MAX_READS):
                try:
                    return structure_of_bytes(head.size, known.read_at, factors)
                except _Missing as missing:
                    content, head = await self._fetcher.more(head, *missing.args)
                    known.add(missing.offset, content)
        return Structure()

    async def _read_with_rasterio(self, path: bytes, shown: bytes, head: Head) -> Record | None:
        async with self._opens:
            for _ in range(GDAL_OPENS):
                async with self._fetcher.throttle:
                    began = time.monotonic()
                    record = await self._local.read_one(path, head.left)
                if record is None or record.error_type is None:
                    break
                if record.error_type == "Timeout":
                    raise FetchError(NO_ANSWER)
                if await self._local.in_thread(partial(self._is_final, record, shown, head)):
                    break
                # GDAL does not tell what the store said, so it is asked.
                took = time.monotonic() - began
                head = await self._fetcher.again(head, GDAL_REQUESTS, took)
        return record

    def _is_final(self, record: Record, shown: bytes, head: Head) -> bool:
        """Tell whether GDAL's complaint is about the object, not about the way to it.

        Then it says the same of a copy of the first bytes, which did arrive.
        """
        whole = len(head.content) >= head.size
        if not whole and _FOREIGN not in (record.error_message or ""):
            return False
        name = shown.partition(b"?")[0].rpartition(b"/")[2]
        with sparse_copy(name, {0: head.content}, head.size) as copy:
            again = self._reader.read(copy)
        return again.error_type is not None and (whole or _FOREIGN in (again.error_message or ""))


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
    if problem is EMPTY:
        return failure(path, "error", *problem[:2])._replace(file_size=0)
    status = "error" if problem.kind == "NotFound" else "fatal"
    tries = f" (tried {error.tries} times)" if error.tries > 1 and problem.passes else ""
    return failure(path, status, problem.kind, problem.message + tries)
