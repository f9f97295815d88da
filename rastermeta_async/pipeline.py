"""Run the tasks and queues of a run, in the order "sink first, checkpoint second".

    source ──▶ path queue ──▶ readers over the pool ──▶ row queue ──▶ consumer

No other module owns tasks or queues of a run. Every queue is bounded, so the slowest part slows
down all parts before it (backpressure). The number of tasks depends on the pool, never on the
input. An error in any part cancels the rest and is raised; committed rows stay committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial

import pyarrow as pa

from rastermeta_async.catalog.formats import Grouper
from rastermeta_async.catalog.sink import Log, Sink
from rastermeta_async.model.channels import Receiver, Sender, channel, unless, until, with_pauses
from rastermeta_async.model.errors import PoolError, first_error_only
from rastermeta_async.model.machine import give_back
from rastermeta_async.model.record import SCHEMA, to_batch
from rastermeta_async.model.row_ops import count_readings, has_inside
from rastermeta_async.model.settings import (
    BATCH_BYTES,
    BATCH_SECONDS,
    CHUNK_BYTES,
    CHUNK_PATHS,
    CHUNK_SECONDS,
    MAX_CHUNK_PATHS,
    Settings,
)
from rastermeta_async.model.timeouts import to_the_end
from rastermeta_async.pools.base import Pool
from rastermeta_async.progress import Progress, count_rows
from rastermeta_async.remaining import Inputs, files_among
from rastermeta_async.sources.walk import FolderNote
from rastermeta_async.stores.circuit_breaker import CircuitBreaker

Rows = Receiver[pa.RecordBatch]
Consumer = Callable[[Rows], Coroutine[None, None, None]]
"""Takes all rows of a run; returns after the last row, when its work is done."""

_COMMITS_AT_ONCE = 2
"""Batches of rows that are committed at once: one is written while the next one is encoded."""


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
    async for block in until(stop, inputs.source.blocks()):
        new = await unless(stop, inputs.to_read(block))
        if new is None:
            break
        files = files_among(new)
        progress.take(files, files_among(block) - files)
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
            count_rows(batch, progress)
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
                async for some in with_pauses(rows, interval):
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
