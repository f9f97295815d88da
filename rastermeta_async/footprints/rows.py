"""Adds footprints: the area of each raster as polygons in longitude and latitude (EPSG:4326).

    columns of a batch ──▶ rings of pixels ──▶ rings of degrees, a CRS at once ──▶ columns

A ring has enough points to stay within a pixel, or 1e-4 degrees, of the true outline (`rings`).
`crs_domain` handles, one by one, rings that meet a pole and rasters that reach beyond the domain of
their CRS. Without sufficient data there is no footprint: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from rasterio.env import env_ctx_if_needed

from rastermeta_async.footprints.crs_domain import TOLERANCE, Grid
from rastermeta_async.footprints.degrees import WGS84
from rastermeta_async.footprints.polygons import (
    Floats,
    Mask,
    Outline,
    Places,
    polygon_around,
    unwrapped,
)
from rastermeta_async.footprints.rings import Made, outlines
from rastermeta_async.model.record import SCHEMA, UNPLACED, BBox, Record, to_batch

__all__ = [
    "TOLERANCE", "WGS84", "Grid", "Outline", "outline_of_points", "outlines_of",
    "rows_with_footprints", "with_footprints",
]  # fmt: skip


def rows_with_footprints(records: Sequence[Record]) -> pa.RecordBatch:
    """Return records as a batch of `SCHEMA`, with footprints."""
    return with_footprints(to_batch(records))


def with_footprints(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with the columns geometry, bbox and footprint filled in.

    Rows that have a footprint keep it. The result for a row depends only on its own columns.
    """
    import pyarrow.compute as pc  # imported with the first rows: workers start faster

    placed = _can_have_footprint(rows)
    if not placed.any():
        return rows
    some = rows.select(["crs", "transform", "width", "height"])
    some = some if placed.all() else some.filter(pa.array(placed))
    made, found = _made_for(some)
    count = len(made.places)
    if not count:
        return rows
    # Each row takes a new footprint if there is one, and otherwise keeps its old values.
    source = np.arange(count, count + rows.num_rows)
    source[placed] = np.where(found < 0, source[placed], found)
    taken = pa.array(source)
    whole = {
        name: pa.concat_arrays([*pieces, rows.column(name)]).take(taken)
        for name, pieces in zip(("geometry", "bbox"), made.columns(), strict=True)
    }
    is_made = pa.array(source < count)
    whole["footprint"] = pc.if_else(is_made, _word("transform"), rows.column("footprint"))
    for name, column in whole.items():
        at = SCHEMA.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), column)
    return rows


def _made_for(rows: pa.RecordBatch) -> tuple[Made, Places]:
    """Return footprints, one for each grid, and the index of each row's footprint; -1: none."""
    crs = rows.column("crs").dictionary_encode()
    names, of_row = crs.dictionary.to_pylist(), crs.indices.to_numpy()
    affine = rows.column("transform").flatten().to_numpy().reshape(-1, 6).T
    sizes = np.array([rows.column(name).to_numpy() for name in ("width", "height")], dtype=float)
    first, which = _alike(np.concatenate([[of_row], affine, sizes]))
    made = _outlines(names, of_row[first], affine[:, first], sizes[:, first])
    of_grid = np.full(len(first), -1)
    of_grid[made.places] = np.arange(len(made.places))
    found: Places = of_grid[which]
    return made, found


def _alike(grids: Floats) -> tuple[Places, Places]:
    """Find grids that are equal to the last bit, as for the bands or dates of one scene.

    Args:
        grids: shape (numbers of a grid, grids).

    Returns:
        The first index of each distinct grid, and for each grid its index among these.
    """
    content = grids.T.tobytes()
    size = len(content) // grids.shape[1]
    seen: dict[bytes, int] = {}
    firsts = [
        seen.setdefault(content[at * size : (at + 1) * size], at) for at in range(grids.shape[1])
    ]
    first, which = np.unique(firsts, return_inverse=True)
    return first, which


def _can_have_footprint(rows: pa.RecordBatch) -> Mask:
    """Tell for which rows a footprint can be made."""
    import pyarrow.compute as pc

    placed: Mask = (
        _truths(pc.equal(rows.column("status"), _word("success")))
        & _are_known(rows.column("crs"))
        & _are_known(rows.column("transform"))
        & ~_are_known(rows.column("footprint"))
        & _truths(rows.column("count"))
    )
    # Such a row has no geotransform, and its points or RPCs gave no footprint.
    doubtful = placed & (_truths(rows.column("gcp_count")) | _truths(rows.column("has_rpcs")))
    transforms = rows.column("transform")
    for at in doubtful.nonzero()[0].tolist():
        placed[at] = tuple(transforms[at].as_py()) != UNPLACED
    return placed


def _are_known(column: pa.Array) -> Mask:
    """Tell which values are not null."""
    if column.null_count in (0, len(column)):  # the usual case, at no cost
        return np.full(len(column), not column.null_count)
    return _truths(column.is_valid())


def _truths(column: pa.Array) -> Mask:
    """Tell which values are not null, false or zero."""
    if column.null_count:
        column = column.fill_null(pa.scalar(0).cast(column.type))
    found: Mask = column.to_numpy(zero_copy_only=False).astype(bool)
    return found


@lru_cache
def _word(text: str) -> pa.Scalar:
    """Return a text as Arrow scalar; not at import: pyarrow imports pandas then, if installed."""
    return pa.scalar(text)


def outlines_of(crs: str, grids: Sequence[Grid]) -> list[Outline | None]:
    """Return the outlines of rasters in one CRS; None where an outline cannot be computed."""
    affine = np.array([grid.transform for grid in grids], dtype=float).reshape(-1, 6).T
    sizes = np.array([(grid.width, grid.height) for grid in grids], dtype=float).reshape(-1, 2).T
    made = _outlines([crs], np.zeros(len(grids), np.int64), affine, sizes)
    found: list[Outline | None] = [None] * len(grids)
    if len(made.places):
        columns = (pa.concat_arrays(pieces).to_pylist() for pieces in made.columns())
        rows = zip(*columns, strict=True)
        for at, (geometry, box) in zip(made.places.tolist(), rows, strict=True):
            found[at] = Outline(geometry, BBox(**box))
    return found


def _outlines(names: Sequence[str], which: Places, affine: Floats, sizes: Floats) -> Made:
    with env_ctx_if_needed(), np.errstate(all="ignore"):  # overflow: no footprint
        return outlines(names, which, affine, sizes)


def outline_of_points(lon: Sequence[float], lat: Sequence[float]) -> Outline | None:
    """Return the outline through points in degrees, in the order of a ring.

    None if a point is too far away to be on Earth.
    """
    ring = np.array(lon, dtype=float), np.array(lat, dtype=float)
    if not (np.abs(ring[0]) <= 540).all() or not (np.abs(ring[1]) <= 90).all():
        return None
    return polygon_around(unwrapped(ring[0]), ring[1])
