"""Find the rows that a newer reading of the same path replaces, without sorting the rows.

24 bytes represent a row: the fingerprint of its path, its index, and whether it is a tombstone.
These are partitioned by fingerprint into scratch files that are small enough to sort in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.names import SCRATCH_END, SCRATCH_START
from rastermeta_async.model.path_set import fingerprints
from rastermeta_async.model.record import GONE
from rastermeta_async.model.row_ops import path_keys

PARTITION_ROWS = 1 << 18
MAX_PARTITIONS = 64
"""Limit of scratch files that are open at once."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def replaced(
    rows: Iterable[pa.RecordBatch], count: int, scratch: str, starts: Sequence[int] | None = None
) -> Numbers:
    """Return the indices of rows to drop: tombstones, and rows that a newer reading replaces.

    Args:
        rows: the columns `PATH_AND_STATUS`, oldest first.
        count: number of rows.
        scratch: existing folder for files that are removed before this returns.
        starts: index of the first row of each catalog or part, ascending; the rows of a path in
            one of them are of one reading. None: each row is a reading.

    Returns:
        Indices into `rows`, from 0, ascending, shape (n,).
    """
    partitions = min(MAX_PARTITIONS, 1 << (max(count - 1, 0) // PARTITION_ROWS).bit_length())
    dropped: list[Numbers] = [np.empty(0, np.int64)]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                tempfile.TemporaryFile(dir=scratch, prefix=SCRATCH_START, suffix=SCRATCH_END)
            )
            for _ in range(partitions)
        ]
        place = 0
        for batch in rows:
            _partition(_marked(batch, place), files)
            place += batch.num_rows
        for file in files:
            file.seek(0)
            of_all = np.frombuffer(file.read(), np.int64).reshape(-1, 3)
            newest, marks = _sorted(of_all, None if starts is None else np.array(starts))
            is_tombstone = marks & 1 != 0
            dropped.append(marks[~newest | is_tombstone] >> 1)
    return np.sort(np.concatenate(dropped))


def _marked(batch: pa.RecordBatch, place: int) -> Numbers:
    """Return the fingerprint (two words) and the mark of each row, shape (rows, 3).

    A mark is twice the row's index, plus one for a tombstone. The first row has index `place`.
    """
    tombstones = pc.equal(batch.column("status"), GONE).to_numpy(zero_copy_only=False)
    marks = np.arange(place, place + batch.num_rows) << 1 | tombstones
    return np.column_stack([fingerprints(path_keys(batch).to_pylist()), marks])


def _partition(marked: Numbers, files: Sequence[IO[bytes]]) -> None:
    """Append each row to the file for its fingerprint."""
    if len(files) == 1:
        files[0].write(marked.tobytes())
        return
    number = marked[:, 0] & (len(files) - 1)
    marked = marked[np.argsort(number, kind="stable")]
    ends = np.cumsum(np.bincount(number, minlength=len(files))).tolist()
    start = 0
    for file, end in zip(files, ends, strict=True):
        if end > start:
            file.write(marked[start:end].tobytes())
        start = end


def _sorted(
    rows: Numbers, starts: Numbers | None
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Numbers]:
    """Sort rows by path; return for each whether it is of its path's newest reading, its mark."""
    first, second, marks = rows.T
    order = np.argsort(first)
    if (first[order[1:]] == first[order[:-1]]).any():  # else (mostly) each path occurs once
        order = np.lexsort((marks, second, first))
    same = (rows[order[1:], :2] == rows[order[:-1], :2]).all(axis=1)
    last = np.append(~same, True)[: len(rows)]
    marks = marks[order]
    if starts is None or last.all():
        return last, marks
    source = np.searchsorted(starts, marks >> 1, side="right")
    ends = np.flatnonzero(last)
    return source == np.repeat(source[ends], np.diff(ends, prepend=-1)), marks
