"""Find files that stand for a cube: some of each bucket of each dimension, with their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rastermeta_async.model.record import shown_name
from rastermeta_async.report.places import Codes

MAX_EXAMPLES = 2_000
_OF_A_BUCKET = 3
_MAX_BYTES = 300_000
"""Bytes of all paths."""

_LONGEST = 2_000
"""Bytes of a path; a file with a longer one is no example."""


class Example(NamedTuple):
    """A file that a row of the cube stands for."""

    row: int
    """Index of the row of the cube."""
    path: str
    size: int | None
    """Bytes."""


def chosen_rows(codes: Sequence[Codes], files: Codes) -> Codes:
    """Return indices of rows of a cube, ascending: of each bucket the first ones, then the others.

    Args:
        codes: bucket of each row, for each dimension.
        files: number of files of each row.
    """
    chosen: set[int] = set()
    for buckets in codes:
        order = np.lexsort((-files, buckets))
        _, starts = np.unique(buckets[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        for more in range(_OF_A_BUCKET):
            chosen.update(order[starts[starts + more < ends] + more].tolist())
    rest = (
        np.linspace(0, len(files) - 1, MAX_EXAMPLES).astype(np.int64).tolist() if len(files) else []
    )
    for row in rest:
        if len(chosen) >= MAX_EXAMPLES:
            break
        chosen.add(row)
    return np.array(sorted(chosen), dtype=np.int64)


def examples_of(rows: Codes, first: Codes, batches: Iterable[pa.RecordBatch]) -> list[Example]:
    """Return the examples for rows of a cube.

    Args:
        rows: indices of rows of the cube.
        first: the row of the catalog, from 0, that is the example of each.
        batches: all rows of the catalog, with filepath, member and file_size.
    """
    order = np.argsort(first)
    found: list[Example] = []
    room = _MAX_BYTES
    for row, path, size in _looked_up(rows[order], first[order], batches):
        length = len(path.encode())
        if length <= min(room, _LONGEST):
            found.append(Example(row, path, size))
            room -= length
    return sorted(found)


def _looked_up(
    rows: Codes, first: Codes, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[int, str, int | None]]:
    """Yield row of the cube, path and size; `first` is ascending."""
    before = 0
    for batch in batches:
        start, end = np.searchsorted(first, (before, before + batch.num_rows))
        at = pa.array(first[start:end] - before)
        paths, members, sizes = (
            batch[name].take(at).to_pylist() for name in ("filepath", "member", "file_size")
        )
        names = map(shown_name, paths, members)
        yield from zip(rows[start:end].tolist(), names, sizes, strict=True)
        before += batch.num_rows
