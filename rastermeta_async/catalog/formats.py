"""The formats of a catalog: write a finished catalog and read it back.

Each format streams groups of rows, which are in order. Its bytes depend on the rows alone: the
same rows always give the same bytes.

Reference: GeoParquet 1.1.0, "Metadata" and "Bounding box covering".
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable, Iterator
from io import RawIOBase
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rastermeta_async.catalog.durable import open_regular
from rastermeta_async.catalog.json_rows import to_lines
from rastermeta_async.catalog.reading import (
    NOT_OURS,
    NotRowsError,
    ParquetRows,
    fault_of,
    footer_of,
    json_batches,
)
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.record import SCHEMA, readable
from rastermeta_async.model.row_ops import row_bytes
from rastermeta_async.model.settings import Order

VERSION = "1.1.0"
GEO_KEY = b"geo"
_TYPES = {3: "Polygon", 6: "MultiPolygon"}
_TYPE_AT = slice(1, 5)
"""Bytes of a WKB geometry that hold its type, little-endian (OGC 06-103r4, section 8.2.8)."""


_DEGREE = {"unit": "degree"}
_CRS = {
    "$schema": "https://proj.org/schemas/v0.7/projjson.schema.json",
    "type": "GeographicCRS",
    "name": "WGS 84",
    "datum": {
        "type": "GeodeticReferenceFrame",
        "name": "World Geodetic System 1984",
        "ellipsoid": {
            "name": "WGS 84", "semi_major_axis": 6378137, "inverse_flattening": 298.257223563
        },
    },
    "coordinate_system": {
        "subtype": "ellipsoidal",
        "axis": [
            {"name": "Latitude", "abbreviation": "lat", "direction": "north"} | _DEGREE,
            {"name": "Longitude", "abbreviation": "lon", "direction": "east"} | _DEGREE,
        ],
    },
    "id": {"authority": "EPSG", "code": 4326},
}  # fmt: skip
"""EPSG:4326 as PROJJSON. Without it the CRS is OGC:CRS84, for which PostGIS has no SRID.

Coordinates are longitude, latitude all the same (GeoParquet 1.1.0, "Coordinate axis order")."""


class Extent:
    """Collects the GeoParquet metadata of all footprints, one group of rows after the other."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self.limits = Limits()

    def add(self, rows: pa.Table) -> None:
        """Add rows that have the columns geometry and bbox."""
        kinds = pc.unique(pc.binary_slice(rows["geometry"], _TYPE_AT.start, _TYPE_AT.stop))
        numbers = {int.from_bytes(kind, "little") for kind in kinds.to_pylist() if kind is not None}
        self._types |= {_TYPES[number] for number in numbers & _TYPES.keys()}
        self.limits.add_rows(rows["bbox"], rows["geometry"])

    def metadata(self) -> str:
        """Return the value of the key ``geo``."""
        covering = {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
        column: dict[str, Any] = {
            "encoding": "WKB",
            "crs": _CRS,
            "geometry_types": sorted(self._types),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {"bbox": covering},
        }
        if limits := self.limits.west_to_east():
            column["bbox"] = limits  # in the form of RFC 7946
        content = {
            "version": VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": column},
        }
        return json.dumps(content)


_ORDER_KEY = b"rastermeta:order"
"""Key in a Parquet catalog's metadata; the value is one of `Order`."""

_GDAL_CONFIG_KEY = b"rastermeta:gdal_config"
"""Key of GDAL's options that the rows were read with, see `gdal_options.options_as_json`; missing
if there were none."""

_LOOSE_BATCHES = 32


class Format(Protocol):
    """A file format of a catalog."""

    @property
    def orders(self) -> Collection[Order]:
        """Orders that its rows may have."""
        ...

    def write(
        self,
        file: Any,
        groups: Iterable[pa.Table],
        order: Order = Order.PATH,
        gdal_config: str = "",
    ) -> None:
        """Write groups of rows, each as one row group if the format has row groups.

        Args:
            file: an open file-like object that takes bytes.
            groups: tables of `SCHEMA` with one chunk a column; with more chunks, the bytes would
                depend on how the rows arrived.
            order: the order of the rows; one of `orders`.
            gdal_config: GDAL's options that the rows were read with.
        """
        ...

    def read(self, file: RawIOBase, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a finished catalog's rows in its order, in batches, with these columns (None: all).

        The file may be unbuffered. It is closed in the end.
        """
        ...

    def order(self, path: str) -> Order:
        """Return the order of a finished catalog's rows.

        Raises:
            ForeignOutputError: the catalog does not say.
        """
        ...

    def gdal_config(self, path: str) -> str:
        """Return GDAL's options that a finished catalog's rows were read with; "" if none."""
        ...

    def check(self, path: str) -> None:
        """Raise ForeignOutputError if this program cannot have made the file."""
        ...


class Grouper:
    """Cuts a stream of rows into groups, by number of rows and by bytes.

    The cuts depend on the rows alone, not on the batches in which they arrive.

    Args:
        max_rows: limit of rows in a group.
        max_bytes: limit of bytes in the first group; a larger row is a group of its own.
        growth: bytes by which the limit grows with each group.
    """

    def __init__(self, max_rows: int, max_bytes: int, growth: int = 0) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._growth = growth
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes: int | None = 0
        self._most_bytes = 0

    def push(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """Add rows; yield each group that they complete."""
        while batch.num_rows:
            room = self._max_rows - self._rows
            most_bytes = batch.nbytes + batch.num_rows * len(SCHEMA)  # a bool counts as a byte
            if self._most_bytes + most_bytes >= self._max_bytes:
                yield from self._cut(batch)
                return
            # These rows cannot reach the limit of bytes, so they are not measured: measuring takes
            # longer than all the rest.
            self._keep(batch.slice(0, room))
            self._rows += min(room, batch.num_rows)
            self._bytes = None
            self._most_bytes += most_bytes
            batch = batch.slice(room)
            if self._rows == self._max_rows:
                yield self.flush()

    def push_whole(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """Add rows, of which none are separated; yield each group that is complete without them.

        A group may have as many rows and bytes more as the batch has.
        """
        most_bytes = batch.nbytes + batch.num_rows * len(SCHEMA)
        is_full = self._rows + batch.num_rows > self._max_rows
        if self._rows and (is_full or self._most_bytes + most_bytes > self._max_bytes):
            yield self.flush()
        self._keep(batch)
        self._rows += batch.num_rows
        self._bytes = None
        self._most_bytes += most_bytes
        if self._rows >= self._max_rows:
            yield self.flush()

    def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        if self._bytes is None:
            self._bytes = sum(int(row_bytes(kept).sum()) for kept in self._compacted())
        ends = np.concatenate([[0], np.cumsum(row_bytes(batch))])
        start = 0
        while start < batch.num_rows:
            fitting = int(
                np.searchsorted(ends, ends[start] + self._max_bytes - self._bytes, "right")
            )
            take = min(fitting - 1 - start, self._max_rows - self._rows, batch.num_rows - start)
            if take < 1 and self._rows:
                yield self.flush()
                continue
            take = max(take, 1)  # a row above the limit is a group of its own
            self._keep(batch.slice(start, take))
            self._rows += take
            self._bytes += int(ends[start + take] - ends[start])
            self._most_bytes = self._bytes
            start += take
            if self._rows >= self._max_rows or self._bytes >= self._max_bytes:
                yield self.flush()

    def _keep(self, rows: pa.RecordBatch) -> None:
        self._pending.append(rows)
        if len(self._pending) == _LOOSE_BATCHES:  # small batches take much more than their content
            self._compacted()

    def _compacted(self) -> list[pa.RecordBatch]:
        table = pa.Table.from_batches(self._pending, schema=SCHEMA)
        self._pending = table.combine_chunks().to_batches()
        return self._pending

    @property
    def rows(self) -> int:
        """Number of rows in the incomplete group."""
        return self._rows

    def flush(self) -> pa.Table:
        """Return the incomplete group, possibly without rows, and start the next one."""
        table = pa.Table.from_batches(self._pending, schema=SCHEMA)
        self._pending, self._rows, self._bytes, self._most_bytes = [], 0, 0, 0
        self._max_bytes += self._growth
        return table


def grouped(
    batches: Iterable[pa.RecordBatch], max_rows: int, max_bytes: int, growth: int = 0
) -> Iterator[pa.Table]:
    """Yield the rows of `batches` in groups cut by `Grouper`, one chunk a column."""
    grouper = Grouper(max_rows, max_bytes, growth)
    for batch in batches:
        yield from map(pa.Table.combine_chunks, grouper.push(batch))
    if grouper.rows:
        yield grouper.flush().combine_chunks()


def _leaves(name: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the names of a column's leaf columns in a Parquet file."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    else:
        yield name


_UNLIKE = frozenset(
    ["filepath", "filepath_bytes", "error_message", "bounds", "transform", "subdatasets",
     "file_size", "mtime", "etag", "geometry", "bbox", "member", "subdataset"]
)  # fmt: skip
"""Columns whose value differs for nearly every file."""

_NOT_COMPARED = frozenset(["error_message", "crs_wkt", "geometry"])
"""Columns of single values that no query compares."""

_ALIKE = [
    leaf
    for field in SCHEMA
    if field.name not in _UNLIKE
    for leaf in _leaves(field.name, field.type)
    if not leaf.endswith(".element.value")  # only the names of tags repeat
]
"""Leaf columns whose values repeat, for a dictionary. A dictionary for all other columns takes a
fourth of the time of writing, and more space than it saves."""

_COMPARED = [
    leaf
    for field in SCHEMA
    if (field.name not in _NOT_COMPARED and not pa.types.is_nested(field.type))
    or pa.types.is_struct(field.type)
    for leaf in _leaves(field.name, field.type)
]
"""Leaf columns with statistics in each row group, so that a query can skip row groups. No reader
uses statistics of lists and tags, and writing them takes a fifth of the time of writing."""


class ParquetFormat:
    """Parquet, compressed with zstd; each group of rows is one row group.

    Args:
        passing: the file is read once and then removed, so it must be quick to write and to read.
    """

    orders = frozenset(Order)

    def __init__(self, *, passing: bool = False) -> None:
        self._passing = passing

    def write(
        self,
        file: Any,
        groups: Iterable[pa.Table],
        order: Order = Order.PATH,
        gdal_config: str = "",
    ) -> None:
        """See `Format.write`."""
        # No `with`: after an exception it would write a footer, and the file would look valid.
        writer = pq.ParquetWriter(
            file,
            SCHEMA,
            version="2.6",
            compression="lz4" if self._passing else "zstd",
            use_dictionary=[] if self._passing else _ALIKE,
            write_statistics=[] if self._passing else _COMPARED,
            write_page_checksum=True,
        )
        extent = Extent()
        for group in groups:
            if not self._passing:
                extent.add(group)
            writer.write_table(group, row_group_size=group.num_rows)
        if not self._passing:
            options = {_GDAL_CONFIG_KEY: gdal_config.encode()} if gdal_config else {}
            extent_and_order = {GEO_KEY: extent.metadata().encode(), _ORDER_KEY: order.encode()}
            writer.add_key_value_metadata(extent_and_order | options)
        writer.close()

    def read(self, file: RawIOBase, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Format.read`."""
        with file:
            yield from ParquetRows(file).batches(columns, 8192 if columns else 1024)

    def order(self, path: str) -> Order:
        """See `Format.order`."""
        try:
            return Order(_noted(path, _ORDER_KEY))
        except ValueError:
            raise ForeignOutputError(
                f"{path} was written anew by another program: nothing tells the order of its rows "
                "any more. Give --overwrite to make it anew, or another -o."
            ) from None

    def gdal_config(self, path: str) -> str:
        """See `Format.gdal_config`."""
        return _noted(path, _GDAL_CONFIG_KEY)

    def check(self, path: str) -> None:
        """See `Format.check`."""
        try:
            with open(open_regular(path), "rb") as file:
                fault = fault_of(file)
        except PermissionError as error:
            raise ForeignOutputError(
                f"{path} cannot be read: {os.strerror(errno.EACCES)}. Get the right to "
                "read it, or give another -o."
            ) from error
        except (pa.ArrowException, OSError, NotRowsError):
            fault = NOT_OURS
        if fault:
            raise ForeignOutputError(
                f"{path} {fault}. Give --overwrite to replace it, or another -o."
            )


def _noted(path: str, key: bytes) -> str:
    """Return the value of a key in a Parquet file's metadata; "" if the key is missing."""
    with open(open_regular(path), "rb") as file:
        return readable((footer_of(file).metadata or {}).get(key, b""))


class NdjsonFormat:
    """One JSON object a line."""

    orders = frozenset([Order.PATH])
    _is_array = False
    _begin, _between, _end, _nothing = b"", b"\n", b"\n", b""
    """Bytes before, between and after the rows, and the bytes of a file without rows."""

    def write(
        self,
        file: Any,
        groups: Iterable[pa.Table],
        order: Order = Order.PATH,  # noqa: ARG002  # there is only one
        gdal_config: str = "",  # noqa: ARG002  # only the log holds it
    ) -> None:
        """See `Format.write`."""
        before = self._begin
        end = self._nothing
        for group in groups:
            for line in to_lines(group):
                file.write(before + line.encode())
                before, end = self._between, self._end
        file.write(end)

    def read(self, file: RawIOBase, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Format.read`."""
        yield from json_batches(file, columns, array=self._is_array)

    def order(self, path: str) -> Order:  # noqa: ARG002  # the only one
        """See `Format.order`."""
        return Order.PATH

    def gdal_config(self, path: str) -> str:  # noqa: ARG002  # only the log holds it
        """See `Format.gdal_config`."""
        return ""

    def check(self, path: str) -> None:
        """See `Format.check`; always raises, as only a checkpoint log says who made a JSON file."""
        raise ForeignOutputError(
            f"{path} was not made by rastermeta, or its checkpoint log is gone. Give --overwrite "
            "to replace it, or another -o."
        )


class JsonFormat(NdjsonFormat):
    """One JSON array, one object a line."""

    _is_array = True
    _begin, _between, _end, _nothing = b"[\n", b",\n", b"\n]\n", b"[]\n"


FORMATS: dict[str, type[Format]] = {
    ".parquet": ParquetFormat,
    ".ndjson": NdjsonFormat,
    ".jsonl": NdjsonFormat,
    ".json": JsonFormat,
}


def format_of(path: str) -> Format:
    """Return the format for the ending of an output's name.

    Raises:
        SettingsError: no format has this ending.
    """
    for ending, kind in FORMATS.items():
        if path.endswith(ending):
            return kind()
    known = ", ".join(FORMATS)
    raise SettingsError(f"{path}: the output's name must end in one of {known}, or be - for stdout")
