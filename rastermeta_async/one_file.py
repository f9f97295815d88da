"""Read one file's record without pool and catalog, so that ``rastermeta show`` is quick."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.gdal_options import may_change_answers
from rastermeta_async.model.record import Record, from_batch
from rastermeta_async.model.settings import Settings
from rastermeta_async.model.urls import is_url, local_path
from rastermeta_async.readers.fence import fence_thread
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Comparison, Router, make_reader
from rastermeta_async.readers.sidecars import Folders

if TYPE_CHECKING:
    from rastermeta_async.sources.paths import AnyPath

T = TypeVar("T")


def read_record(
    path: AnyPath,
    *,
    drivers: tuple[str, ...] | None = None,
    reader: str = "auto",
    gdal_config: tuple[str, ...] = (),
) -> Record:
    """Return the record of one file or object, as `extract` would; blocks until it is read.

    An archive is one file here: `extract` and `read_table` give the rows of its members.

    Args:
        path: any file or URL; the record's `status`, `error_type` and `error_message` say what
            is wrong with it.
        drivers: GDAL drivers that may open it; None: drivers of raster formats that are files
            of their own; empty: every driver.
        reader: see `Settings.reader`.
        gdal_config: see `Settings.gdal_config`.

    Raises:
        SettingsError: the reader does not exist, or an option is invalid.
        RuntimeError: a URL was given while an event loop runs, which would block: use `extract`.
    """
    settings = Settings(drivers=drivers, reader=reader, gdal_config=gdal_config, members=())
    name = local_path(os.fsencode(path))
    if is_url(name):
        return _read_in_pool(name, settings)
    if may_change_answers():
        with ThreadPoolExecutor(1) as thread:  # an event loop may be running in this thread
            return thread.submit(_read_in_pool, name, settings).result()
    chosen: Router | RasterioReader
    if reader == "auto":
        chosen = make_reader(drivers, gdal_config=gdal_config)
    else:
        chosen = RasterioReader(drivers, Folders(), gdal_config=gdal_config)
    return _in_new_thread(chosen, lambda: _with_footprint(chosen.read(name)))


def _read_in_pool(name: bytes, settings: Settings) -> Record:
    import asyncio

    from rastermeta_async.api import pool_for  # slow to import; local files do not need it

    async def read() -> Record:
        async with pool_for(settings) as pool:
            (batch,) = [batch async for batch in pool.read([name])]
        return next(from_batch(batch))

    return asyncio.run(read())


def compare_readers(path: AnyPath, *, drivers: tuple[str, ...] | None = None) -> Comparison:
    """Return both readers' records of one local file; the arguments are those of `read_record`."""
    reader = Router(RasterioReader(drivers), Folders())

    def compare() -> Comparison:
        found = reader.compare(local_path(os.fsencode(path)))
        decoded = found.decoded and _with_footprint(found.decoded)
        return found._replace(rasterio=_with_footprint(found.rasterio), decoded=decoded)

    return _in_new_thread(reader, compare)


def _in_new_thread(reader: Router | RasterioReader, work: Callable[[], T]) -> T:
    """Return what `work` returns in a new thread.

    PROJ has no state there from earlier work, the fence is around it (see `fence_thread`), and
    the caller's thread does not change.
    """

    def run() -> T:
        fence_thread()
        reader.enter()
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _with_footprint(record: Record) -> Record:
    """Return the record with its footprint."""
    return next(from_batch(rows_with_footprints([record])))
