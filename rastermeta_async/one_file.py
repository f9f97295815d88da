"""One file's record: it takes no pool and no catalog, so that ``rastermeta show`` is quick."""

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
    """Return the record of one file or object, as `extract` would; blocks meanwhile.

    Args:
        path: any file or URL; whatever is wrong with it is said in the record's `status`,
            `error_type` and `error_message`.
        drivers: GDAL drivers that may open it; None: raster formats that are files in their
            own right; empty: every driver there is.
        reader: see `Settings.reader`.
        gdal_config: see `Settings.gdal_config`.

    Raises:
        SettingsError: there is no such reader, or an option is none.
        RuntimeError: a URL was given in a running event loop, which would wait: use `extract`.
    """
    settings = Settings(drivers=drivers, reader=reader, gdal_config=gdal_config)
    name = local_path(os.fsencode(path))
    if is_url(name):
        return _read_in_pool(name, settings)
    if may_change_answers():
        with ThreadPoolExecutor(1) as thread:  # a loop may be running in this one
            return thread.submit(_read_in_pool, name, settings).result()
    chosen: Router | RasterioReader
    if reader == "auto":
        chosen = make_reader(drivers, gdal_config=gdal_config)
    else:
        chosen = RasterioReader(drivers, Folders(), gdal_config=gdal_config)
    return _in_new_thread(chosen, lambda: _with_footprint(chosen.read(name)))


def _read_in_pool(name: bytes, settings: Settings) -> Record:
    import asyncio

    from rastermeta_async.api import pool_for  # all that a run needs, which no local file does

    async def read() -> Record:
        async with pool_for(settings) as pool:
            (batch,) = [batch async for batch in pool.read([name])]
        return next(from_batch(batch))

    return asyncio.run(read())


def compare_readers(path: AnyPath, *, drivers: tuple[str, ...] | None = None) -> Comparison:
    """Return both readers' records of one local file; arguments as for `read_record`."""
    reader = Router(RasterioReader(drivers), Folders())

    def compare() -> Comparison:
        found = reader.compare(local_path(os.fsencode(path)))
        decoded = found.decoded and _with_footprint(found.decoded)
        return found._replace(rasterio=_with_footprint(found.rasterio), decoded=decoded)

    return _in_new_thread(reader, compare)


def _in_new_thread(reader: Router | RasterioReader, work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread of its own.

    PROJ has no history there, the fence stands round it, and the caller's thread stays as it was.
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
