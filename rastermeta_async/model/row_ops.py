"""Operations on many rows at once, column by column: keys, sizes, failures, order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.record import (
    GONE,
    MISSING,
    NO_RASTERS,
    PASSING,
    SIDECAR,
    SUCCESSES,
)
from rastermeta_async.model.urls import is_url

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)

IDENTITY = ["filepath", "filepath_bytes", "status"]
"""Columns with the path of a row, and whether the row is a success."""


def path_keys(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Return each row's path as the exact bytes given; they identify and sort rows."""
    shown = pc.cast(rows.column("filepath"), pa.binary())
    return pc.coalesce(rows.column("filepath_bytes"), shown)


Sizes = np.ndarray[Any, np.dtype[np.int64]]


def row_bytes(batch: pa.RecordBatch) -> Sizes:
    """Return the size of each row in bytes, shape (rows,); it depends only on the row's content."""
    at = np.arange(batch.num_rows + 1, dtype=np.int64)
    total = np.zeros(batch.num_rows + 1, dtype=np.int64)
    for column in batch.columns:
        total += _bytes_before(column, at)
    return np.diff(total)


def _bytes_before(array: pa.Array, at: Sizes) -> Sizes:
    """Return the bytes of the elements before each position of `at`, without validity bits."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _offsets(array)[at] + 4 * at
    if pa.types.is_list(kind):
        return _bytes_before(array.values, _offsets(array)[at]) + 4 * at
    if pa.types.is_struct(kind):
        # StructArray.field() already applies the slice of its parent.
        fields = (array.field(index) for index in range(kind.num_fields))
        return sum((_bytes_before(field, at) for field in fields), 0 * at)
    width: int = max(kind.bit_width // 8, 1)  # a boolean counts as a whole byte
    return at * width


def _offsets(array: pa.Array) -> Sizes:
    """Return the int32 offsets of a variable-length array, shape (length + 1,), as int64."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array) + 1, dtype=np.int64)
    raw = np.frombuffer(buffer, dtype=np.int32)
    start: int = array.offset
    return raw[start : start + len(array) + 1].astype(np.int64)


def is_success(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """Return for each row whether its file was read."""
    return pa.array([status in SUCCESSES for status in _statuses(rows)], pa.bool_())


def kept(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows that belong into a catalog; the batch itself if all rows do."""
    statuses = _statuses(rows)
    if GONE not in statuses:  # nearly always; a filter copies all columns
        return rows
    return rows.filter(pa.array([status != GONE for status in statuses]))


def was_there(rows: pa.RecordBatch) -> pa.Array:
    """Return for each row whether its path existed when it was read."""
    return pa.array(
        [error not in MISSING for error in rows.column("error_type").to_pylist()], pa.bool_()
    )


class Counts(NamedTuple):
    """Numbers of rows by what their statuses mean."""

    failures: int
    """Rows that are neither a success nor of a path that is no raster."""
    sidecars: int = 0
    """Rows of files that belong to a raster."""
    others: int = 0
    """Rows of other files that are no rasters."""

    @property
    def no_rasters(self) -> int:
        """Rows of paths that are no rasters."""
        return self.sidecars + self.others


def counts_of(rows: pa.Table | pa.RecordBatch) -> Counts:
    """Return how many rows are no success, and how many are of no rasters."""
    bad = [status for status in _statuses(rows) if status not in SUCCESSES]
    if NO_RASTERS.isdisjoint(bad):  # nearly always
        return Counts(len(bad))
    no_rasters = [status for status in bad if status in NO_RASTERS]
    sidecars = no_rasters.count(SIDECAR)
    return Counts(len(bad) - len(no_rasters), sidecars, len(no_rasters) - sidecars)


def count_failures(rows: pa.Table | pa.RecordBatch) -> int:
    """Return how many rows are failures: neither a success nor of a path that is no raster."""
    return counts_of(rows).failures


def parted(rows: Rows) -> tuple[Rows, Rows | None]:
    """Return the rows that belong into a catalog, and those of no rasters; None: there are none."""
    statuses = _statuses(rows)
    if NO_RASTERS.isdisjoint(statuses):  # nearly always; a filter copies all columns
        return rows, None
    are_none = pa.array([status in NO_RASTERS for status in statuses], pa.bool_())
    return rows.filter(pc.invert(are_none)), rows.filter(are_none)


def count_missing(rows: pa.RecordBatch) -> int:
    """Return how many rows have local paths that do not exist."""
    gone = zip(rows.column("filepath").to_pylist(), was_there(rows).to_pylist(), strict=True)
    return sum(not there and not is_url(path.encode()) for path, there in gone)


def count_passing(rows: pa.RecordBatch) -> int:
    """Return how many rows have an error that a later run may not have."""
    return sum(error in PASSING for error in rows.column("error_type").to_pylist())


def _statuses(rows: pa.Table | pa.RecordBatch) -> list[str]:
    # In Python: for a few hundred rows a compute function costs ten times as much.
    statuses: list[str] = rows.column("status").to_pylist()
    return statuses


def newest(rows: pa.Table, keys_of: Callable[[pa.Table], Any] = path_keys) -> pa.RecordBatch:
    """Return rows sorted by their keys, one a key: the last row of a key wins."""
    keys = keys_of(rows)
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    return last_of_each(rows, keys, pc.array_sort_indices(keys))  # stable


def last_of_each(rows: pa.Table, keys: pa.Array, order: pa.Array) -> pa.RecordBatch:
    """Return rows in an order that sorts them by their keys, of each key the last one."""
    if len(order) > 1:
        ordered = keys.take(order)
        last = [pc.not_equal(ordered[1:], ordered[:-1]), pa.array([True])]
        order = order.filter(pa.concat_arrays(last))
    # Column by column: this never holds three copies of the table.
    columns = [column.combine_chunks().take(order) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def has_overviews(bands: pa.Array) -> pa.Array:
    """Return for each row whether its first band has overviews; `bands` is the column."""
    first = pc.list_value_length(bands)
    any_bands = pc.greater(pc.fill_null(first, 0), 0)
    at = np.asarray(bands.offsets)[:-1][np.asarray(any_bands)]
    overviews = bands.values.field("overviews").take(pa.array(at))
    found = np.zeros(len(bands), dtype=bool)
    found[np.asarray(any_bands)] = np.asarray(
        pc.greater(pc.fill_null(pc.list_value_length(overviews), 0), 0)
    )
    return pa.array(found)
