"""The pool that header opens run in: a semaphore around `run_in_executor`.

That is `asyncio.to_thread`, but for the threads: those that read local files are the pool's own.
Threads share the paths of a `read`, as many as have a permit; how many permits there are is found
out (see `concurrency`). A file that does not answer within the timeout gets its row all the same:
the thread is left behind, and others take the rest of the paths.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Protocol, Self, TypeVar

import pyarrow as pa

from rastermeta_async.chunk import SLICE_SECONDS, Chunk
from rastermeta_async.concurrency import ReadLimit
from rastermeta_async.config import (
    CHUNK_BYTES,
    MAX_STUCK,
    OTHER_THREADS,
    READS_AT_ONCE,
    Access,
    Settings,
    local_threads,
)
from rastermeta_async.errors import StuckError, first_error_only
from rastermeta_async.fence import fence_thread
from rastermeta_async.patience import let_go
from rastermeta_async.permits import Permits, Stopped
from rastermeta_async.record import Record, failure, from_batch
from rastermeta_async.urls import without_secrets

T = TypeVar("T")

SLOW_SECONDS = 5.0
"""A file that takes longer may hang: its permit is another one's meanwhile."""


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
        settings: `concurrency` at once at the most, `timeout` for each.
        on_hang: called with each path that is waited for no longer.
    """

    capacity = READS_AT_ONCE

    def __init__(
        self, reader: Reader, settings: Settings, on_hang: Callable[[bytes], None] | None = None
    ) -> None:
        self.stuck = 0
        """Threads that hang now."""
        self._reader = reader
        self._settings = settings
        self._on_hang = on_hang
        self._limit = ReadLimit(settings.concurrency)
        self._stopping = False
        self._thread = threading.local()

    async def __aenter__(self) -> Self:
        """Size the loop's default executor."""
        threads = local_threads(self._settings.concurrency)
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
        self._limit.stop()

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`; rows come in the order of the paths.

        Raises:
            StuckError: `MAX_STUCK` threads hang.
        """
        if not paths or self._stopping:
            return
        chunk = Chunk(paths)
        sharing = asyncio.create_task(self._share(chunk))
        try:
            while not sharing.done():
                for batch in chunk.batches():
                    yield batch
                await chunk.change()
            sharing.result()  # an error in a thread is an error of the run
            await self.in_thread(partial(chunk.collect, all_of_them=True))
            for batch in chunk.batches():
                yield batch
        finally:
            chunk.close()
            let_go(sharing)

    async def _share(self, chunk: Chunk) -> None:
        """Have the paths of a chunk read, by a thread for each permit that can be had."""
        try:
            with first_error_only():
                async with asyncio.TaskGroup() as threads:
                    with suppress(Stopped):
                        while chunk.open:
                            if chunk.full:
                                await chunk.change()
                                continue
                            await self._limit.acquire()
                            permit = _Permit(self._limit)
                            threads.create_task(self._work(chunk, permit, self._settings.timeout))
        finally:
            chunk.note_change()

    async def read_one(self, path: bytes, seconds: float) -> Record | None:
        """Return the record of an object in a store, read with rasterio; None: it is stopping.

        Without a permit: such an open waits more than it works, so the caller counts them.

        Args:
            path: a URL.
            seconds: that it may take.
        """
        if self._stopping:
            return None
        chunk = Chunk([path])
        await self._work(chunk, None, seconds)
        await self.in_thread(partial(chunk.collect, all_of_them=True))
        return next((next(from_batch(batch)) for batch in chunk.batches()), None)

    async def _work(self, chunk: Chunk, permit: _Permit | None, seconds: float) -> None:
        """Have a thread read some paths of a chunk; give up the one that it hangs in."""
        walk = _Walk(self, self._reader, chunk)
        try:
            threads = None if permit is None else self._fenced  # None: the loop's own
            call = asyncio.get_running_loop().run_in_executor(threads, walk.run)
            while not call.done():
                await asyncio.wait({call}, timeout=walk.seconds_left(_until(permit, seconds)))
                if call.done() or walk.seconds_left(_until(permit, seconds)) > 0:
                    continue
                if permit is not None and not permit.lent:
                    permit.lend()
                    walk.go_no_further()
                elif (at := walk.abandon(seconds)) is not None:
                    call.add_done_callback(self._came_back)
                    chunk.put(at, self._give_up(chunk.paths[at]))
                    return
            call.result()
        finally:
            if permit is not None:
                permit.end()
            chunk.note_change()

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

    def note_file(self) -> None:
        """Note that a file was read."""
        self._limit.files += 1  # one that is lost between two threads is no matter

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
    def crowded(self) -> bool:
        """Whether fewer threads should read files."""
        return self._limit.crowded

    @property
    def stopping(self) -> bool:
        """Whether no further file is to be opened."""
        return self._stopping


def timeout_row(path: bytes, timeout: float) -> Record:
    """Return the row of a file that does not answer."""
    message = f"no answer within {timeout:g} s; the file or its disk hangs"
    return failure(path, "fatal", "Timeout", message)


class _Permit:
    """A permit to open headers, perhaps lent to others before its end."""

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self.lent = False

    def end(self) -> None:
        """Give it back, unless it was lent."""
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
    """One thread's way through the paths of a chunk, watched from the event loop."""

    def __init__(self, pool: ThreadPool, reader: Reader, chunk: Chunk) -> None:
        self._pool = pool
        self._reader = reader
        self._chunk = chunk
        self._lock = Lock()
        self._last = self._abandoned = False
        self._at = 0
        self._opened_at = math.inf
        """When the file was opened that is being read; infinity: none is."""

    def run(self) -> None:
        """Read paths until there are none, or the time or the bytes of a batch are used up."""
        self._pool.enter_thread()
        room = CHUNK_BYTES
        last = time.monotonic() + SLICE_SECONDS
        while not (self._last or self._pool.stopping):
            at = self._chunk.take()
            if at is None:
                break
            self._at, self._opened_at = at, time.monotonic()
            opened_at = self._opened_at
            record = self._reader.read(self._chunk.paths[at])
            with self._lock:
                if self._abandoned:
                    return
                self._opened_at = math.inf
            self._pool.note_file()
            room -= self._chunk.put(at, record)
            if room <= 0 or opened_at > last or self._pool.crowded:
                break
        self._chunk.collect()

    def seconds_left(self, timeout: float) -> float:
        """Return how long the file that is open now may still take; where none is, all the time."""
        left = self._opened_at + timeout - time.monotonic()
        return min(max(left, 0.0), timeout)

    def go_no_further(self) -> None:
        """Open no other file after this one."""
        self._last = True

    def abandon(self, timeout: float) -> int | None:
        """Return the place of the path that hangs; its record is no longer wanted.

        None: it does not hang any more.
        """
        with self._lock:
            if self.seconds_left(timeout):
                return None
            self._abandoned = True
            return self._at
