"""The pool that header opens run in: a semaphore around `run_in_executor`.

That is `asyncio.to_thread`, but for the threads: those that read local files are the pool's own.
A thread takes a chunk of paths at a time. A file that does not answer within the timeout gets
its row all the same: the thread is left behind, and another one takes the rest of its chunk.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Protocol, Self, TypeVar

import pyarrow as pa

from rastermeta_async.config import (
    CHUNK_BYTES,
    MAX_STUCK,
    OTHER_THREADS,
    READS_A_PERMIT,
    Access,
    Settings,
    local_threads,
)
from rastermeta_async.errors import StuckError
from rastermeta_async.fence import fence_thread
from rastermeta_async.record import Record, failure, from_batch
from rastermeta_async.urls import without_secrets

T = TypeVar("T")

SLOW_SECONDS = 0.3
"""A file that takes longer waits for its disk: another one is opened meanwhile."""

SLICE_SECONDS = 0.25
"""A thread brings back what it has read after this time, however much that is."""


class Reader(Protocol):
    """Reads one header at a time; safe to use from several threads."""

    def enter(self) -> None:
        """Prepare the current thread, for as long as it lives."""
        ...

    def read(self, path: bytes) -> Record:
        """Return the record of a path; whatever is wrong with the file is in the record."""
        ...


def load_reader(
    where: str, drivers: Sequence[str] | None, access: Access, gdal_config: Sequence[str] = ()
) -> Reader:
    """Return the reader that the function at `where`, ``module:function``, makes."""
    module, _, function = where.partition(":")
    make = getattr(importlib.import_module(module), function)
    reader: Reader = make(drivers, access, gdal_config)
    return reader


class Pool(Protocol):
    """Turns paths into batches of rows."""

    capacity: int
    """How many `read` calls are worth having at once."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """Yield a row of `SCHEMA` for each path, in any order, in one or more batches.

        Cancelled, it returns at once; header opens under way run on and are dropped.
        """
        ...

    def stop(self) -> None:
        """Let `read` end after the files that are being opened now."""
        ...


class ThreadPool:
    """Header opens in this process.

    Local files are read in threads of the pool's own, which can neither connect nor write (see
    `fence`); objects in stores in those of the running loop's default executor. Entering the pool
    gives the loop a new one of the right size (`to_thread` would otherwise run at most cores + 4
    threads); it stays after leaving. Threads that hang cannot be ended: a program that is to exit
    all the same must use `os._exit`, see `stuck`.

    Args:
        reader: reads the headers.
        settings: `opens` at once, `timeout` for each.
        on_hang: called with each path that is waited for no longer.
    """

    def __init__(
        self, reader: Reader, settings: Settings, on_hang: Callable[[bytes], None] | None = None
    ) -> None:
        self.capacity = READS_A_PERMIT * settings.opens
        self.stuck = 0
        """Threads that hang now."""
        self._reader = reader
        self._settings = settings
        self._on_hang = on_hang
        self._permits = asyncio.Semaphore(settings.opens)
        self._stopping = False
        self._thread = threading.local()

    async def __aenter__(self) -> Self:
        """Size the loop's default executor."""
        threads = local_threads(self._settings.opens)
        self._fenced = ThreadPoolExecutor(threads, "rastermeta-local", fence_thread)
        self._executor = ThreadPoolExecutor(OTHER_THREADS, "rastermeta")
        asyncio.get_running_loop().set_default_executor(self._executor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave hanging threads behind, so that closing the loop does not wait for them."""
        self.stop()
        self._fenced.shutdown(wait=False)
        if self.stuck:
            self._executor.shutdown(wait=False)
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopping = True

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`.

        Raises:
            StuckError: `MAX_STUCK` threads hang.
        """
        rest = list(paths)
        while rest and not self._stopping:
            async with _Permit(self._permits) as permit:
                batch = await self._read_some(rest, permit, self._settings.timeout)
            if batch.num_rows:
                yield batch
            rest = rest[batch.num_rows :]

    async def read_one(self, path: bytes, seconds: float) -> Record | None:
        """Return the record of an object in a store, read with rasterio; None: it is stopping.

        Without a permit: such an open waits more than it works, so the caller counts them.

        Args:
            path: a URL.
            seconds: that it may take.
        """
        while not self._stopping:
            batch = await self._read_some([path], None, seconds)
            if batch.num_rows:
                return next(from_batch(batch))
        return None

    async def _read_some(
        self, paths: Sequence[bytes], permit: _Permit | None, seconds: float
    ) -> pa.RecordBatch:
        """Return the rows of the first paths, at least one unless the pool is stopping."""
        walk = _Walk(self, self._reader, paths)
        threads = None if permit is None else self._fenced  # None: the loop's own
        call = asyncio.get_running_loop().run_in_executor(threads, walk.run)
        while not call.done():
            await asyncio.wait({call}, timeout=walk.seconds_left(_until(permit, seconds)))
            if call.done() or walk.seconds_left(_until(permit, seconds)) > 0:
                continue
            if permit is not None and not permit.lent:
                permit.lend()
                walk.go_no_further()
            elif (records := walk.abandon(seconds)) is not None:
                call.add_done_callback(self._came_back)
                return _rows_of([*records, self._give_up(paths[len(records)])])
        return call.result()  # an error in the thread is an error of the run

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, called in a thread that may read local files."""

        def run() -> T:
            self.enter_thread()
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._fenced, run)

    def enter_thread(self) -> None:
        """Prepare the current thread for the reader, unless it was."""
        if not hasattr(self._thread, "entered"):
            self._reader.enter()
            self._thread.entered = True

    def _give_up(self, path: bytes) -> Record:
        self.stuck += 1
        if self._on_hang is not None:
            self._on_hang(path)
        if self.stuck > MAX_STUCK:
            raise StuckError(
                f"{self.stuck} header reads hang, the last one in {without_secrets(path)!r}: a "
                "disk or mount does not answer. What was committed is safe; mend it, then run the "
                "same command again to go on."
            )
        return timeout_row(path, self._settings.timeout)

    def _came_back(self, call: asyncio.Future[pa.RecordBatch]) -> None:
        self.stuck -= 1
        if not call.cancelled():
            call.exception()

    @property
    def stopping(self) -> bool:
        """Whether no further file is to be opened."""
        return self._stopping


def _rows_of(records: Sequence[Record]) -> pa.RecordBatch:
    # Not at the top: a run that leaves the reading to worker processes has no use for rasterio.
    from rastermeta_async.footprints.rows import rows_of

    return rows_of(records)


def timeout_row(path: bytes, timeout: float) -> Record:
    """Return the row of a file that does not answer."""
    message = f"no answer within {timeout:g} s; the file or its disk hangs"
    return failure(path, "fatal", "Timeout", message)


class _Permit:
    """A permit to open headers, held for a while and perhaps lent to others meanwhile."""

    def __init__(self, permits: asyncio.Semaphore) -> None:
        self._permits = permits
        self.lent = False

    async def __aenter__(self) -> Self:
        await self._permits.acquire()
        return self

    async def __aexit__(self, *error: object) -> None:
        if not self.lent:
            self._permits.release()

    def lend(self) -> None:
        """Let another one open headers; this one is not had back."""
        self.lent = True
        self._permits.release()


def _until(permit: _Permit | None, seconds: float) -> float:
    """Return how many seconds after a file was opened something is to be done about it."""
    return seconds if permit is None or permit.lent else min(SLOW_SECONDS, seconds)


class _Walk:
    """One thread's way through a chunk of paths, watched from the event loop."""

    def __init__(self, pool: ThreadPool, reader: Reader, paths: Sequence[bytes]) -> None:
        self._records: list[Record] = []
        self._pool = pool
        self._reader = reader
        self._paths = paths
        self._lock = Lock()
        self._last = False
        self._opened_at = math.inf
        """When the file was opened that is being read; infinity: none is."""

    def run(self) -> pa.RecordBatch:
        """Return the rows of the paths until the time or the bytes of a batch are used up."""
        self._pool.enter_thread()
        room = CHUNK_BYTES
        last = time.monotonic() + SLICE_SECONDS
        for path in self._paths:
            if self._pool.stopping or self._last:
                break
            self._opened_at = opened_at = time.monotonic()
            record = self._reader.read(path)
            with self._lock:
                self._opened_at = math.inf
                self._records.append(record)
            room -= _weight(record)
            if room <= 0 or opened_at > last:
                break
        return _rows_of(self._records)

    def seconds_left(self, timeout: float) -> float:
        """Return how long the file that is open now may still take; where none is, all the time."""
        left = self._opened_at + timeout - time.monotonic()
        return min(max(left, 0.0), timeout)

    def go_no_further(self) -> None:
        """Open no other file after this one."""
        self._last = True

    def abandon(self, timeout: float) -> list[Record] | None:
        """Return the records so far: the file after them hangs. None if it does not any more."""
        with self._lock:
            return None if self.seconds_left(timeout) else [*self._records]


def _weight(record: Record) -> int:
    """Return roughly the bytes of a record's parts that can be large."""
    of_dataset = record.dataset_tags or {}, record.imagery_tags or {}
    tags = *of_dataset, *(record.band_tags or {}).values()
    text = sum(len(key) + len(value) for some in tags for key, value in some.items())
    return text + len(record.filepath) + 100 * len(record.bands or ()) + len(record.crs or "")
