"""Merge finished catalogs into one: the library's entry point for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory, mkstemp
from threading import Event
from urllib.parse import urlsplit

from rastermeta_async.api import opened_output
from rastermeta_async.catalog.combine import (
    FinishedCatalog,
    combined,
    common_gdal_config,
    unfinished,
)
from rastermeta_async.catalog.output import open_output
from rastermeta_async.model.errors import (
    CheckpointError,
    ForeignOutputError,
    OutputError,
    SettingsError,
)
from rastermeta_async.model.settings import Access, Order
from rastermeta_async.model.timeouts import to_the_end
from rastermeta_async.model.urls import is_url, local_name, local_path, shown_url
from rastermeta_async.sources.paths import AnyPath


@dataclass(frozen=True)
class Merged:
    """What a merge wrote."""

    rows: int
    failures: int
    """Rows that are not a success."""
    repeated: int
    """Rows that were left out, as another catalog's row of the same path was taken."""
    sidecars: int = 0
    """Paths that are no rasters, as the logs of local catalogs tell: files of rasters."""
    others: int = 0
    """Other paths that are no rasters."""
    several: bool = False
    """Whether a path has several rows, of members or subdatasets."""


async def merge_to(
    output: AnyPath,
    catalogs: Sequence[AnyPath],
    *,
    sort: Order | None = None,
    overwrite: bool = False,
    access: Access | None = None,
) -> Merged:
    """Make one catalog of several finished ones, each path once.

    If several catalogs have a path, the row whose file has the newest modification time is taken,
    and of several such rows that of the last catalog. A row without a time, as of a file that could
    not be reached, is taken only if no other catalog has a row with one. Memory does not depend on
    the number of rows. If the process is killed, the same call makes the catalog.

    Args:
        output: as for `extract_to`; it may be one of the catalogs.
        catalogs: files or URLs, of this version's schema. URLs are downloaded first, to
            Python's folder for temporary files.
        sort: order of the rows: by path (None: the same) or spatial.
        overwrite: replace an output that is there.
        access: how object stores are reached; None: by the environment.

    Raises:
        ForeignOutputError: there is an output already; nothing was changed.
        OutputError: a catalog is missing, damaged, of another version, or no catalog.
        SettingsError: a name or order makes no sense, or rows were read with different options.
        StoreError: a store does not give a catalog, or does not take the output.
    """
    order = Order.PATH if sort is None else sort
    if order is Order.NONE:
        raise SettingsError("a merged catalog is sorted: give --sort path or spatial, not none")
    if not catalogs or isinstance(catalogs, str | bytes):
        raise SettingsError("expected a list of catalogs to merge, of one or more")
    access, stop = access or Access(), Event()
    names = [os.fsdecode(name) for name in catalogs]
    if os.fsdecode(output) == "-":
        raise SettingsError("a merged catalog is a file: give -o a name that ends in .parquet")
    if not overwrite:
        await to_the_end(partial(_check_new, local_name(os.fsdecode(output))))
    with TemporaryDirectory(prefix="rastermeta-") as folder:
        paths = [await _local_copy(name, folder, access) for name in names]

        def opened() -> tuple[list[FinishedCatalog], str]:
            found = [
                FinishedCatalog(path, shown_url(name), stop)
                for path, name in zip(paths, names, strict=True)
            ]
            return found, common_gdal_config(found)

        finished, config = await to_the_end(opened)
        again = await to_the_end(partial(_starts_over, output, order, config, overwrite))
        opening = opened_output(
            output, access, overwrite=again, order=order, gdal_config=config, replaces=overwrite
        )
        async with opening as (target, upload):
            sealing = partial(target.seal_rows, partial(combined, finished))
            try:
                totals = await to_the_end(sealing, on_cancel=stop.set)
            except BaseException:
                target.forget()
                raise
            if upload:
                await upload.send()
    written = totals.rows + totals.sidecars + totals.others
    repeated = sum(catalog.rows_read for catalog in finished) - written
    return Merged(
        totals.rows, totals.failures, repeated, totals.sidecars, totals.others,
        several=totals.several,
    )  # fmt: skip


def _starts_over(output: AnyPath, order: Order, config: str, overwrite: bool) -> bool:
    """Return whether an output can only be replaced by starting from nothing.

    Else a catalog that is there, and its log, stay whole until the new catalog takes its place.

    Raises:
        OutputError: rows were committed for the output that are in no catalog yet.
    """
    local = local_name(os.fsdecode(output))
    if unfinished(local):
        raise OutputError(
            f"{local} has rows of a run that was not finished, which would be lost: run the same "
            "extract command to its end first, or give another -o"
        )
    if overwrite:
        try:
            open_output(os.fsdecode(output), order=order, gdal_config=config).close()
        except (ForeignOutputError, CheckpointError):
            return True
    return False


def _check_new(local: str) -> None:
    """Raise ForeignOutputError if a file, folder or link has this name."""
    if os.path.lexists(local):
        raise ForeignOutputError(f"{local} exists: give --overwrite to replace it, or another -o")


async def _local_copy(name: str, folder: str, access: Access) -> str:
    """Return a local file's own path, or the path of a copy of an object in a folder."""
    path = local_path(os.fsencode(name))
    if not is_url(path):
        return os.fsdecode(path)
    from rastermeta_async.catalog.uploads import UPLOAD_SECONDS
    from rastermeta_async.stores.clients import RETRIES, Stores

    name_there = os.path.basename(urlsplit(name).path)
    number, copy = mkstemp(f"-{name_there}", dir=folder)
    with open(number, "wb") as file:  # noqa: ASYNC230  # the thread writes
        async for some in Stores(access, UPLOAD_SECONDS, RETRIES).content(name):
            await asyncio.to_thread(file.write, some)
    return copy
