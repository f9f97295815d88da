"""Read back the parts and the last catalog, and check them against the log."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from rastermeta_async.catalog.checkpoint import Part, damaged
from rastermeta_async.catalog.digest import VerifiedFile, undamaged
from rastermeta_async.catalog.formats import Format
from rastermeta_async.catalog.merge import Run
from rastermeta_async.catalog.reading import ParquetRows
from rastermeta_async.catalog.sink import PART_GROUP_ROWS
from rastermeta_async.model.row_ops import path_keys

_PATH = ["filepath", "filepath_bytes"]


def catalog_rows(
    form: Format, path: str, digest: str, rows: int, columns: list[str] | None = None
) -> Generator[pa.RecordBatch, None, None]:
    """Yield some columns of a finished catalog's rows, in its order.

    Args:
        form: of the catalog.
        path: of the catalog.
        digest: of the catalog's content according to the log.
        rows: number of rows according to the log.
        columns: names of the columns; None: all.

    Raises:
        CheckpointError: the catalog is not what the log says.
    """
    found = 0
    with undamaged(path), VerifiedFile(path, digest) as file:
        for batch in form.read(file, columns):
            found += batch.num_rows
            yield batch
    if found != rows:
        raise damaged(path, f"it has {found} rows, but the log says {rows}")


def part_rows(
    folder: str, parts: Iterable[Part], columns: list[str] | None = None
) -> Generator[pa.RecordBatch, None, None]:
    """Yield some columns of the rows of parts (None: all columns), one part after the other.

    At most one row group is in memory at a time.

    Raises:
        CheckpointError: a part is not what the log says.
    """
    for part in parts:
        with _opened(folder, part) as file:
            yield from file.batches(columns, rows=8192 if columns else PART_GROUP_ROWS)


def part_run(folder: str, part: Part) -> Run:
    """Return the rows of a part as a run.

    Raises:
        CheckpointError: the part is not what the log says, now or when the run is read.
    """
    with _opened(folder, part) as file:
        first, *_ = map(path_keys, file.batches(_PATH, groups=[0]))
        *_, last = map(path_keys, file.batches(_PATH, groups=[file.meta.num_row_groups - 1]))
    return Run(first[0].as_py(), last[-1].as_py(), part.rows, lambda: part_rows(folder, [part]))


@contextmanager
def _opened(folder: str, part: Part) -> Iterator[ParquetRows]:
    """Open a part for the time of the context.

    Raises:
        CheckpointError: the part is not what the log says.
    """
    path = os.path.join(folder, part.name)
    with undamaged(path), VerifiedFile(path, part.digest) as content:
        file = ParquetRows(content)
        if file.meta.num_rows != part.rows:
            found = f"it has {file.meta.num_rows} rows, but the log says {part.rows}"
            raise damaged(path, found)
        yield file
