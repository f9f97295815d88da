"""Parts, as `sink` wrote them, read back."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.checkpoint import Part, damaged
from rastermeta_async.catalog.content import digest_of, new_hash
from rastermeta_async.catalog.formats import parquet_batches
from rastermeta_async.catalog.merge import Run
from rastermeta_async.rows import path_keys

Item = TypeVar("Item")

_PATH = ["filepath", "filepath_bytes"]


def part_rows(folder: str, parts: Iterable[Part], columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of parts, one part after the other.

    Raises:
        CheckpointError: a part is not what the log says.
    """
    for part in parts:
        path = os.path.join(folder, part.name)
        with open(path, "rb") as file:
            content = file.read()
        _check_digest(path, new_hash(content).hexdigest(), part.digest)
        with pq.ParquetFile(pa.BufferReader(content)) as table:
            yield from parquet_batches(table, columns, rows=8192)


def part_run(folder: str, part: Part) -> Run:
    """Return the rows of a part.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = os.path.join(folder, part.name)
    ends = [path_keys(rows) for rows in whole(path, _outer_rows(path))]
    first, last = ends[0][0].as_py(), ends[-1][-1].as_py()
    return Run(first, last, part.rows, lambda: whole(path, _read_part(path)))


def _outer_rows(path: str) -> Iterator[pa.Table]:
    """Yield the first and the last group of a part's rows, as far as their paths go."""
    with pq.ParquetFile(path) as file:
        for index in (0, file.num_row_groups - 1):
            yield file.read_row_group(index, _PATH, use_threads=False)


def _read_part(path: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part, a group at a time: nothing else of the file is held meanwhile."""
    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield from file.read_row_group(index, use_threads=False).to_batches()


def whole(path: str, items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield rows, or what else is read of a file that this program wrote.

    Raises:
        CheckpointError: it cannot be read.
    """
    with undamaged(path):
        yield from items


def verify(path: str, digest: str) -> None:
    """Raise CheckpointError unless a file can be read, and its content is what the log says."""
    with undamaged(path), open(path, "rb") as file:
        found = digest_of(file)
    _check_digest(path, found, digest)


def _check_digest(path: str, found: str, logged: str) -> None:
    if found != logged:
        raise damaged(path, "its content is not what the log says")


@contextmanager
def undamaged(path: str) -> Iterator[None]:
    """Hold that what is read of a file that this program wrote can be read.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise damaged(path, f"it cannot be read: {reason}") from error
