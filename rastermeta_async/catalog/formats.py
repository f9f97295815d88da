"""The formats that a catalog can have: how a finished one is written and read back.

Each is written from groups of rows in order, streamed, and is a function of the rows alone: the
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
from rastermeta_async.catalog.reading import NotRowsError, ParquetRows, footer_of, json_batches
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.record import SCHEMA, SCHEMA_VERSION, VERSION_KEY, readable
from rastermeta_async.model.row_ops import row_bytes
from rastermeta_async.model.settings import Order

VERSION = "1.1.0"
GEO_KEY = b"geo"
_TYPES = {3: "Polygon", 6: "MultiPolygon"}
_TYPE_AT = slice(1, 5)
"""Bytes of a WKB geometry that tell its type, little-endian (OGC 06-103r4, section 8.2.8)."""


class Extent:
    """What the metadata say of all footprints together; takes groups of rows as they pass."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self.limits = Limits()

    def add(self, rows: pa.Table) -> None:
        """Take notice of rows that have the columns geometry and bbox."""
        kinds = pc.unique(pc.binary_slice(rows["geometry"], _TYPE_AT.start, _TYPE_AT.stop))
        numbers = {int.from_bytes(kind, "little") for kind in kinds.to_pylist() if kind is not None}
        self._types |= {_TYPES[number] for number in numbers & _TYPES.keys()}
        self.limits.add_rows(rows["bbox"], rows["geometry"])

    def metadata(self) -> str:
        """Return the value of the key ``geo``."""
        covering = {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {"bbox": covering},
        }  # without "crs" it is OGC:CRS84
        if limits := self.limits.west_to_east():
            column["bbox"] = limits  # as RFC 7946 has it
        content = {
            "version": VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": column},
        }
        return json.dumps(content)


_ORDER_KEY = b"rastermeta:order"
"""In a Parquet catalog's metadata: one of `Order`."""

_GDAL_CONFIG_KEY = b"rastermeta:gdal_config"
"""There, where rows were read with options of GDAL: these, see `environment.options_as_json`."""

_LOOSE_BATCHES = 32


class Format(Protocol):
    """One way to store a catalog."""

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
        """Write groups of rows, one row group each where the format has such a thing.

        Args:
            file: an open file-like object that takes bytes.
            groups: tables of `SCHEMA`, of one chunk a column, or the bytes would depend on how the
                rows came in.
            order: the order that their rows are in; one of `orders`.
            gdal_config: GDAL's options that they were read with.
        """
        ...

    def read(self, file: RawIOBase, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a finished catalog's rows in its order, some at a time; only these columns.

        The file, which need not be buffered, is closed in the end.
        """
        ...

    def order(self, path: str) -> Order:
        """Return the order of a finished catalog's rows.

        Raises:
            ForeignOutputError: the catalog does not tell.
        """
        ...

    def gdal_config(self, path: str) -> str:
        """Return GDAL's options that a finished catalog's rows were read with, as it says."""
        ...

    def check(self, path: str) -> None:
        """Raise ForeignOutputError unless the file can be one that this program made."""
        ...


class Grouper:
    """Cuts a stream of rows into groups, by rows and by bytes.

    Where it cuts depends on the rows alone, not on the batches that they come in.

    Args:
        max_rows: of a group.
        max_bytes: of the first group; a row that has more is a group of its own.
        growth: bytes that each group may have more than the one before.
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
            most_bytes = batch.nbytes + batch.num_rows * len(SCHEMA)  # a truth value counts a byte
            if self._most_bytes + most_bytes >= self._max_bytes:
                yield from self._cut(batch)
                return
            # They are not to be measured, which takes longer than all the rest: no group can end
            # in them for their bytes.
            self._keep(batch.slice(0, room))
            self._rows += min(room, batch.num_rows)
            self._bytes = None
            self._most_bytes += most_bytes
            batch = batch.slice(room)
            if self._rows == self._max_rows:
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
        if len(self._pending) == _LOOSE_BATCHES:  # small batches take several times their content
            self._compacted()

    def _compacted(self) -> list[pa.RecordBatch]:
        table = pa.Table.from_batches(self._pending, schema=SCHEMA)
        self._pending = table.combine_chunks().to_batches()
        return self._pending

    @property
    def rows(self) -> int:
        """Rows that wait for their group to be complete."""
        return self._rows

    def flush(self) -> pa.Table:
        """Return what is left, possibly no rows, and begin anew."""
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
    """Yield the names that the columns within a column have in a Parquet file."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{name}.key_value.key", kind.key_type)
        yield from _leaves(f"{name}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    else:
        yield name


_UNLIKE = frozenset(
    ["filepath", "filepath_bytes", "error_message", "bounds", "transform", "subdatasets",
     "file_size", "mtime", "etag", "geometry", "bbox"]
)  # fmt: skip
"""Columns that say something else of nearly every file."""

_NOT_COMPARED = frozenset(["error_message", "crs_wkt", "geometry"])
"""Columns of single values that no query compares with others."""

_ALIKE = [
    leaf
    for field in SCHEMA
    if field.name not in _UNLIKE
    for leaf in _leaves(field.name, field.type)
    if not leaf.endswith(".key_value.value")  # of tags only the names
]
"""Columns of a Parquet file in which values recur. To look for equal ones where there are none
takes a fourth of the time of writing, and more room than it saves."""

_COMPARED = [
    leaf
    for field in SCHEMA
    if (field.name not in _NOT_COMPARED and not pa.types.is_nested(field.type))
    or pa.types.is_struct(field.type)
    for leaf in _leaves(field.name, field.type)
]
"""Columns whose limits are kept for each group of rows, so that a query can pass it over. To
keep those of lists and tags, which no reader looks at, takes a fifth of the time of writing."""


class ParquetFormat:
    """Parquet, zstd-compressed, one row group a group of rows.

    Args:
        passing: it is read once and then thrown away: quick to write and to read.
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
        # No `with`: it would turn an exception into a valid-looking file.
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
                found = footer_of(file).schema.to_arrow_schema()
        except PermissionError as error:
            raise ForeignOutputError(
                f"{path} cannot be read: {os.strerror(errno.EACCES)}. Get the right to "
                "read it, or give another -o."
            ) from error
        except (pa.ArrowException, OSError, NotRowsError):
            found = pa.schema([])
        version = (found.metadata or {}).get(VERSION_KEY)
        if version is None:
            raise ForeignOutputError(
                f"{path} exists and was not made by rastermeta; give --overwrite or another -o"
            )
        if version == str(SCHEMA_VERSION).encode() and not found.equals(SCHEMA):
            raise ForeignOutputError(
                f"{path} was changed by another program: its columns are not those of a catalog. "
                "Put it back as rastermeta wrote it, give --overwrite to make it anew, or another "
                "-o."
            )
        if version != str(SCHEMA_VERSION).encode():
            raise ForeignOutputError(
                f"{path} was made by another version of rastermeta (schema {readable(version)}; "
                f"this one writes {SCHEMA_VERSION}). Give --overwrite to make it anew, or "
                "another -o."
            )


def _noted(path: str, key: bytes) -> str:
    """Return what a Parquet file's metadata say under a key; "" where they do not."""
    with open(open_regular(path), "rb") as file:
        return readable((footer_of(file).metadata or {}).get(key, b""))


class NdjsonFormat:
    """One JSON object a line."""

    orders = frozenset([Order.PATH])
    _is_array = False
    _begin, _between, _end, _nothing = b"", b"\n", b"\n", b""
    """What stands before, between and after the rows, and where there are none."""

    def write(
        self,
        file: Any,
        groups: Iterable[pa.Table],
        order: Order = Order.PATH,  # noqa: ARG002  # there is one
        gdal_config: str = "",  # noqa: ARG002  # the log alone says it
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

    def gdal_config(self, path: str) -> str:  # noqa: ARG002  # the log alone says it
        """See `Format.gdal_config`."""
        return ""

    def check(self, path: str) -> None:
        """See `Format.check`: without a checkpoint log nothing tells who made a JSON file."""
        raise ForeignOutputError(
            f"{path} exists and was not made by rastermeta, or its checkpoint log is gone; give "
            "--overwrite or another -o"
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
    """Return the format that an output's name asks for.

    Raises:
        SettingsError: no format has this ending.
    """
    for ending, kind in FORMATS.items():
        if path.endswith(ending):
            return kind()
    known = ", ".join(FORMATS)
    raise SettingsError(f"{path}: the output's name must end in one of {known}, or be - for stdout")
