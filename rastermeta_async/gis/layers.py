"""Writes rows as a layer of a GIS format, with GDAL by way of pyogrio."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.errors import MissingExtraError, WriteError

GEOMETRY = "geometry"
"""Name of the column that has the geometries, as WKB."""

GPKG, FLATGEOBUF = "GPKG", "FlatGeobuf"
"""Names of GDAL's drivers."""

_EMPTY_WKB_BYTES = 9
"""Size of a polygon without rings, and of a multipolygon without polygons."""


@dataclass(frozen=True)
class Layer:
    """A layer, but for its rows."""

    driver: str
    name: str
    schema: pa.Schema
    """Its columns; one of them is `GEOMETRY`."""
    crs: str
    """A code, or WKT."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    """Layer creation options of the driver."""


class UnknownCrsError(Exception):
    """GDAL does not know a CRS."""


def pyogrio_library() -> Any:
    """Return pyogrio.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyogrio
    except ImportError:
        raise MissingExtraError(
            "this export needs the extra gis, in a clone: pip install '.[gis]'"
        ) from None
    return pyogrio


def write_layer(path: str, layer: Layer, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a new file that has one layer; return its number of rows.

    Raises:
        UnknownCrsError: GDAL does not know the CRS; nothing is written.
        WriteError: GDAL could not write all of the file.
        Exception: what `batches` raises.
    """
    pyogrio = pyogrio_library()
    rows = _CountedRows(batches)
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(layer.schema, iter(rows)),
            path,
            layer=layer.name,
            driver=layer.driver,
            geometry_name=GEOMETRY,
            geometry_type="Unknown",
            crs=layer.crs,
            layer_metadata=dict(layer.metadata) or None,
            layer_options=dict(layer.options),
        )
    except pyogrio.errors.CRSError as error:
        raise UnknownCrsError(str(error)) from error
    except RuntimeError as error:  # the base of pyogrio's errors
        raise rows.error or _failed(path, str(error)) from error
    # GDAL tells nobody of an error while it closes a file, as on a full disk.
    if pyogrio.read_info(path, force_feature_count=True)["features"] != rows.count:
        raise _failed(path, "rows are missing")
    if layer.driver == GPKG and _indexed_rows(path, layer.name) != rows.placed:
        raise _failed(path, "the spatial index is missing")
    return rows.count


def _failed(path: str, reason: str) -> WriteError:
    return WriteError(
        f"{path}: writing failed: {reason}. What stood there before is as it was: free space, or "
        "give another -o, then run the same command again."
    )


def _indexed_rows(path: str, layer: str) -> int:
    """Return how many rows the spatial index of a GeoPackage has (OGC 12-128r19, annex F.3)."""
    with contextlib.closing(read_only(path)) as database:
        try:
            found = database.execute(f'SELECT count(*) FROM "rtree_{layer}_{GEOMETRY}_rowid"')  # noqa: S608  # names of this program
            return int(found.fetchone()[0])
        except sqlite3.Error:
            return 0


def read_only(path: str) -> sqlite3.Connection:
    """Open an SQLite file that nobody changes, without locks or files beside it."""
    return sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)


class _CountedRows:
    """Hands rows on, counts them, and keeps the error that ends them."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.count = 0
        self.placed = 0
        """Number of rows that have a geometry that is not empty."""
        self.error: Exception | None = None
        """GDAL reads the rows, and would lose the error."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.count += batch.num_rows
                sizes = pc.binary_length(batch[GEOMETRY])
                self.placed += pc.sum(pc.greater(sizes, _EMPTY_WKB_BYTES)).as_py() or 0
                yield batch
        except Exception as error:
            self.error = error
            raise
