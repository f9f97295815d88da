"""Operations on many rows at once, column by column: keys, sizes, failures, order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.path_set import PathSet
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

INSIDE = ["member", "subdataset"]
"""Columns that tell the rows of one path apart."""

PATH_AND_STATUS = ["filepath", "filepath_bytes", "status"]
"""Columns with the path of a row, and whether the row is a success."""

IDENTITY = [*PATH_AND_STATUS, *INSIDE]
"""The same with what is inside the path, which together identify a row."""


def path_keys(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Return each row's path as the exact bytes given; they identify and sort rows."""
    shown = pc.cast(rows.column("filepath"), pa.binary())
    return pc.coalesce(rows.column("filepath_bytes"), shown)


def row_keys(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Return a key for each row: it sorts rows by path, then by what is inside the path.

    For a path with one row the key is the path. Needs the columns `IDENTITY`.
    """
    keys = path_keys(rows)
    if _may_have_nul(keys):  # no file has such a name
        keys = pa.array([key.replace(b"\0", b"\0\xff") for key in keys.to_pylist()], pa.binary())
    if not has_inside(rows):
        return keys
    member, part = (pc.cast(pc.fill_null(rows.column(name), ""), pa.binary()) for name in INSIDE)
    if isinstance(keys, pa.Array) and isinstance(member, pa.ChunkedArray):
        member, part = member.combine_chunks(), part.combine_chunks()
    several = pc.binary_join_element_wise(keys, member, part, _BETWEEN)
    plain = pc.and_(*(pc.is_null(rows.column(name)) for name in INSIDE))
    return pc.if_else(plain, keys, several)


def _may_have_nul(keys: pa.Array | pa.ChunkedArray) -> bool:
    """Tell whether there may be a NUL byte in some keys; searching their buffers takes no time."""
    chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    contents = (chunk.buffers()[2] for chunk in chunks)
    return any(content is not None and b"\0" in content.to_pybytes() for content in contents)


_BETWEEN = b"\0\0"
"""Ends a path in a key; less than what any other byte of a longer path can be."""


def has_inside(rows: pa.RecordBatch | pa.Table) -> bool:
    """Tell whether a row is of a member or subdataset, so that a path may have several rows."""
    nulls = (rows.column(name).null_count for name in INSIDE)  # known, or quick to count
    return any(count < rows.num_rows for count in nulls)


Sizes = np.ndarray[Any, np.dtype[np.int64]]

Flags = np.ndarray[Any, np.dtype[np.bool_]]


def first_of_readings(rows: pa.RecordBatch | pa.Table) -> Flags:
    """Return for each row whether a reading begins with it (see `record.Reading`).

    The rows of a reading follow one another in one chunk.
    """
    count = rows.num_rows
    first: Flags = np.ones(count, np.bool_)
    if count < 2 or not has_inside(rows):
        return first
    paths, *inside = (
        np.array(column.to_pylist(), object)
        for column in (path_keys(rows), *(pc.fill_null(rows.column(name), "") for name in INSIDE))
    )
    member, part = inside
    same = paths[1:] == paths[:-1]
    later = (member[1:] > member[:-1]) | ((member[1:] == member[:-1]) & (part[1:] > part[:-1]))
    first[1:] = ~(same & later).astype(np.bool_)
    if isinstance(rows, pa.Table):
        starts = np.cumsum([len(chunk) for chunk in rows.column(0).chunks])
        first[starts[starts < count]] = True
    return first


def count_readings(rows: pa.RecordBatch) -> int:
    """Return how many paths were read for the rows; a path that was read twice counts twice."""
    return int(first_of_readings(rows).sum()) if has_inside(rows) else rows.num_rows


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
    """Return rows sorted by path, of each path those of the last reading."""
    keys = keys_of(rows)
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    order = pc.array_sort_indices(keys)  # stable
    if has_inside(rows):
        return of_last_reading(rows, keys, order, np.cumsum(first_of_readings(rows)))
    return last_of_each(rows, keys, order)


def in_order(rows: pa.Table, keys_of: Callable[[pa.Table], Any]) -> pa.RecordBatch:
    """Return all rows, sorted by their keys."""
    keys = keys_of(rows)
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    return _taken(rows, pc.array_sort_indices(keys))


def last_of_each(rows: pa.Table, keys: pa.Array, order: pa.Array) -> pa.RecordBatch:
    """Return rows in an order that sorts them by their keys, of each key the last one."""
    return _taken(rows, order.filter(pa.array(_is_last(keys.take(order)))))


def of_last_reading(
    rows: pa.Table, keys: pa.Array, order: pa.Array, readings: Sizes
) -> pa.RecordBatch:
    """Return rows sorted by their keys, of each key those of one reading.

    Args:
        rows: any rows.
        keys: of the rows.
        order: sorts the rows by their keys; the last row of a key tells the reading.
        readings: number of the reading that each row is of; its rows are in their order.
    """
    at = np.asarray(order)
    last = np.flatnonzero(_is_last(keys.take(order)))
    counts = np.diff(last, prepend=-1)
    chosen = np.repeat(readings[at[last]], counts)
    groups = np.repeat(np.arange(len(last)), counts)
    stays = readings[at] == chosen
    at, groups = at[stays], groups[stays]
    return _taken(rows, pa.array(at[np.lexsort((at, groups))]))


def _is_last(ordered: pa.Array) -> Flags:
    """Return for each of some sorted keys whether it is the last one of its kind."""
    last: Flags = np.ones(len(ordered), np.bool_)
    if len(ordered) > 1:
        last[:-1] = np.asarray(pc.not_equal(ordered[1:], ordered[:-1]))
    return last


def _taken(rows: pa.Table, order: pa.Array) -> pa.RecordBatch:
    # Column by column: this never holds three copies of the table.
    columns = [column.combine_chunks().take(order) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


class ArchiveSizes:
    """Tells the bytes of rows so that they add up: those of an archive with its first row only."""

    def __init__(self) -> None:
        self._seen = PathSet()

    def of(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the sizes of rows with the columns `IDENTITY` and file_size; some become null."""
        sizes = rows["file_size"]
        if not has_inside(rows):
            return sizes
        paths = path_keys(rows).to_pylist()
        new = set(self._seen.add_new(paths))
        counts = []
        for path in paths:
            counts.append(path in new)
            new.discard(path)
        return pc.if_else(pa.array(counts), sizes, None)


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
