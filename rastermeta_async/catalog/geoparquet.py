"""What makes a Parquet file of footprints a GeoParquet file: the metadata under its key ``geo``.

Reference: GeoParquet 1.1.0, "Metadata" and "Bounding box covering".
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.footprints.limits import Limits

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
