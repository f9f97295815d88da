"""Run the tasks and queues of a run, in the order "sink first, checkpoint second".

    source ──▶ path queue ──▶ readers over the pool ──▶ row queue ──▶ consumer

No other module owns tasks or queues of a run. Every queue is bounded, so the slowest part slows
down all parts before it (backpressure). The number of tasks depends on the pool, never on the
input. An error in any part cancels the rest and is raised; committed rows stay committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.changes import Unchanged, stamp_of
from rastermeta_async.catalog.formats import Grouper
from rastermeta_async.catalog.no_rasters import are_inside_stores, are_unread
from rastermeta_async.catalog.sink import Log, Sink
from rastermeta_async.model.errors import PoolError, first_error_only
from rastermeta_async.model.machine import give_back
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import NO_RASTERS, SCHEMA, SUCCESSES, shown_name, to_batch
from rastermeta_async.model.row_ops import (
    count_missing,
    count_passing,
    count_readings,
    counts_of,
    has_inside,
    kept,
)
from rastermeta_async.model.settings import (
    BATCH_BYTES,
    BATCH_SECONDS,
    CHUNK_BYTES,
    CHUNK_PATHS,
    CHUNK_SECONDS,
    MAX_CHUNK_PATHS,
    Settings,
)
from rastermeta_async.model.text import shortened
from rastermeta_async.model.timeouts import BATCH, answers, let_go, to_the_end
from rastermeta_async.model.urls import FoundPath, local_path
from rastermeta_async.pools.base import Pool
from rastermeta_async.sources.paths import Source
from rastermeta_async.sources.walk import FolderNote, Walked
from rastermeta_async.stores.circuit_breaker import CircuitBreaker

T = TypeVar("T")


class _End:
    """Wakes a waiting receiver when the channel is closed; never leaves this module."""


_END = _End()


class _Queue(asyncio.Queue[T | _End]):
    closed = False

    def wake_at_end(self) -> None:
        """Wake a receiver that waits for an item although none will come."""
        if self.empty():
            self.put_nowait(_END)


class Sender(Generic[T]):
    """The input end of a queue."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def send(self, item: T) -> None:
        """Put an item into the queue; wait while the queue is full."""
        await self._queue.put(item)

    def close(self) -> None:
        """End every receiver after the items sent so far; do not send after this."""
        self._queue.closed = True
        self._queue.wake_at_end()


class Receiver(Generic[T]):
    """The output end of a queue; several tasks may iterate over one receiver."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def __aiter__(self) -> AsyncIterator[T]:
        while not (self._queue.closed and self._queue.empty()):
            item = await self._queue.get()
            if item is _END:
                break
            yield cast("T", item)
        self._queue.wake_at_end()


def channel(size: int) -> tuple[Sender[T], Receiver[T]]:
    """Return the two ends of a queue that holds at most `size` items (at least 1)."""
    queue: _Queue[T] = _Queue(size)
    return Sender(queue), Receiver(queue)


log = logging.getLogger(__name__)
Rows = Receiver[pa.RecordBatch]
Consumer = Callable[[Rows], Coroutine[None, None, None]]
"""Takes all rows of a run; returns after the last row, when its work is done."""

_COMMITS_AT_ONCE = 2
"""Batches of rows that are committed at once: one is written while the next one is encoded."""

_MAX_UNANSWERED = 3
"""Batches of files with a timeout, after which the disk is no longer asked for changes."""


@dataclass
class Progress:
    """How far a run is. Only the pipeline writes it; others take a `snapshot`."""

    done: int = 0
    """Paths finished in this run."""
    rows: int = 0
    """Rows of these paths that are rasters: members of archives have rows of their own."""
    failures: int = 0
    """Rows finished in this run that are neither a success nor of a path that is no raster."""
    sidecars: int = 0
    """Paths finished in this run that are no rasters: files that belong to a raster."""
    others: int = 0
    """Other paths finished in this run that are no rasters."""
    unread_archives: int = 0
    """Archives among `others` whose members were not read, as that was not asked for."""
    store_files: int = 0
    """Files among `others` that make their folders Zarr stores."""
    taken: int = 0
    """Input paths taken so far for reading, finished or not."""
    skipped: int = 0
    """Input paths that are not read: finished in an earlier run, or given twice."""
    dropped: int = 0
    """Rows dropped because their file is gone."""
    walked: int = 0
    """Rows dropped because they are of folders that could be walked this time."""
    missing: int = 0
    """Failures of this run because a local path does not exist."""
    passing: int = 0
    """Failures of this run that a later run may not have."""
    not_given: int = 0
    """Error rows of earlier runs whose paths are not among this run's inputs."""
    example: str | None = None
    """The first failure: path and message."""
    committed: int = 0
    """Committed rows of this run."""
    fraction: float | None = None
    """Share of the input that was read, 0 to 1; None: its size is unknown."""
    sealing: bool = False
    """Whether the catalog is being written."""
    started: float = field(default_factory=time.monotonic)
    """`time.monotonic` when the first file was taken for reading."""
    passed_over: int = 0
    """Input paths skipped before the first file was taken."""

    def take(self, files: int, skipped: int) -> None:
        """Count input paths that are taken for reading, and those that are skipped."""
        if files and not (self.taken or self.done):
            self.started, self.passed_over = time.monotonic(), self.skipped
        self.taken += files
        self.skipped += skipped

    def snapshot(self) -> Progress:
        """Return a copy that does not change."""
        return replace(self)

    @property
    def rasters(self) -> int:
        """Paths finished in this run, but for those of no rasters."""
        return self.done - self.sidecars - self.others

    @property
    def share(self) -> float | None:
        """Share of the reading that is done, 0 to 1; None: unknown."""
        if self.fraction is None or not self.taken:
            return self.fraction
        return self.fraction * self.done / self.taken

    @property
    def rate(self) -> float:
        """Paths a second since the first file was taken."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Time until all is read, if as many of the further paths need reading; None: unknown."""
        if not (self.fraction and self.done):
            return None
        given = self.taken + self.skipped
        new = self.taken / (given - self.passed_over)
        return ((given / self.fraction - given) * new + self.taken - self.done) / self.rate


@dataclass
class Inputs:
    """The paths of a source, without those that need no reading."""

    source: Source
    finished: PathSet | Unchanged
    """Paths that are done already."""
    seen: PathSet
    """Paths given so far in this run; grows."""
    timeout: float = 60.0
    """Timeout in seconds for the disk to say whether a file has changed."""
    failed: PathSet = field(default_factory=PathSet)
    """Paths that have an error row from earlier runs."""
    given: PathSet = field(default_factory=PathSet)
    """Paths of `failed` that are among the inputs of this run; grows."""
    no_rasters: PathSet = field(default_factory=PathSet)
    """Paths that are known to be no rasters; they are read again if they were not found, but named.

    They are not in `finished`, unless that tells which files have changed."""
    strict: bool | None = None
    """See `Settings.strict`."""
    _unanswered: int = 0

    async def to_read(self, paths: Sequence[bytes]) -> list[bytes]:
        """Return the new paths that need a row, and the folders whose row is outdated."""
        files = list(map(local_path, paths))
        walked = [path for path in files if isinstance(path, Walked)]
        if walked:
            files = [path for path in files if not isinstance(path, Walked)]
        self.given.add_new(self.failed.known(files))
        if isinstance(self.finished, Unchanged):  # it asks the disk
            new = self.seen.add_new(files)
            unread = await asyncio.to_thread(self._changed, self.finished, new)
            if len(self.no_rasters):
                known = set(self.no_rasters.known(new)).difference(unread)
                unread += self._named(known)
        else:
            unread = self.seen.add_new(self.finished.missing(files))
            if len(self.no_rasters):
                known = set(self.no_rasters.known(unread))
                named = self._named(known)
                unread = [path for path in unread if path not in known or path in named]
        if self.strict is not None:
            unread = [*map(_as_named if self.strict else _as_found, unread)]
        # A folder that is given as a file, too, keeps its row.
        only_walked = self.given.missing(self.seen.add_new(walked))
        return self.failed.known(only_walked) + unread

    def _named(self, paths: Collection[bytes]) -> set[bytes]:
        """Return the paths that are to have a row even if they are no rasters."""
        if self.strict is not None:
            return set(paths) if self.strict else set()
        return {path for path in paths if not isinstance(path, FoundPath)}

    def _changed(self, unchanged: Unchanged, paths: list[bytes]) -> list[bytes]:
        """Return the paths that have changed, or whose state the disk does not report in time.

        The pool then finds out what is wrong. After `_MAX_UNANSWERED` timeouts, all further paths
        are returned without asking the disk.
        """
        found: list[bytes] = []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            if self._unanswered < _MAX_UNANSWERED:
                now = answers(self.timeout, stamp_of, some)
                self._unanswered += any(isinstance(stamp, TimeoutError) for stamp in now)
                some = unchanged.changed(some, now)
            found += some
        return found


async def run(
    inputs: Inputs,
    pool: Pool,
    consume: Consumer,
    settings: Settings,
    progress: Progress,
    stop: asyncio.Event,
) -> None:
    """Read every path of the inputs and hand the rows to `consume`, in no particular order.

    When `stop` is set, nothing more is taken from the source or the path queue. Headers that
    are being read are finished and consumed, then this returns. When this is cancelled or has
    raised, all tasks have ended; header opens may still run in threads.

    Raises:
        The first error of any part, in place of the exception group around it.
    """
    to_readers: Sender[list[bytes]]
    to_consumer: Sender[pa.RecordBatch]
    to_readers, paths = channel(max(1, settings.queued_paths // MAX_CHUNK_PATHS))
    to_consumer, rows = channel(2 * pool.capacity)
    with first_error_only():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_produce(inputs, to_readers, pool, progress, stop))
            breaker = None if settings.keep_going else CircuitBreaker()
            tasks.create_task(_read_all(paths, pool, to_consumer, progress, stop, breaker))
            tasks.create_task(consume(rows))


async def _produce(
    inputs: Inputs, to_readers: Sender[list[bytes]], pool: Pool, progress: Progress,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    async for block in _until(stop, inputs.source.blocks()):
        new = await _unless(stop, inputs.to_read(block))
        if new is None:
            break
        files = _files_among(new)
        progress.take(files, _files_among(block) - files)
        progress.fraction = inputs.source.fraction()
        for chunk in _chunks(new, pool.capacity, progress.rate):
            if stop.is_set():
                break
            await to_readers.send(chunk)
    to_readers.close()


async def _read_all(
    paths: Receiver[list[bytes]], pool: Pool, to_consumer: Sender[pa.RecordBatch],
    progress: Progress, stop: asyncio.Event, breaker: CircuitBreaker | None,
) -> None:  # fmt: skip
    reading: set[asyncio.Task[None]] = set()
    one_is_done = asyncio.Event()

    async def read(chunk: list[bytes]) -> None:
        async for batch in _rows_of(chunk, pool, stop):
            if breaker:
                breaker.note(batch)
            _count_rows(batch, progress)
            await to_consumer.send(batch)

    def forget(task: asyncio.Task[None]) -> None:
        reading.discard(task)
        one_is_done.set()

    async with asyncio.TaskGroup() as tasks:
        async for chunk in paths:
            if stop.is_set():  # taken but not read, so that the producer can end
                continue
            task = tasks.create_task(read(chunk))
            reading.add(task)
            task.add_done_callback(forget)
            while len(reading) >= pool.capacity:
                one_is_done.clear()
                await one_is_done.wait()
    to_consumer.close()


async def _rows_of(
    paths: Sequence[bytes], pool: Pool, stop: asyncio.Event
) -> AsyncIterator[pa.RecordBatch]:
    """Yield the rows of some paths; notes about folders become rows without the pool."""
    if said := [path.row() for path in paths if isinstance(path, FolderNote)]:
        yield to_batch(said)
        paths = [path for path in paths if not isinstance(path, FolderNote)]
    if paths:
        async for batch in _read(paths, pool, stop):
            yield batch


async def _read(
    paths: Sequence[bytes], pool: Pool, stop: asyncio.Event
) -> AsyncIterator[pa.RecordBatch]:
    """Yield what a pool reads, checked: a row that the pool loses would be lost unseen.

    Raises:
        PoolError: there are rows of more or fewer paths, though the run goes on, or no rows at all.
    """
    name, found = f"{type(pool).__name__}.read", 0
    try:
        async for batch in pool.read(paths):
            if not isinstance(batch, pa.RecordBatch):
                kind = type(batch).__name__
                raise PoolError(f"{name} gave a {kind}, not a record batch of SCHEMA")
            if not batch.schema.equals(SCHEMA):
                raise PoolError(f"{name} gave a RecordBatch with other columns than SCHEMA")
            found += count_readings(batch)
            yield batch
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A task group takes a task that ends so for one that has done its work.
        raise PoolError(f"{name} was cancelled, though the run was not") from error
    if found > len(paths) or (found < len(paths) and not stop.is_set()):
        raise PoolError(f"{name} gave rows of {found} paths for {len(paths)} paths")


def _as_named(path: bytes) -> bytes:
    return bytes(path) if isinstance(path, FoundPath) else path


def _as_found(path: bytes) -> bytes:
    return FoundPath(path) if type(path) is bytes else path


def _files_among(paths: Sequence[bytes]) -> int:
    return sum(not isinstance(path, Walked) for path in paths)


def _count_rows(batch: pa.RecordBatch, progress: Progress) -> None:
    rows = kept(batch)
    progress.walked += batch.num_rows - rows.num_rows
    progress.done += count_readings(rows)
    counts = counts_of(rows)
    progress.rows += rows.num_rows - counts.no_rasters
    progress.sidecars += counts.sidecars
    progress.others += counts.others
    if counts.others:
        progress.unread_archives += pc.sum(are_unread(rows)).as_py()
        progress.store_files += pc.sum(are_inside_stores(rows)).as_py()
    if counts.failures:
        progress.failures += counts.failures
        progress.missing += count_missing(rows)
        progress.passing += count_passing(rows)
        progress.example = progress.example or _example(rows)
    if counts.failures or counts.no_rasters:
        _log_problems(rows)


def _log_problems(batch: pa.RecordBatch) -> None:
    if log.isEnabledFor(logging.DEBUG):
        for row in _problems(batch):
            path = _name(row)
            log.debug("%s: %s: %s", path, row["status"], row["error_message"])


def _example(batch: pa.RecordBatch) -> str:
    row = next(row for row in _problems(batch) if row["status"] not in NO_RASTERS)
    return f"{_name(row)}: {row['error_message']}"


def _name(row: dict[str, str]) -> str:
    return shortened(shown_name(row["filepath"], row["member"]))


def _problems(batch: pa.RecordBatch) -> Iterator[dict[str, str]]:
    for row in batch.select(["filepath", "member", "status", "error_message"]).to_pylist():
        if row["status"] not in SUCCESSES:
            yield row


def committer(
    sink: Sink,
    checkpoint: Log,
    settings: Settings,
    progress: Progress,
    seconds: float | None = None,
) -> Consumer:
    """Return a consumer that commits rows in batches: to the sink, then to the log.

    Args:
        sink: keeps the rows.
        checkpoint: keeps a note of each batch.
        settings: `batch_size` rows a batch, if they come in time.
        progress: its `committed` is updated.
        seconds: the longest time that a row waits for its commit; None: `BATCH_SECONDS`.
    """
    interval = BATCH_SECONDS if seconds is None else seconds

    async def commit(rows: pa.Table, earlier: asyncio.Task[None] | None) -> None:
        encoded = await asyncio.to_thread(sink.encode, rows)
        del rows
        if earlier:
            await earlier
        part = await to_the_end(partial(sink.write, encoded))
        await to_the_end(partial(checkpoint.append, part))
        progress.committed += part.rows
        give_back()

    async def consume(rows: Rows) -> None:
        batch = Grouper(settings.batch_size, BATCH_BYTES)
        last = time.monotonic()
        room = asyncio.Semaphore(_COMMITS_AT_ONCE)
        latest: asyncio.Task[None] | None = None

        async def begin_commit(complete: pa.Table) -> None:
            nonlocal last, latest
            await room.acquire()
            latest = tasks.create_task(commit(complete, latest))
            latest.add_done_callback(lambda _: room.release())
            last = time.monotonic()

        with first_error_only():
            async with asyncio.TaskGroup() as tasks:
                async for some in _with_pauses(rows, interval):
                    for complete in _pushed(batch, some) if some is not None else ():
                        await begin_commit(complete)
                    if batch.rows and time.monotonic() >= last + interval:
                        await begin_commit(batch.flush())
                if batch.rows:
                    await begin_commit(batch.flush())

    return consume


def _pushed(batch: Grouper, rows: pa.RecordBatch) -> Iterator[pa.Table]:
    """Add rows to a batch; yield what is complete. The rows of a path stay together."""
    return batch.push_whole(rows) if has_inside(rows) else batch.push(rows)


def _chunks(paths: list[bytes], readers: int, rate: float) -> Iterator[list[bytes]]:
    """Yield a block in chunks of about the same length, so that no tiny chunk is left over.

    Args:
        paths: the block; a short one is spread over all readers.
        readers: the number of readers.
        rate: files a second, over all readers.
    """
    if len(paths) < 2 * CHUNK_PATHS:
        number = readers
    else:
        in_time = int(CHUNK_SECONDS * rate / readers)
        number = -(-len(paths) // min(max(CHUNK_PATHS, in_time), MAX_CHUNK_PATHS))
    most = max(1, -(-len(paths) // number))
    chunk: list[bytes] = []
    size = 0
    for path in paths:
        chunk.append(path)
        size += len(path)
        if len(chunk) >= most or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """Return the result of some work; once `stop` is set, abandon it and return None."""
    stopped, doing = asyncio.create_task(stop.wait()), asyncio.create_task(work)
    try:
        await asyncio.wait({stopped, doing}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        stopped.cancel()
        let_go(doing)


async def _with_pauses(items: AsyncIterable[T], seconds: float) -> AsyncIterator[T | None]:
    """Yield items, and None whenever no item comes for `seconds`."""
    rest = aiter(items)
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(rest))
            await asyncio.wait({following}, timeout=seconds)
            if not following.done():
                yield None
                continue
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield item
    finally:
        if following:
            let_go(following)


async def _until(stop: asyncio.Event, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yield items until `stop` is set; a wait for the next item ends then, too."""
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            following = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                let_go(following)
                raise
            finally:
                if not following.done():
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await following
            if following.cancelled():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        stopped.cancel()
