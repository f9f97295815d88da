"""A catalog in no order: the row groups of the last one and of the parts since, as they are.

Only rows that have to go cost more: their groups are written anew without them. So are groups
that are too small for queries, all together at the end.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.formats import ParquetFormat, parquet_batches
from rastermeta_async.catalog.geoparquet import Extent
from rastermeta_async.catalog.parts import undamaged, whole
from rastermeta_async.catalog.splice import Splicer, read_footer
from rastermeta_async.catalog.superseded import Numbers, Superseded, superseded
from rastermeta_async.config import Order

SMALL_BYTES = 256 * 1024
"""Row groups of fewer are gathered to larger ones."""

_IDENTITY = ["filepath", "filepath_bytes", "status"]

Groups = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.Table]]


class _Loose(NamedTuple):
    """A row group that is written anew."""

    path: str
    number: int
    places: Numbers
    """Of the rows in it that go."""


def join(
    paths: Sequence[str], count: int, out: IO[bytes], scratch: str, groups: Groups
) -> Superseded:
    """Write a Parquet catalog of the rows of some files; return what became of them.

    Args:
        paths: Parquet files that this program made, oldest first.
        count: of the rows in them.
        out: takes the bytes.
        scratch: existing folder for files that are gone in the end.
        groups: cuts rows into row groups.

    Raises:
        CheckpointError: a file cannot be read.
    """
    told = superseded(_identities(paths), count, scratch)
    with closing(_Joined(out, scratch)) as joined:
        loose = list(_copied(paths, told.places, joined))
        if loose:
            with tempfile.TemporaryFile(dir=scratch) as file:
                ParquetFormat().write(file, groups(_rows_of(loose)), Order.NONE)
                content = _Content(file)
                for index in range(len(content.footer.groups)):
                    joined.add(content, index)
        joined.finish(told.rows)
    return told


def _identities(paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from whole(path, parquet_batches(file, _IDENTITY, 8192))


def _copied(paths: Sequence[str], places: Numbers, joined: _Joined) -> Iterator[_Loose]:
    """Copy the row groups that may stay as they are; yield the others."""
    start = 0
    for path in paths:
        with open(path, "rb") as file, undamaged(path):
            content = _Content(file)
            for index, group in enumerate(content.footer.groups):
                end = start + content.meta.row_group(index).num_rows
                first, stop = np.searchsorted(places, (start, end))
                is_small = group.end - group.start < SMALL_BYTES
                if first == stop and not is_small and joined.takes(content):
                    joined.add(content, index)
                else:
                    yield _Loose(path, index, places[first:stop] - start)
                start = end


def _rows_of(loose: Iterable[_Loose]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of groups, but for those that go."""
    for path, of_path in itertools.groupby(loose, key=lambda group: group.path):
        with pq.ParquetFile(path) as file:
            for _, number, places in of_path:
                start = 0
                for batch in whole(path, parquet_batches(file, groups=[number])):
                    stays = np.ones(batch.num_rows, bool)
                    stays[places[(places >= start) & (places < start + len(stays))] - start] = False
                    start += len(stays)
                    yield batch if stays.all() else batch.filter(pa.array(stays))


class _Content:
    """A Parquet file of rows: its footer, as it is and as it is understood."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.footer = read_footer(file)
        self.meta = pq.read_metadata(file)


class _Joined:
    """A catalog of row groups of other files."""

    def __init__(self, out: IO[bytes], scratch: str) -> None:
        empty = io.BytesIO()
        ParquetFormat().write(empty, [], Order.NONE)
        self._like = _Content(empty)
        self._splicer = Splicer(out, self._like.footer, scratch)
        self._extent = Extent()

    def takes(self, content: _Content) -> bool:
        """Tell whether a file's row groups are such as a catalog has."""
        is_lasting = ParquetFormat.is_lasting(content.meta)
        return is_lasting and content.footer.schema == self._like.footer.schema

    def add(self, content: _Content, index: int) -> None:
        """Copy a row group."""
        self._splicer.add(content.file, content.footer.groups[index])
        self._extent.add_group(content.meta, index)

    def finish(self, rows: int) -> None:
        """Write the footer."""
        own = ParquetFormat.metadata(self._extent, Order.NONE)
        self._splicer.finish(rows, self._like.meta.metadata | own)

    def close(self) -> None:
        """Remove what is on the disk besides."""
        self._splicer.close()
