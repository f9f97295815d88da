"""Combine finished catalogs into the rows of one, in bounded memory, each path of one catalog.

    catalogs ──▶ runs by path, checked ──▶ merge ──▶ (sorted by place)

If several catalogs have a path, `latest` picks its rows. So that it does not matter which catalogs
are merged first, rows without a modification time, as of files that could not be reached, are
older than all others.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.checkpoint import history, log_content, read_entries
from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.catalog.durable import open_regular
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.merge import Batches, Run, merge_many
from rastermeta_async.catalog.names import log_path, parts_folder
from rastermeta_async.catalog.no_rasters import run_of, sealed_of
from rastermeta_async.catalog.order import Keys, keys_of
from rastermeta_async.catalog.prefetch import prefetched
from rastermeta_async.catalog.reading import footer_of
from rastermeta_async.catalog.resort import SAMPLE_KEYS, resorted
from rastermeta_async.model.errors import (
    CheckpointError,
    ForeignOutputError,
    OutputError,
    SettingsError,
)
from rastermeta_async.model.gdal_options import options_in_words
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.row_ops import (
    IDENTITY,
    has_inside,
    last_of_each,
    of_last_reading,
    parted,
    row_keys,
)
from rastermeta_async.model.settings import Order
from rastermeta_async.model.timeouts import Stopped

log = logging.getLogger(__name__)

_PLACE = [*IDENTITY, "bbox"]
"""Columns that tell the key of a row in any order."""

_BYTES_A_LINE = 1000
"""Roughly those of a row as JSON; only estimates depend on it."""

_NO_TIME = -(2**63)
"""Stands for a missing modification time, in microseconds."""


class FinishedCatalog:
    """A finished catalog that is read as a run.

    Args:
        path: of a local file.
        shown: its name in messages.
        stop: when set, reading raises `Stopped`.

    Raises:
        SettingsError, OutputError: see `batches_of`; also if it does not tell its order, or more
            rows were committed for it.
    """

    def __init__(self, path: str, shown: str, stop: Event) -> None:
        self._path = path
        self.shown = shown
        self._stop = stop
        with closing(self.batches(["status"])) as rows:
            next(rows, None)  # raises if it is no catalog
        if unfinished(path):
            raise OutputError(
                f"{shown} has rows of a run that was not finished: run the same extract command to "
                "its end first"
            )
        form = format_of(path)
        try:
            self._order = form.order(path)
        except ForeignOutputError as error:
            raise OutputError(
                f"{shown} was written anew by another program: nothing tells the "
                "order of its rows any more. Make it anew, or restore it."
            ) from error
        self.gdal_config = form.gdal_config(path)
        self.count = _rows_about(path)
        """Number of its rows; of JSON an estimate."""
        self.rows_read = 0
        """Rows that its runs have yielded, of no rasters, too."""

    def batches(self, columns: Sequence[str]) -> Batches:
        """Yield some columns of its rows, in its order.

        Raises:
            OutputError: it is damaged, or no run wrote it.
            Stopped: `stop` is set.
        """
        try:
            for batch in batches_of(self._path, columns):
                if self._stop.is_set():
                    raise Stopped
                yield batch
        except OutputError as error:
            raise OutputError(str(error).replace(self._path, self.shown)) from error

    def run(self, scratch: str) -> Run:
        """Return its rows as a run by path.

        Args:
            scratch: folder for scratch files.
        """
        return Run(b"", None, self.count, lambda: prefetched(self._by_path(scratch)))

    def no_rasters(self, scratch: str) -> list[Run]:
        """Return the rows of no rasters that are kept with its log as a run; [] if there are none.

        Args:
            scratch: folder for scratch files.

        Raises:
            CheckpointError: they are not what the log says.
        """
        folder, sealed = parts_folder(self._path), sealed_of(self._path)
        part = sealed.no_rasters if sealed else None
        if part is None:
            return []
        if not os.path.exists(path := os.path.join(folder, part.name)):
            log.warning("%s was removed: the paths that it named as no rasters are left out", path)
            return []
        run = run_of(folder, part, scratch, in_order=self._order is not Order.NONE)
        return [replace(run, open=partial(self._counted, run))]

    def _counted(self, run: Run) -> Batches:
        for batch in run.open():
            _, others = parted(batch)  # the file may be someone else's
            if others is not None:
                self.rows_read += others.num_rows
                yield others

    def _by_path(self, scratch: str) -> Batches:
        rows = self.batches(SCHEMA.names)
        if self._order is not Order.PATH:
            sample = list(self.sample(row_keys, self.count))
            rows = resorted(rows, sample, self.count, scratch, row_keys)
        last = None
        with closing(rows):
            for batch in rows:
                if not batch.num_rows:
                    continue
                keys = row_keys(batch)
                if not _is_ascending(keys) or (last is not None and keys[0].as_py() <= last):
                    raise OutputError(
                        f"{self.shown}: its rows are not sorted by path, each path once. No run "
                        "writes that: make the catalog anew, or restore it."
                    )
                last = keys[-1].as_py()
                self.rows_read += batch.num_rows
                yield batch

    def sample(self, keys: Keys, count: int) -> Iterator[bytes]:
        """Yield the keys of evenly spaced rows, `SAMPLE_KEYS` of `count`."""
        step = count // SAMPLE_KEYS + 1
        start = 0
        for batch in self.batches(_PLACE):
            yield from keys(batch.slice(start))[::step].to_pylist()
            start = (start - batch.num_rows) % step


def unfinished(catalog: str) -> bool:
    """Tell whether rows were committed for a catalog that are not in it yet."""
    log = log_path(catalog)
    if not os.path.isfile(log):
        return False
    with contextlib.suppress(CheckpointError), open(open_regular(log), "rb") as file:
        return bool(history(read_entries(log_content(file, log), log)).parts)
    return False


def _rows_about(path: str) -> int:
    if path.endswith(".parquet"):
        with open(path, "rb") as file:
            return int(footer_of(file).num_rows)
    return os.path.getsize(path) // _BYTES_A_LINE + 1


def common_gdal_config(catalogs: Sequence[FinishedCatalog]) -> str:
    """Return the options of GDAL that all rows were read with.

    Raises:
        SettingsError: the catalogs differ.
    """
    first = catalogs[0]
    for other in catalogs:
        if other.gdal_config != first.gdal_config:
            raise SettingsError(
                f"{first.shown} was read {options_in_words(first.gdal_config)}, but {other.shown} "
                f"{options_in_words(other.gdal_config)}: merge those that were read alike"
            )
    return first.gdal_config


def combined(catalogs: Sequence[FinishedCatalog], scratch: str, order: Order) -> Batches:
    """Yield the rows of all catalogs in an order, each path once, with those of no rasters.

    Args:
        catalogs: the order tells which row counts, see above.
        scratch: existing folder for scratch files.
        order: by path or by place.

    Raises:
        OutputError: a catalog is damaged, or no run wrote it.
        Stopped: the catalogs were told to stop.
    """
    runs: list[Run] = []
    for catalog in catalogs:
        runs += [*catalog.no_rasters(scratch), catalog.run(scratch)]
    rows = merge_many(runs, scratch, pick=latest)
    if order is Order.PATH:
        yield from rows
        return
    keys, count = keys_of(order), sum(catalog.count for catalog in catalogs)
    sample = itertools.chain.from_iterable(catalog.sample(keys, count) for catalog in catalogs)
    with closing(rows):
        yield from resorted(rows, list(sample), count, scratch, keys)


def latest(rows: pa.Table, keys_of: Keys) -> pa.RecordBatch:
    """Return rows sorted by their keys, of each key those of the chunk with the newest time.

    Each catalog is a chunk; of several with the same time, the last one counts. A row without a
    time is older than all others.
    """
    keys = keys_of(rows).combine_chunks()
    order = pc.array_sort_indices(keys)
    ordered = keys.take(order)
    if len(order) > 1 and pc.any(pc.equal(ordered[1:], ordered[:-1])).as_py():
        times = pc.fill_null(rows.column("mtime").cast(pa.int64()), _NO_TIME)
        ages = pa.array(range(len(keys)), pa.int64())
        sorting = pa.table([keys, times, ages], ["key", "time", "age"])
        by = [(name, "ascending") for name in sorting.column_names]
        order = pc.sort_indices(sorting, sort_keys=by)
    if has_inside(rows):
        chunks = rows.column(0).chunks
        number = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
        return of_last_reading(rows, keys, order, number)
    return last_of_each(rows, keys, order)


def _is_ascending(keys: pa.Array) -> bool:
    return len(keys) < 2 or bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py())
