"""Which rows have been replaced by newer ones of the same path, found without sorting the rows.

Of each row 24 bytes are looked at: the fingerprint of its path, its place, and whether it counts.
They are dealt out by fingerprint, so that all that bear the same are together in one of some
heaps, each of which is small enough to be sorted in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa

from rastermeta_async.catalog.names import SCRATCH_END, SCRATCH_START
from rastermeta_async.pathset import fingerprints
from rastermeta_async.record import GONE, SUCCESSES
from rastermeta_async.rows import path_keys

HEAP_ROWS = 1 << 18
MAX_HEAPS = 64
"""Files open at once."""

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_GONE, _FAILED = 1, 2
"""Bits of a mark; the row's place comes above them."""


class Superseded(NamedTuple):
    """What is to be known of rows before they are put together."""

    places: Numbers
    """Places of the rows that are to be dropped, ascending, shape (n,)."""
    rows: int
    """That stay."""
    failures: int
    """Of them that are no success."""


def superseded(rows: Iterable[pa.RecordBatch], count: int, scratch: str) -> Superseded:
    """Return the rows that a newer one of the same path replaces, or whose path is gone.

    Args:
        rows: the columns `IDENTITY`, oldest first.
        count: how many rows there are.
        scratch: existing folder for files that are gone in the end.
    """
    heaps = min(MAX_HEAPS, 1 << (max(count - 1, 0) // HEAP_ROWS).bit_length())
    dropped: list[Numbers] = [np.empty(0, np.int64)]
    kept = failures = 0
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                tempfile.TemporaryFile(dir=scratch, prefix=SCRATCH_START, suffix=SCRATCH_END)
            )
            for _ in range(heaps)
        ]
        place = 0
        for batch in rows:
            _deal(_marked(batch, place), files)
            place += batch.num_rows
        for file in files:
            file.seek(0)
            last, marks = _told(np.frombuffer(file.read(), np.int64).reshape(-1, 3))
            stays = last & (marks & _GONE == 0)
            dropped.append(marks[~stays] >> 2)
            kept += int(stays.sum())
            failures += int((marks[stays] & _FAILED != 0).sum())
    return Superseded(np.sort(np.concatenate(dropped)), kept, failures)


def _marked(batch: pa.RecordBatch, place: int) -> Numbers:
    """Return fingerprint and mark of each row, shape (rows, 3); the first is at `place`."""
    flags = {GONE: _GONE, **dict.fromkeys(SUCCESSES, 0)}
    status = batch.column("status").dictionary_encode()
    bits = np.array([flags.get(name, _FAILED) for name in status.dictionary.to_pylist()], np.int64)
    marks = np.arange(place, place + batch.num_rows) << 2 | bits[status.indices.to_numpy()]
    return np.column_stack([fingerprints(path_keys(batch).to_pylist()), marks])


def _deal(marked: Numbers, files: Sequence[IO[bytes]]) -> None:
    """Append rows to the heaps that their fingerprints belong to."""
    if len(files) == 1:
        files[0].write(marked.tobytes())
        return
    heap = marked[:, 0] & (len(files) - 1)
    marked = marked[np.argsort(heap, kind="stable")]
    ends = np.cumsum(np.bincount(heap, minlength=len(files))).tolist()
    start = 0
    for file, end in zip(files, ends, strict=True):
        if end > start:
            file.write(marked[start:end].tobytes())
        start = end


def _told(heap: Numbers) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], Numbers]:
    """Return of a heap, ordered anew, which rows are the last of their path, and all marks."""
    first, second, marks = heap.T
    order = np.argsort(first)
    if (first[order[1:]] == first[order[:-1]]).any():  # else, as mostly, no path is there twice
        order = np.lexsort((marks, second, first))
    same = (heap[order[1:], :2] == heap[order[:-1], :2]).all(axis=1)
    return np.append(~same, True)[: len(heap)], marks[order]
