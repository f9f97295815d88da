"""The pool of threads that open headers: a semaphore around `run_in_executor`.

The threads belong to the pool. Each thread takes one path after another, as long as there are paths
and it holds a permit; the number of permits is tuned during the run (see `concurrency`). A file
that does not answer within the timeout gets an error row: the pool abandons the thread, and another
thread takes its place.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock
from types import TracebackType
from typing import Self

import pyarrow as pa

from rastermeta_async.model.file_state import offline_row
from rastermeta_async.model.record import Reading, Record
from rastermeta_async.model.settings import (
    READS_AT_ONCE,
    Settings,
    local_threads,
)
from rastermeta_async.model.timeouts import Stopped, let_go
from rastermeta_async.pools.base import timeout_row
from rastermeta_async.pools.chunk import Chunk
from rastermeta_async.pools.concurrency import AnyTuner, Permits, ReadLimit, Tuner
from rastermeta_async.readers.base import Reader, check_stuck, watch_progress
from rastermeta_async.readers.fence import fence_thread

Take = Callable[[], "tuple[Chunk, int] | None"]
"""Returns the next path to read: a chunk, and an index into its paths; None: there is none."""

SLOW_SECONDS = 5.0
"""A file that takes longer may hang: its permit goes to another thread."""


THREAD_BYTES = 1024 * 1024
"""Memory of a thread that has opened files with GDAL."""


class ThreadPool:
    """Reads headers in threads of this process.

    Threads that hang cannot be ended: to exit while there are some (see `stuck`), a program must
    use `os._exit`.

    Args:
        reader: reads the headers.
        settings: at most `concurrency` files at once, `timeout` for each.
        on_hang: called with each path whose file is given up.
        enter_thread: called first in each thread; the default forbids a thread that reads local
            files to connect or write (see `fence`).
        seconds: the timeout of one file; None: that of the settings. Give it if the reader has a
            timeout of its own: then the permit of a slow file does not go to another thread.
        tuner: finds how many files to read at once; None: a new `Tuner`.
    """

    capacity = READS_AT_ONCE

    def __init__(
        self,
        reader: Reader,
        settings: Settings,
        on_hang: Callable[[bytes], None] | None = None,
        enter_thread: Callable[[], object] = fence_thread,
        seconds: float | None = None,
        tuner: AnyTuner | None = None,
    ) -> None:
        self.stuck = 0
        """Threads that hang now."""
        self._reader = reader
        self._settings = settings
        self._on_hang = on_hang
        self._enter_thread = enter_thread
        self._seconds = seconds or settings.timeout
        self._slow_seconds = self._seconds if seconds else min(SLOW_SECONDS, self._seconds)
        self._limit = ReadLimit(tuner or Tuner(settings.concurrency))
        self._chunks: list[Chunk] = []
        self._readings: dict[_ChunkReading, asyncio.Task[None]] = {}
        self._paths_there = asyncio.Event()
        self._stopping = False
        self._thread = threading.local()
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        """Begin to start threads whenever there are paths."""
        threads = local_threads(self._settings.concurrency)
        self._threads = ThreadPoolExecutor(threads, "rastermeta-read", self._enter_thread)
        # Never shut down: a thread may bring records after the pool was left.
        self._rows = ThreadPoolExecutor(1, "rastermeta-rows", fence_thread)
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.create_task(self._start_threads())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Abandon hanging threads, so that closing the loop does not wait for them."""
        self.stop()
        for task in (self._starting, *self._readings.values()):
            task.cancel()
        self._threads.shutdown(wait=False)

    @property
    def threads_bytes(self) -> int:
        """Memory that the reading threads may take themselves, for example for PROJ's database."""
        return self._limit.most * THREAD_BYTES

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopping = True
        self._limit.stop()
        for chunk in self._chunks:
            chunk.close()

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`; rows come in the order of the paths.

        Raises:
            StuckError: `MAX_STUCK` threads hang.
        """
        if not paths or self._stopping:
            return
        chunk = Chunk(paths)
        self._chunks.append(chunk)
        try:
            is_done = False
            while not is_done:
                self._paths_there.set()
                await chunk.change()
                if chunk.is_read and not chunk.is_collected:
                    await self._loop.run_in_executor(self._rows, self._collect, chunk)
                is_done = chunk.is_read and chunk.is_collected  # before the batches are taken
                for batch in chunk.batches():
                    yield batch
        finally:
            self._chunks.remove(chunk)
            chunk.close()

    async def _start_threads(self) -> None:
        """Start a thread whenever there is a path for it and a permit."""
        with suppress(Stopped):
            await self._paths_there.wait()
            with suppress(RuntimeError):  # whoever makes rows raises it again
                self._rows.submit(int)  # starts its thread before others take the last ones
            while True:
                await self._paths_there.wait()
                await self._limit.acquire()
                if not self._has_path_to_spare():
                    self._paths_there.clear()
                    self._limit.release()
                    continue
                reading = _ChunkReading(self, self._reader, self._take)
                task = asyncio.create_task(self._watch(reading, _Permit(self._limit)))
                self._readings[reading] = task

    def _has_path_to_spare(self) -> bool:
        """Tell whether there are more paths than threads that have not taken their first path."""
        about_to = sum(not reading.begun for reading in self._readings)
        return sum(chunk.left for chunk in self._chunks) > about_to

    def _take(self) -> tuple[Chunk, int] | None:
        for chunk in self._chunks[:]:  # a copy: the event loop changes the list
            at = chunk.take()
            if at is not None:
                return chunk, at
        return None

    async def _watch(self, reading: _ChunkReading, permit: _Permit) -> None:
        """Have a thread read; its error becomes an error of the run."""
        try:
            await self._run(reading, permit)
        except Exception as error:  # noqa: BLE001  # `read` raises it
            for chunk in self._chunks:
                chunk.fail(error)
        finally:
            del self._readings[reading]
            permit.end()

    async def _run(self, reading: _ChunkReading, permit: _Permit) -> None:
        """Have a thread read; give up a file that hangs."""
        try:
            call = self._loop.run_in_executor(self._threads, reading.run)
        except RuntimeError:  # the system starts no further thread
            reading.go_no_further()  # it waits in the executor for a running thread
            if self._limit.under_way <= 1:
                raise
            self._limit.no_more()
            return
        while not call.done():
            try:
                await asyncio.wait({call}, timeout=reading.seconds_left(self._until(permit)))
            except asyncio.CancelledError:
                let_go(call)
                raise
            if call.done() or reading.seconds_left(self._until(permit)) > 0:
                continue
            if not permit.lent:
                permit.lend()
                reading.go_no_further()
            elif (hanging := reading.abandon(self._seconds)) is not None:
                call.add_done_callback(self._came_back)
                chunk, at = hanging
                chunk.put(at, self._give_up(chunk.paths[at]))
                chunk.note_change()
                return
        call.result()

    def _until(self, permit: _Permit) -> float:
        """Return the seconds until the open file is slow, or, if its permit is lent, hangs."""
        return self._seconds if permit.lent else self._slow_seconds

    @contextmanager
    def no_time_of_the_file(self) -> Iterator[None]:
        """Stop the open file's timeout while its thread waits for its turn; then start it anew."""
        reading: _ChunkReading = self._thread.reading
        reading.pause()
        try:
            yield
        finally:
            reading.go_on()

    def collect(self, chunk: Chunk) -> None:
        """Make rows of the records: in this thread if it is the first, else in the thread for rows.

        Each thread that makes rows has PROJ's database open, and its own CRSs.
        """
        if not hasattr(self._thread, "number"):
            self._thread.number = next(self._numbers)
        if self._thread.number == 0:
            self._collect(chunk)
        else:
            self._rows.submit(self._collect, chunk)

    def _collect(self, chunk: Chunk) -> None:
        try:
            self._reader.enter()
            chunk.collect()
        except Exception as error:  # noqa: BLE001  # `read` raises it
            self._loop.call_soon_threadsafe(chunk.fail, error)

    def note_thread(self, reading: _ChunkReading) -> None:
        """Note that this thread reads files now."""
        self._thread.reading = reading
        watch_progress("pool", reading.note_progress)
        self._limit.note_thread()

    @property
    def skips_offline(self) -> bool:
        """Whether files whose content is not on disk are skipped."""
        return self._settings.skip_offline

    def note_file(self) -> None:
        """Note that a file was read."""
        self._limit.files += 1  # without a lock: one lost count does no harm

    def _give_up(self, path: bytes) -> Record:
        self.stuck += 1
        if self._on_hang is not None:
            self._on_hang(path)
        check_stuck(self.stuck, path)
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
        """Whether no further file may be opened."""
        return self._stopping


class _Permit:
    """A permit to open headers; a thread may lend it to others before its end."""

    def __init__(self, permits: Permits) -> None:
        self._permits = permits
        self.lent = False

    def end(self) -> None:
        """Give it back, unless it was lent."""
        if not self.lent:
            self._permits.release()

    def lend(self) -> None:
        """Release the permit for another thread; it does not come back."""
        self.lent = True
        self._permits.release()


class _ChunkReading:
    """Reads one file after another in one thread; the event loop watches it."""

    def __init__(self, pool: ThreadPool, reader: Reader, take: Take) -> None:
        self.begun = False
        """Whether it has tried to take its first path."""
        self._pool = pool
        self._reader = reader
        self._take = take
        self._lock = Lock()
        self._last = self._abandoned = False
        self._taken: tuple[Chunk, int] | None = None
        self._opened_at = math.inf
        """`time.monotonic` when the current file was opened; infinity: no file is open."""

    def run(self) -> None:
        """Read files until there are no paths, or fewer threads should read."""
        self._pool.note_thread(self)
        while not (self._last or self._pool.stopping or self._pool.crowded):
            self._taken = taken = self._take()
            self.begun = True
            if taken is None:
                break
            chunk, at = taken
            self._opened_at = time.monotonic()
            record = self._read(chunk.paths[at])
            with self._lock:
                if self._abandoned:
                    return
                self._opened_at = math.inf
            self._pool.note_file()
            if chunk.put(at, record):
                self._pool.collect(chunk)

    def _read(self, path: bytes) -> Reading | None:
        """Return the row or rows of a path; None: the run stopped before it was read."""
        row = offline_row(path) if self._pool.skips_offline else None
        try:
            return row or self._reader.read(path)
        except Stopped:
            return None

    def pause(self) -> None:
        """Stop the timeout of the open file until `go_on`."""
        self._opened_at = math.inf

    def go_on(self) -> None:
        """Start the timeout of the open file anew."""
        self._opened_at = time.monotonic()

    def note_progress(self) -> None:
        """Start the timeout anew, as a part of the file was read.

        Raises:
            Stopped: the run ends, or the file was given up.
        """
        if self._abandoned or self._pool.stopping:
            raise Stopped
        self.go_on()

    def seconds_left(self, timeout: float) -> float:
        """Return how many seconds the open file may still take; if none is open, `timeout`."""
        left = self._opened_at + timeout - time.monotonic()
        return min(max(left, 0.0), timeout)

    def go_no_further(self) -> None:
        """Open no other file after this one."""
        self._last = True

    def abandon(self, timeout: float) -> tuple[Chunk, int] | None:
        """Return the hanging path, a chunk and an index into its paths; its record is dropped.

        None: it does not hang any more.
        """
        with self._lock:
            if self.seconds_left(timeout):
                return None
            self._abandoned = True
            return self._taken
