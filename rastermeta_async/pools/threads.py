"""The pool that header opens run in: a semaphore around `run_in_executor`.

That is `asyncio.to_thread`, but for the threads, which are the pool's own. Each takes path after
path of what is to be read, as long as there are some and it has its permit; how many permits there
are is found out (see `concurrency`). A file that does not answer within the timeout gets its row
all the same: the thread is left behind, and another one takes its place.
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
from rastermeta_async.model.record import Record
from rastermeta_async.model.settings import (
    READS_AT_ONCE,
    Settings,
    local_threads,
)
from rastermeta_async.model.timeouts import Stopped, let_go
from rastermeta_async.pools.base import timeout_row
from rastermeta_async.pools.chunk import Chunk
from rastermeta_async.pools.concurrency import AnyTuner, Permits, ReadLimit, Tuner
from rastermeta_async.readers.base import Reader, check_stuck
from rastermeta_async.readers.fence import fence_thread

Take = Callable[[], "tuple[Chunk, int] | None"]
"""Returns a path that is to be read now, by its place in a chunk."""

SLOW_SECONDS = 5.0
"""A file that takes longer may hang: its permit is another one's meanwhile."""


THREAD_BYTES = 1024 * 1024
"""What a thread takes that has opened files with GDAL."""


class ThreadPool:
    """Header opens in this process.

    They are read in threads of the pool's own. Those that hang cannot be ended: a program that is
    to exit all the same must use `os._exit`, see `stuck`.

    Args:
        reader: reads the headers.
        settings: `concurrency` at once at the most, `timeout` for each.
        on_hang: called with each path that is waited for no longer.
        enter_thread: called in each thread first: one that reads local files can neither connect
            nor write (see `fence`).
        seconds: that one file may take; None: those of the settings. Then it is a time limit for
            what has one itself, so a file that takes long is no reason to read others meanwhile.
        tuner: finds how many are read at once; None: a `Tuner` of its own.
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
        """Begin to start threads as there are paths."""
        threads = local_threads(self._settings.concurrency)
        self._threads = ThreadPoolExecutor(threads, "rastermeta-read", self._enter_thread)
        # Never shut down: a thread may bring records when nobody wants them any more.
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
        """Leave hanging threads behind, so that closing the loop does not wait for them."""
        self.stop()
        for task in (self._starting, *self._readings.values()):
            task.cancel()
        self._threads.shutdown(wait=False)

    @property
    def threads_bytes(self) -> int:
        """What the threads that read files may take by themselves, for example PROJ's database."""
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
                is_done = chunk.is_read and chunk.is_collected  # before what is ready is taken
                for batch in chunk.batches():
                    yield batch
        finally:
            self._chunks.remove(chunk)
            chunk.close()

    async def _start_threads(self) -> None:
        """Start a thread whenever there is a path for it and a permit."""
        with suppress(Stopped):
            await self._paths_there.wait()
            with suppress(RuntimeError):  # else who has rows to make will say so
                self._rows.submit(int)  # before others take the last threads that are to be had
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
        """Tell whether there are more paths than threads that are about to take their first."""
        about_to = sum(not reading.begun for reading in self._readings)
        return sum(chunk.left for chunk in self._chunks) > about_to

    def _take(self) -> tuple[Chunk, int] | None:
        for chunk in self._chunks[:]:  # others are added meanwhile
            at = chunk.take()
            if at is not None:
                return chunk, at
        return None

    async def _watch(self, reading: _ChunkReading, permit: _Permit) -> None:
        """Have a thread read; what is wrong with it is an error of the run."""
        try:
            await self._run(reading, permit)
        except Exception as error:  # noqa: BLE001  # raised where rows are taken
            for chunk in self._chunks:
                chunk.fail(error)
        finally:
            del self._readings[reading]
            permit.end()

    async def _run(self, reading: _ChunkReading, permit: _Permit) -> None:
        """Have a thread read; give up the file that it hangs in."""
        try:
            call = self._loop.run_in_executor(self._threads, reading.run)
        except RuntimeError:  # the system starts no further thread
            reading.go_no_further()  # it waits for one of those there are
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
        """Return how many seconds after a file was opened something is to be done about it."""
        return self._seconds if permit.lent else self._slow_seconds

    @contextmanager
    def no_time_of_the_file(self) -> Iterator[None]:
        """Let the thread that reads wait for its turn: that is no time of the file that it has."""
        reading: _ChunkReading = self._thread.reading
        reading.pause()
        try:
            yield
        finally:
            reading.go_on()

    def collect(self, chunk: Chunk) -> None:
        """Have rows made of what was read, here if this is the first thread, else in one that does.

        To make rows each thread has PROJ's database open, and CRSs of its own.
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
        except Exception as error:  # noqa: BLE001  # raised where rows are taken
            self._loop.call_soon_threadsafe(chunk.fail, error)

    def note_thread(self, reading: _ChunkReading) -> None:
        """Note that this thread reads files now."""
        self._thread.reading = reading
        self._limit.note_thread()

    @property
    def skips_offline(self) -> bool:
        """Whether files that are not on disk are left where they are."""
        return self._settings.skip_offline

    def note_file(self) -> None:
        """Note that a file was read."""
        self._limit.files += 1  # one that is lost between two threads is no matter

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
        """Whether no further file is to be opened."""
        return self._stopping


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


class _ChunkReading:
    """One thread's way from file to file, watched from the event loop."""

    def __init__(self, pool: ThreadPool, reader: Reader, take: Take) -> None:
        self.begun = False
        """Whether it has taken a path, or there was none."""
        self._pool = pool
        self._reader = reader
        self._take = take
        self._lock = Lock()
        self._last = self._abandoned = False
        self._taken: tuple[Chunk, int] | None = None
        self._opened_at = math.inf
        """When the file was opened that is being read; infinity: none is."""

    def run(self) -> None:
        """Read files until there are no paths, or fewer threads are to do so."""
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

    def _read(self, path: bytes) -> Record | None:
        """Return the record of a path; None: it was not read any more."""
        row = offline_row(path) if self._pool.skips_offline else None
        try:
            return row or self._reader.read(path)
        except Stopped:
            return None

    def pause(self) -> None:
        """Count no time of the file that is open now, until `go_on`."""
        self._opened_at = math.inf

    def go_on(self) -> None:
        """Count it from the start."""
        self._opened_at = time.monotonic()

    def seconds_left(self, timeout: float) -> float:
        """Return how long the file that is open now may still take; where none is, all the time."""
        left = self._opened_at + timeout - time.monotonic()
        return min(max(left, 0.0), timeout)

    def go_no_further(self) -> None:
        """Open no other file after this one."""
        self._last = True

    def abandon(self, timeout: float) -> tuple[Chunk, int] | None:
        """Return the path that hangs, by its place in a chunk; its record is no longer wanted.

        None: it does not hang any more.
        """
        with self._lock:
            if self.seconds_left(timeout):
                return None
            self._abandoned = True
            return self._taken
