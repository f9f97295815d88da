"""Sort rows in bounded memory, by partitioning them into ranges of their keys.

A sample of the keys, taken beforehand, defines the ranges. A partition is a scratch file that is
small enough to sort in memory; if it is larger, it is partitioned again, or sorted by a merge.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.formats import grouped
from rastermeta_async.catalog.merge import (
    Batches,
    merge_many,
    read_scratch,
    scratch_file,
    scratch_folder,
    stored,
)
from rastermeta_async.catalog.order import Keys
from rastermeta_async.model.machine import give_back
from rastermeta_async.model.row_ops import in_order

RUN_ROWS = 65_536
RUN_BYTES = 12 * 1024 * 1024
"""Limits of the rows that are sorted in memory, which holds them twice meanwhile."""

PARTITION_ROWS = 5120
"""Approximate number of rows in a partition."""

MAX_PARTITIONS = 128
"""Limit of scratch files that are open at once."""

SAMPLE_KEYS = 16_384
"""Number of keys in a sample."""


def resorted(
    batches: Iterable[pa.RecordBatch], sample: Sequence[bytes], count: int, folder: str, keys: Keys
) -> Batches:
    """Yield rows in the order of their keys.

    Args:
        batches: the rows, in any order; those with the same key stay in no particular order.
        sample: the keys of evenly spaced rows, in any order. A poor sample only costs time.
        count: approximate number of rows.
        folder: existing folder for scratch files, which are removed in the end.
        keys: returns the keys of rows.
    """
    with scratch_folder(folder) as scratch:
        yield from _sorted(batches, sorted(sample), count / max(len(sample), 1), scratch, keys)


def _sorted(
    batches: Iterable[pa.RecordBatch],
    sample: list[bytes],
    rows_a_key: float,
    folder: str,
    keys: Keys,
) -> Batches:
    """Yield sorted rows; `sample` is sorted, and each key in it stands for `rows_a_key` rows."""
    count = min(MAX_PARTITIONS, len(sample), int(len(sample) * rows_a_key) // PARTITION_ROWS)
    if count < 2:
        yield from _sorted_in_memory(batches, folder, keys)
        return
    starts = [len(sample) * number // count for number in range(count)]
    bounds = [sample[start] for start in starts[1:]]
    paths = _partitioned(batches, bounds, folder, keys)
    for path, (start, end) in zip(paths, itertools.pairwise([*starts, len(sample)]), strict=True):
        yield from _sorted(read_scratch(path), sample[start:end], rows_a_key, folder, keys)


def _sorted_in_memory(batches: Iterable[pa.RecordBatch], folder: str, keys: Keys) -> Batches:
    """Yield sorted rows; if they exceed the limits of memory, merge them from scratch files."""
    groups = grouped(batches, RUN_ROWS, RUN_BYTES)
    at_hand = list(itertools.islice(groups, 2))
    if len(at_hand) < 2:
        yield from (_ascending(group, keys)[0] for group in at_hand)
        return
    groups = itertools.chain(at_hand, groups)
    del at_hand
    runs = [stored([_ascending(group, keys)[0]], folder, keys) for group in groups]
    yield from merge_many(runs, folder, keys, in_order)


def _partitioned(
    batches: Iterable[pa.RecordBatch], bounds: Sequence[bytes], folder: str, keys: Keys
) -> list[str]:
    """Write rows into scratch files, one for each range of keys; return their paths."""
    with ExitStack() as stack:
        files = [stack.enter_context(scratch_file(folder)) for _ in range(len(bounds) + 1)]
        for group in grouped(batches, RUN_ROWS, RUN_BYTES):
            for (_, out), some in zip(files, _cut(*_ascending(group, keys), bounds), strict=True):
                if some.num_rows:
                    out.write_batch(some)
    give_back()
    return [path for path, _ in files]


def _ascending(rows: pa.Table, keys: Keys) -> tuple[pa.RecordBatch, pa.Array]:
    """Return rows in the order of their keys, and the keys."""
    (batch,) = rows.to_batches()  # `grouped` gives tables of one chunk
    unsorted = keys(batch)
    order = pc.array_sort_indices(unsorted)
    columns = [column.take(order) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema), unsorted.take(order)


def _cut(rows: pa.RecordBatch, keys: pa.Array, bounds: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
    """Cut sorted rows before the first key that is at least each bound."""
    places = range(rows.num_rows)
    start = 0
    for bound in bounds:
        end = bisect_left(places, bound, lo=start, key=lambda at: keys[at].as_py())
        yield rows.slice(start, end - start)
        start = end
    yield rows.slice(start)
