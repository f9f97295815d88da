"""The library's entry points: a stream of records, or a catalog on disk; one record: `one_file`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Coroutine,
    Iterable,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rastermeta_async.catalog.output import Output, open_output
from rastermeta_async.catalog.sink import LineSink, NoLog
from rastermeta_async.model.channels import Sender, channel
from rastermeta_async.model.errors import (
    PruneError,
    SourceError,
    WriteError,
)
from rastermeta_async.model.gdal_options import may_change_answers, options_as_json
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import SCHEMA, Record, from_batch
from rastermeta_async.model.row_ops import parted
from rastermeta_async.model.settings import STREAM_SECONDS, Access, Order, Settings
from rastermeta_async.model.text import plural
from rastermeta_async.model.timeouts import let_go, to_the_end
from rastermeta_async.model.urls import local_path
from rastermeta_async.pipeline import Consumer, Rows, committer, run
from rastermeta_async.pools.base import HasWorkers, Pool
from rastermeta_async.progress import Progress
from rastermeta_async.readers.base import load_reader
from rastermeta_async.remaining import Inputs
from rastermeta_async.sources.paths import AnyPath, Source, source_of

if TYPE_CHECKING:
    from rastermeta_async.catalog.uploads import Upload

Paths = Source | Iterable[AnyPath] | AsyncIterable[AnyPath]

log = logging.getLogger(__name__)

DUPLICATE_WINDOW = 1 << 20
"""Number of latest paths among which a duplicate is skipped. An older duplicate is read again;
the catalog still has one row for it."""

_NOTE_SECONDS = 1.0
"""How often a run looks whether its workers have changed."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    rows: int
    """Rows of the catalog; after a stop: rows that this run committed."""
    failures: int
    """Rows that are not a success."""
    complete: bool
    """Whether the source was read to its end and the catalog has its final name."""
    sidecars: int = 0
    """Paths that are no rasters and have no row: files that belong to a raster."""
    others: int = 0
    """Other paths that are no rasters and have no row."""
    several: bool = False
    """Whether a path of the catalog has several rows, of members or subdatasets."""


async def extract(
    paths: Paths, settings: Settings | None = None, *, pool: Pool | None = None
) -> AsyncGenerator[Record, None]:
    """Yield the records of every path, in no particular order, each path once.

    A path has one record, or, if it is an archive, one for each raster in it.

    Memory grows by 16 bytes a path, to detect duplicates, and is constant otherwise. A slow
    consumer slows the reading down. Leaving the loop early ends the run; with
    `contextlib.aclosing` this happens at a definite time.

    Args:
        paths: paths in any iterable or asynchronous iterable, or a `Source`.
        settings: how to run; None: the defaults.
        pool: reads the headers; this function enters and leaves it. None: the pool for the
            settings.

    Raises:
        RastermetaError: the run cannot go on (see `rastermeta_async.model.errors`). A bad file
            raises nothing: it becomes a record.
    """
    settings = settings or Settings()
    sender: Sender[pa.RecordBatch]
    sender, batches = channel(1)

    async def forward(rows: Rows) -> None:
        async for batch in rows:
            await sender.send(parted(batch)[0])

    async def read() -> None:
        try:
            inputs = Inputs(source_of(paths), PathSet(), PathSet(), strict=settings.strict)
            await _run(inputs, forward, settings, Progress(), asyncio.Event(), pool)
        finally:
            sender.close()

    # In a separate task: a task group must not be left open across a yield (PEP 789).
    reading = asyncio.create_task(read())
    try:
        async for batch in batches:
            for record in from_batch(batch):
                yield record
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            reading.exception()  # marks it as retrieved: it was raised above, or the caller left


def read_table(paths: Iterable[AnyPath], settings: Settings | None = None) -> pa.Table:
    """Return the rows of `SCHEMA` of each path, in any order; blocks until all are read.

    It is for the functions that an engine calls with some thousand paths, such as Dask, Ray or
    Spark: it may be pickled, works also where an event loop runs, and leaves nothing behind.

    Args:
        paths: files and URLs.
        settings: how to read them; None: the defaults. Each path has a row, whatever is `strict`.

    Raises:
        RastermetaError: as for `extract`.
    """
    if isinstance(paths, str | bytes | os.PathLike):
        raise SourceError(f"expected several paths, not one: give [{paths!r}]")
    names = [local_path(os.fsencode(path)) for path in paths]

    async def read() -> list[pa.RecordBatch]:
        async with pool_for(settings or Settings()) as pool:
            return [batch async for batch in pool.read(names)] if names else []

    with ThreadPoolExecutor(1) as thread:
        batches = thread.submit(asyncio.run, read()).result()
    return pa.Table.from_batches(batches, SCHEMA)


async def extract_to(
    output: AnyPath,
    paths: Paths,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    pool: Pool | None = None,
) -> Outcome:
    """Read every path's header into a catalog; a second call resumes it.

    Args:
        output: a name that ends in .parquet, .ndjson, .jsonl or .json. Parts and log are next
            to it until it is finished. The last part of a URL names a file in the current
            folder; the finished file is copied to the URL.
        paths: paths in any iterable or asynchronous iterable, or a `Source`.
        settings: how to run; None: the defaults.
        overwrite: start from nothing; an older catalog stays until the new one is finished.
        progress: is updated during the run.
        stop: when set, the run finishes the files that are being read, commits them and returns.
        pool: as for `extract`.

    Raises:
        ForeignOutputError: the file of that name, or the object at the URL, was not made by this
            program, or belongs to another output or user; nothing was read.
        SettingsError, SourceError, StoreError, StuckError, OutputError: see
            `rastermeta_async.model.errors`. Committed rows are safe, and the same call resumes.
    """
    settings = settings or Settings()
    progress = progress or Progress()
    stop = stop or asyncio.Event()
    config = options_as_json(settings.gdal_config)
    opening = opened_output(
        output, settings.access, overwrite=overwrite, order=settings.sort, gdal_config=config
    )
    async with opening as (target, upload):
        inputs = await _inputs_of(paths, target, settings)
        consume = committer(target.sink, target.log, settings, progress)
        pool = pool or pool_for(settings)
        async with _noting_workers(pool, target):
            await _run(inputs, consume, settings, progress, stop, pool)
        if stop.is_set():
            return Outcome(
                progress.committed, progress.failures, complete=False,
                sidecars=progress.sidecars, others=progress.others,
                several=progress.rows > progress.rasters,
            )  # fmt: skip
        refused = None
        if not settings.prune:
            progress.not_given = len(inputs.failed) - len(inputs.given) - progress.walked
        else:
            refused = await to_the_end(partial(_prune, target, inputs.given, settings, progress))
        progress.sealing = True
        totals = await to_the_end(target.seal)
        if upload:
            await upload.send()
        if refused:
            raise refused
        return Outcome(
            totals.rows, totals.failures, complete=True, sidecars=totals.sidecars,
            others=totals.others, several=totals.several,
        )  # fmt: skip


async def _inputs_of(paths: Paths, target: Output, settings: Settings) -> Inputs:
    """Return the paths of a run without those that its output has finished."""
    failed, no_rasters = PathSet(), PathSet()
    finished = await to_the_end(
        partial(
            target.finished,
            retry_failed=settings.retry_failed,
            update=settings.update,
            failed=failed,
            no_rasters=no_rasters,
            strict=settings.strict is True,
        )
    )
    if done := len(finished) + (0 if settings.update else len(no_rasters)):
        are = "is" if done == 1 else "are"
        log.debug("%s: %s %s finished already", target.path, plural(done, "path"), are)
    return Inputs(
        source_of(paths), finished, PathSet(window=DUPLICATE_WINDOW), settings.timeout, failed,
        no_rasters=no_rasters, strict=settings.strict,
    )  # fmt: skip


@asynccontextmanager
async def opened_output(
    output: AnyPath,
    access: Access,
    *,
    overwrite: bool,
    order: Order | None,
    gdal_config: str,
    replaces: bool = False,
) -> AsyncIterator[tuple[Output, Upload | None]]:
    """Open an output, and yield it with what copies it to its URL, if it has one.

    Args:
        output: see `extract_to`.
        access: how its store is reached.
        overwrite: see `Output`.
        order: see `Output`.
        gdal_config: see `Output`.
        replaces: any object at the URL may be replaced, also without `overwrite`.
    """
    opening = partial(
        open_output,
        os.fsdecode(output),
        overwrite=overwrite,
        order=order,
        gdal_config=gdal_config,
    )
    target = await to_the_end(opening, if_cancelled=Output.close)
    try:
        upload = _upload(target, access) if target.url else None
        if upload:
            await upload.check(overwrite=overwrite or replaces)
        yield target, upload
    finally:
        target.close()


def _upload(target: Output, access: Access) -> Upload:
    from rastermeta_async.catalog.uploads import Upload  # only outputs in a store need it

    return Upload(target, access)


@asynccontextmanager
async def _noting_workers(pool: Pool, target: Output) -> AsyncIterator[None]:
    """Note each second which workers a pool has, if it can tell them."""

    async def note(pool: HasWorkers) -> None:
        noted: list[str] = []
        while True:
            names = pool.workers()
            if names != noted and await to_the_end(partial(target.note_workers, names)):
                noted = names
            await asyncio.sleep(_NOTE_SECONDS)

    noting = asyncio.create_task(note(pool)) if isinstance(pool, HasWorkers) else None
    try:
        yield
    finally:
        if noting:
            noting.cancel()
            await asyncio.wait({noting})


def _prune(
    target: Output, given: PathSet, settings: Settings, progress: Progress
) -> PruneError | None:
    """Drop rows without a file; return an error instead of raising it, so that sealing goes on."""
    try:
        for _ in target.prune(given, even_folders=settings.prune_folders, timeout=settings.timeout):
            progress.dropped += 1
    except PruneError as error:
        return error
    return None


async def extract_to_stream(
    fd: int,
    paths: Paths,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    pool: Pool | None = None,
) -> Outcome:
    """Write every path's record to an open file descriptor, as lines of JSON.

    A stream has no checkpoint: it cannot be resumed. The arguments are those of `extract_to`.

    Raises:
        BrokenPipeError: the reader of the stream has gone.
    """
    settings = settings or Settings()
    progress = progress or Progress()
    stop = stop or asyncio.Event()
    inputs = Inputs(source_of(paths), PathSet(), PathSet(), strict=settings.strict)
    consume = committer(LineSink(fd, stop.is_set), NoLog(), settings, progress, STREAM_SECONDS)
    try:
        await _run(inputs, consume, settings, progress, stop, pool)
    except WriteError:
        if not stop.is_set():  # after a stop, unread rows may be lost
            raise
    return Outcome(
        progress.committed, progress.failures, complete=not stop.is_set(),
        sidecars=progress.sidecars, others=progress.others,
        several=progress.rows > progress.rasters,
    )  # fmt: skip


async def _run(
    inputs: Inputs,
    consume: Consumer,
    settings: Settings,
    progress: Progress,
    stop: asyncio.Event,
    given: Pool | None = None,
) -> None:
    async with AsyncExitStack() as entered:
        pool = given or pool_for(settings)
        if not await _done_before(stop, entered.enter_async_context(pool)):
            return
        stopping = asyncio.create_task(_stop_pool(stop, pool))
        try:
            await run(inputs, pool, consume, settings, progress, stop)
        finally:
            stopping.cancel()


async def _done_before(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Wait for some work; when `stop` is set first, cancel it, wait for its end, return False."""
    doing, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if is_late := not doing.done():
            let_go(doing)
            await asyncio.wait({doing})
    if not is_late:
        await doing
    return not is_late


def pool_for(settings: Settings) -> Pool:
    """Return the pool for the settings; a run with workers never imports rasterio.

    If this process's environment may change what GDAL reads, the pool has at least one worker.
    """
    if not settings.workers and may_change_answers():
        settings = replace(settings, workers=1)
    if settings.workers:
        from rastermeta_async.pools.processes import WorkerPool

        return WorkerPool(settings)
    from rastermeta_async.pools.header_pool import HeaderPool
    from rastermeta_async.readers.members import with_members
    from rastermeta_async.readers.part_rows import with_subdatasets

    reader = load_reader(
        settings.reader_path, settings.drivers, settings.access, settings.gdal_config
    )
    members = with_members(reader, settings.members, settings.timeout)
    files = members
    if settings.subdatasets:
        files = with_subdatasets(members, reader, settings.timeout)
    return HeaderPool(files, reader, settings)


async def _stop_pool(stop: asyncio.Event, pool: Pool) -> None:
    await stop.wait()
    pool.stop()
