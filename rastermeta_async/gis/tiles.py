"""Finds the rasters that a tile index can hold: where each is, and under which name.

Reference: GDAL, "GTI -- GDAL Raster Tile Index".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.gis.mosaics import COLUMNS, DATA_TYPES
from rastermeta_async.model.errors import StoreError
from rastermeta_async.model.record import UNPLACED, shown_name
from rastermeta_async.model.row_ops import INSIDE
from rastermeta_async.model.urls import is_url
from rastermeta_async.stores.archive_names import name_inside, subdataset_at
from rastermeta_async.stores.credentials import gdal_name

Reals = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

_REASONS = (
    "it could not be read",
    "it is a container without bands of its own",
    "nothing tells its place",
    "only ground control points or RPCs tell its place",
    "its CRS is not known",
    "it is rotated, or not north-up, and GDAL's tile index holds no such raster",
    "GDAL's tile index has no such data type",
    "it has a nodata of 64-bit integers, which GDAL's tile index does not have",
    "its path is not UTF-8",
    "its URL is none",
)
"""Why a raster is not in an index. Of several reasons, the first one is told."""


@dataclass
class LeftOutRows:
    """Counts of rows that are in no index, with an example each, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, path: str, count: int = 1) -> None:
        """Count rows; `path` is an example."""
        self.counts[reason] += count
        self.examples.setdefault(reason, path)


def upright(
    rows: pa.RecordBatch, names: Names, left_out: LeftOutRows
) -> tuple[pa.RecordBatch, list[str]]:
    """Return the rasters that an index can hold, and GDAL's name of each; count the others.

    Args:
        rows: with the columns `COLUMNS`.
        names: gives the names.
        left_out: counts the other rows.
    """
    paths, *inside = (rows[name].to_pylist() for name in ("filepath", *INSIDE))
    members, _ = inside
    found = list(map(names.of, paths, *inside))
    flags = [*_flaws(rows), np.array([name is None for name in found], np.bool_)]
    reasons = np.select(flags, range(len(flags)), -1)
    for at in np.flatnonzero(reasons >= 0).tolist():
        left_out.add(_REASONS[reasons[at]], shown_name(paths[at], members[at]))
    there = reasons < 0
    named = [name for name, held in zip(found, there.tolist(), strict=True) if name and held]
    return rows.select(COLUMNS).filter(pa.array(there)), named


def _flaws(rows: pa.RecordBatch) -> Sequence[Flags]:
    """Return for each of `_REASONS` but the last one whether it holds for a row."""
    status = rows["status"]
    transforms = _transforms(rows["transform"])
    _, a, b, _, d, e = transforms.T
    flags = (
        pc.is_in(status, pa.array(["error", "fatal"])),
        pc.fill_null(pc.equal(rows["count"], 0), True),
        pc.equal(status, "no_georef"),
        np.isnan(transforms).all(axis=1) | (transforms == UNPLACED).all(axis=1),
        pc.is_null(pc.coalesce(rows["crs_wkt"], rows["crs"])),
        ~(np.isfinite(transforms).all(axis=1) & (a > 0) & (b == 0) & (d == 0) & (e < 0)),
        ~_has_known_types(rows),
        _has_long_nodata(rows),
        pc.is_valid(rows["filepath_bytes"]),
    )
    return [np.asarray(flag, np.bool_) for flag in flags]


def _transforms(column: pa.Array) -> Reals:
    """Return geotransforms, shape (rows, 6); NaN where there is none."""
    numbers: Reals = np.full((len(column), 6), np.nan)
    numbers[np.asarray(column.is_valid())] = column.flatten().to_numpy().reshape(-1, 6)
    return numbers


def _has_known_types(rows: pa.RecordBatch) -> Flags:
    """Return for each row whether it describes all of its bands, each of a type that GDAL has."""
    bands = rows["bands"]
    known = pc.is_in(bands.flatten().field("dtype"), pa.array(DATA_TYPES))
    owners = pc.list_parent_indices(bands).to_numpy()
    counts = np.bincount(owners[np.asarray(known, np.bool_)], minlength=len(bands))
    flags: Flags = counts == pc.fill_null(rows["count"], 0).to_numpy()
    return flags


def _has_long_nodata(rows: pa.RecordBatch) -> Flags:
    """Return for each row whether a band of 64-bit integers has a nodata value."""
    bands = rows["bands"]
    types, nodata = (bands.flatten().field(name) for name in ("dtype", "nodata"))
    long = pc.and_(pc.is_in(types, pa.array(["int64", "uint64"])), pc.is_valid(nodata))
    flags: Flags = np.zeros(len(bands), np.bool_)
    flags[pc.list_parent_indices(bands).filter(long).to_numpy()] = True
    return flags


class Names:
    """Turns paths into the names under which GDAL opens them from a tile index.

    GDAL takes a relative name as seen from the index. A catalog's are seen from the current folder.

    Args:
        folder: of the index; it exists.
    """

    def __init__(self, folder: str) -> None:
        here, there = os.path.realpath("."), os.path.realpath(folder)
        # GDAL resolves ".." by the text of a name, so no link may be in the folder's.
        is_plain = there == os.path.abspath(folder)
        self._before = f"./{os.path.relpath(here, there)}" if is_plain else here

    def of(self, path: str, member: str | None = None, subdataset: str | None = None) -> str | None:
        """Return the name of a path, or of what is inside; None: it is a URL that cannot be."""
        if subdataset is not None:
            local = not is_url(path.encode())
            return subdataset_at(subdataset, path, os.path.abspath(path)) if local else subdataset
        if member is not None:  # GDAL does not look for such a name next to the index
            try:
                return name_inside(path if is_url(path.encode()) else os.path.abspath(path), member)
            except StoreError:
                return None
        if is_url(path.encode()):
            try:
                return gdal_name(path)
            except StoreError:
                return None
        if path.startswith("/"):
            # A file in a folder with a name like GDAL's own names.
            return f"/.{path}" if path.startswith("/vsi") else path
        return f"{self._before}/{path}"


_RECTANGLE = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""WKB of a polygon with one ring of five points (OGC 06-103r4, section 8)."""


def extents(rows: pa.RecordBatch) -> Reals:
    """Return left, bottom, right and top of upright rasters, units of the CRS, shape (rows, 4)."""
    x, a, _, y, _, e = rows["transform"].flatten().to_numpy().reshape(-1, 6).T
    right, bottom = x + a * rows["width"].to_numpy(), y + e * rows["height"].to_numpy()
    return np.stack([x, bottom, right, y], axis=1)


def rectangles(boxes: Reals) -> pa.Array:
    """Return boxes (left, bottom, right, top) as WKB polygons."""
    shapes = np.zeros(len(boxes), _RECTANGLE)
    shapes["order"], shapes["type"], shapes["rings"], shapes["points"] = 1, 3, 1, 5
    # Around the box, from its lower left corner and back to it, against the clock.
    shapes["xy"] = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3], [0, 1]]]
    size = _RECTANGLE.itemsize
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(size), len(boxes), [None, pa.py_buffer(shapes.tobytes())]
    )
    return fixed.cast(pa.binary())
