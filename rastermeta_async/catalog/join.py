"""A catalog in no order: the row groups of the last one and of the parts since, as they are.

Only rows that have to go cost more: their groups are written anew without them, at the end. So
are groups that are too small, as every reader pays for their number.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rastermeta_async.catalog.digest import VerifiedFile, undamaged
from rastermeta_async.catalog.formats import ParquetFormat, grouped
from rastermeta_async.catalog.geoparquet import Extent, kinds_in
from rastermeta_async.catalog.parts import catalog_rows
from rastermeta_async.catalog.reading import ParquetRows
from rastermeta_async.catalog.splice import Splicer, read_footer, read_group
from rastermeta_async.catalog.superseded import Numbers, Superseded, superseded
from rastermeta_async.config import Order
from rastermeta_async.rows import IDENTITY

SMALL_BYTES = 256 * 1024
"""Row groups of fewer are gathered to larger ones."""

MAX_GROUPS = 2048
"""Row groups of fewer bytes than their share of so many are, too: readers hold 50 KiB of each."""

GROUP_ROWS = 1 << 20
GROUP_BYTES = 8 * 1024 * 1024
"""Rows are gathered up to so many bytes, or so many times those of a small group, which are
compressed to a third or so."""
_TIMES_SMALL = 6

BATCH_ROWS = 1024
"""Rows at hand of those that are written anew."""

PLACES_ROWS = 1 << 15
"""Rows at hand of which it is only looked where they lie."""


class Source(NamedTuple):
    """A Parquet file that this program made, and what the log says of it."""

    path: str
    digest: str
    rows: int


class _Loose(NamedTuple):
    """A row group that is written anew."""

    source: Source
    number: int
    rows: int
    places: Numbers
    """Of the rows in it that go."""


def join(
    sources: Sequence[Source], out: io.RawIOBase, scratch: str, gdal_config: str = ""
) -> Superseded:
    """Write a Parquet catalog of the rows of some files; return what became of them.

    Args:
        sources: the files, oldest first.
        out: takes the bytes.
        scratch: existing folder for files that are gone in the end.
        gdal_config: GDAL's options that the rows were read with.

    Raises:
        CheckpointError: a file cannot be read, or is not what the log says.
    """
    small = max(SMALL_BYTES, sum(map(_size, sources)) // MAX_GROUPS)
    rows = itertools.chain.from_iterable(
        catalog_rows(ParquetFormat(), *source, IDENTITY) for source in sources
    )
    told = superseded(rows, sum(source.rows for source in sources), scratch)
    with closing(_Joined(out, scratch)) as joined:
        loose = list(_copied(sources, told.places, joined, small))
        for group in grouped(_left(loose), GROUP_ROWS, max(GROUP_BYTES, _TIMES_SMALL * small)):
            encoded = io.BytesIO()
            ParquetFormat().write(encoded, [group], Order.NONE)
            content = _Content("", encoded)
            for number in range(len(content.groups)):
                joined.add(content, number)
        joined.finish(told.rows, gdal_config)
    return told


def _size(source: Source) -> int:
    with undamaged(source.path):
        return os.path.getsize(source.path)


def _copied(
    sources: Sequence[Source], places: Numbers, joined: _Joined, small: int
) -> Iterator[_Loose]:
    """Copy the row groups that may stay as they are; yield the others."""
    start = 0
    for source in sources:
        with undamaged(source.path), VerifiedFile(source.path, source.digest) as file:
            content = _Content(source.path, file)
            fits = joined.fits(content)
            for number, group in enumerate(content.groups):
                end = start + content.meta.row_group(number).num_rows
                first, stop = np.searchsorted(places, (start, end))
                if fits and first == stop and group.end - group.start >= small:
                    joined.add(content, number)
                else:
                    yield _Loose(source, number, end - start, places[first:stop] - start)
                start = end


def _left(loose: Iterable[_Loose]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of groups, but for those that go."""
    for source, of_source in itertools.groupby(loose, key=lambda group: group.source):
        groups = list(of_source)
        starts = np.cumsum([0, *(group.rows for group in groups)]).tolist()
        placed = [group.places + at for group, at in zip(groups, starts, strict=False)]
        places, start = np.concatenate(placed), 0
        for batch in _rows(source, [group.number for group in groups]):
            end = start + batch.num_rows
            first, stop = np.searchsorted(places, (start, end))
            stays = np.ones(batch.num_rows, bool)
            stays[places[first:stop] - start] = False
            yield batch if first == stop else batch.filter(pa.array(stays))
            start = end


def _rows(source: Source, groups: list[int]) -> Iterator[pa.RecordBatch]:
    path, digest, _ = source
    with undamaged(path), VerifiedFile(path, digest) as content:
        yield from ParquetRows(content).batches(rows=BATCH_ROWS, groups=groups)


class _Content:
    """A Parquet file of rows: its footer, as it is and as it is understood."""

    def __init__(self, path: str, file: VerifiedFile | io.BytesIO) -> None:
        self._path = path
        self._file = file
        self.footer = read_footer(file)
        self.groups = self.footer.groups
        self._table = ParquetRows(file)
        self.meta = self._table.meta

    def read(self, number: int) -> Iterator[bytes]:
        """Yield the bytes of a row group."""
        with undamaged(self._path):
            yield from read_group(self._file, self.groups[number])

    def rows(self, number: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a row group."""
        with undamaged(self._path):
            yield from self._table.batches(columns, PLACES_ROWS, [number])


class _Joined:
    """A catalog of row groups of other files."""

    def __init__(self, out: io.RawIOBase, scratch: str) -> None:
        empty = io.BytesIO()
        ParquetFormat().write(empty, [], Order.NONE)
        self._like = _Content("", empty)
        self._splicer = Splicer(out, self._like.footer, scratch)
        self._extent = Extent()

    def fits(self, content: _Content) -> bool:
        """Tell whether a file's row groups are such as a catalog has."""
        told = ParquetFormat.is_lasting(content.meta) and kinds_in(content.meta) is not None
        return told and content.footer.is_like(self._like.footer)

    def add(self, content: _Content, number: int) -> None:
        """Copy a row group."""
        self._extent.add_kinds(content.meta)
        for rows in content.rows(number, ["bbox"]):
            self._extent.limits.add_rows(rows["bbox"])
        self._extent.limits.settle(content.rows(number, ["bbox", "geometry"]))
        self._splicer.add(content.groups[number], content.read(number))

    def finish(self, rows: int, gdal_config: str) -> None:
        """Write the footer."""
        own = ParquetFormat.metadata(self._extent, Order.NONE, gdal_config)
        self._splicer.finish(rows, self._like.meta.metadata | own)

    def close(self) -> None:
        """Remove what is on the disk besides."""
        self._splicer.close()
