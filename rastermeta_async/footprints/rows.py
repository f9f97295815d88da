"""Footprints: where on Earth each raster lies, as polygons in longitude and latitude (OGC:CRS84).

    columns of a batch ──▶ rings of pixels ──▶ rings of degrees, a CRS at once ──▶ columns

A ring has as many points as keep it within a pixel, or 1e-4 degrees, of the true outline (`rings`).
Rings that meet a pole, and rasters that reach beyond the domain of their CRS, are looked at one by
one (`outskirts`). Where nothing is known there is no footprint: never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from rasterio.env import env_ctx_if_needed

from rastermeta_async.footprints.degrees import WGS84
from rastermeta_async.footprints.outskirts import TOLERANCE, Grid
from rastermeta_async.footprints.polygons import Floats, Outline, polygon_around, unwrapped
from rastermeta_async.footprints.rings import Made, outlines
from rastermeta_async.record import SCHEMA, UNPLACED, BBox, Record, to_batch

__all__ = [
    "TOLERANCE", "WGS84", "Grid", "Outline", "outline_of_points", "outlines_of", "rows_of",
    "with_footprints",
]  # fmt: skip

_MADE = ("geometry", "bbox", "footprint")


def rows_of(records: Sequence[Record]) -> pa.RecordBatch:
    """Return records as a batch of `SCHEMA`, with footprints."""
    return with_footprints(to_batch(records))


def with_footprints(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with the columns geometry, bbox and footprint filled in.

    Rows that have a footprint keep it. What a row gets depends on its own columns alone.
    """
    places, names = _placed(rows)
    if not places:
        return rows
    some = rows.select(["transform", "width", "height"]).take(pa.array(places))
    affine = some.column(0).flatten().to_numpy().reshape(-1, 6).T
    sizes = np.array([some.column(at).to_numpy() for at in (1, 2)], dtype=float)
    made = _outlines(names, affine, sizes)
    count = len(made.places)
    if not count:
        return rows
    # Each row is taken from what was made, or else from what it had.
    source = np.arange(count, count + rows.num_rows)
    source[np.array(places)[made.places]] = np.arange(count)
    taken, columns = pa.array(source), rows.columns
    words = pa.array(["transform"] * count)
    for name, column in zip(_MADE, [*made.columns(), words], strict=True):
        at = SCHEMA.get_field_index(name)
        columns[at] = pa.concat_arrays([column, columns[at]]).take(taken)
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _placed(rows: pa.RecordBatch) -> tuple[list[int], list[str]]:
    """Return the places of rows that a footprint can be made for, and the names of their CRSs."""
    columns = ("crs", "status", "count", "footprint", "gcp_count", "has_rpcs")
    transforms = rows.column("transform")
    places, names = [], []
    for at, (name, status, count, had, gcps, rpcs) in enumerate(
        zip(*(rows.column(column).to_pylist() for column in columns), strict=True)
    ):
        if not name or not count or had or status != "success":
            continue
        # Without geotransform: its points or coefficients have told nothing.
        if (gcps or rpcs) and tuple(transforms[at].as_py()) == UNPLACED:
            continue
        places.append(at)
        names.append(name)
    if transforms.null_count:
        known = transforms.is_valid().to_pylist()
        pairs = [(at, name) for at, name in zip(places, names, strict=True) if known[at]]
        return [at for at, _ in pairs], [name for _, name in pairs]
    return places, names


def outlines_of(crs: str, grids: Sequence[Grid]) -> list[Outline | None]:
    """Return the outlines of rasters in one CRS; None: it cannot be told."""
    affine = np.array([grid.transform for grid in grids], dtype=float).reshape(-1, 6).T
    sizes = np.array([(grid.width, grid.height) for grid in grids], dtype=float).reshape(-1, 2).T
    made = _outlines([crs] * len(grids), affine, sizes)
    found: list[Outline | None] = [None] * len(grids)
    if len(made.places):
        rows = zip(*(column.to_pylist() for column in made.columns()), strict=True)
        for at, (geometry, box) in zip(made.places.tolist(), rows, strict=True):
            found[at] = Outline(geometry, BBox(**box))
    return found


def _outlines(names: Sequence[str], affine: Floats, sizes: Floats) -> Made:
    with env_ctx_if_needed(), np.errstate(all="ignore"):  # what overflows has no footprint
        return outlines(names, affine, sizes)


def outline_of_points(lon: Sequence[float], lat: Sequence[float]) -> Outline | None:
    """Return the outline through points in degrees, in the order of a ring.

    None if they are too far off to be on Earth.
    """
    ring = np.array(lon, dtype=float), np.array(lat, dtype=float)
    if not (np.abs(ring[0]) <= 540).all() or not (np.abs(ring[1]) <= 90).all():
        return None
    return polygon_around(unwrapped(ring[0]), ring[1])
