"""What makes a Parquet file of footprints a GeoParquet file: the metadata under its key ``geo``.

Reference: GeoParquet 1.1.0, "Metadata" and "Bounding box covering".
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

VERSION = "1.1.0"
GEO_KEY = b"geo"
_TYPES = {3: "Polygon", 6: "MultiPolygon"}
_TYPE_AT = slice(1, 5)
"""Bytes of a WKB geometry that tell its type, little-endian (OGC 06-103r4, section 8.2.8)."""


class Extent:
    """What the metadata say of all footprints together; takes groups of rows as they pass."""

    def __init__(self) -> None:
        self._types: set[str] = set()
        self._limits: list[float] | None = None

    def add(self, rows: pa.Table) -> None:
        """Take notice of rows that have the columns geometry and bbox."""
        kinds = pc.unique(pc.binary_slice(rows["geometry"], _TYPE_AT.start, _TYPE_AT.stop))
        self._types |= {
            _TYPES[int.from_bytes(kind, "little")] for kind in kinds.to_pylist() if kind is not None
        }
        box = rows["bbox"]
        low = [pc.min(pc.struct_field(box, name)).as_py() for name in ("xmin", "ymin")]
        high = [pc.max(pc.struct_field(box, name)).as_py() for name in ("xmax", "ymax")]
        if None not in (*low, *high):
            self._widen(low, high)

    def add_kinds(self, file: pq.FileMetaData) -> None:
        """Take the kinds of geometry that a file with such metadata has."""
        columns = json.loads(file.metadata[GEO_KEY])["columns"]
        self._types |= set(columns["geometry"]["geometry_types"])

    def add_limits(self, group: pq.RowGroupMetaData) -> None:
        """Take the limits of a row group.

        Raises:
            ValueError: it has none in its metadata.
        """
        limits: dict[str, tuple[float, float]] = {}
        for number in range(group.num_columns):
            chunk = group.column(number)  # what it says goes with it
            if chunk.path_in_schema.startswith("bbox."):
                if chunk.statistics is None:
                    raise ValueError("a row group has no limits of its columns")
                if chunk.statistics.has_min_max:
                    limits[chunk.path_in_schema] = chunk.statistics.min, chunk.statistics.max
        if limits:
            low = [limits[f"bbox.{name}"][0] for name in ("xmin", "ymin")]
            high = [limits[f"bbox.{name}"][1] for name in ("xmax", "ymax")]
            self._widen(low, high)

    def _widen(self, low: list[float], high: list[float]) -> None:
        if self._limits:
            low = [min(pair) for pair in zip(low, self._limits[:2], strict=True)]
            high = [max(pair) for pair in zip(high, self._limits[2:], strict=True)]
        self._limits = [*low, *high]

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
        if self._limits:
            column["bbox"] = self._limits
        content = {
            "version": VERSION,
            "primary_column": "geometry",
            "columns": {"geometry": column},
        }
        return json.dumps(content)
