"""Computes footprints without a geotransform: from control points or rational polynomials (RPCs).

Both are approximate: GDAL fits a polynomial to the points, and the height of the ground is not
known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer, RPCTransformer

from rastermeta_async.footprints.degrees import transformer_of
from rastermeta_async.footprints.polygons import Floats
from rastermeta_async.footprints.rows import outline_of_points
from rastermeta_async.model.record import UNPLACED, BBox

_OUTLINE_SEGMENTS = 8
"""Segments of each edge of an outline."""

_MAX_MISFIT = 0.05
"""Share of the control points' extent by which a point may miss its place."""


class Approximate(NamedTuple):
    """An outline made from points."""

    geometry: bytes
    """WKB."""
    bbox: BBox
    source: str
    """Source of the outline: gcps or rpcs."""


def outline_of(dataset: Any) -> Approximate | None:
    """Return the outline of a raster without geotransform, from its control points or RPCs.

    Raises:
        Exception: the points or RPCs are of no use.
    """
    if dataset.transform.to_gdal() != UNPLACED or not dataset.count:
        return None
    gcps, crs = dataset.gcps
    if len(gcps) > 2 and crs and (crs.is_geographic or crs.is_projected):
        source, (lon, lat) = "gcps", _ring_by_points(dataset, gcps, crs)
    elif rpcs := dataset.rpcs:
        source = "rpcs"
        # The height of the pixels is not known; the RPCs are centred on this height.
        with RPCTransformer(rpcs, RPC_HEIGHT=rpcs.height_off) as transformer:
            lon, lat = _ring(dataset, transformer)
    else:
        return None
    outline = outline_of_points(lon, lat)
    return outline and Approximate(*outline, source)


def _ring_by_points(
    dataset: Any, gcps: list[GroundControlPoint], crs: Any
) -> tuple[list[float], list[float]]:
    """Return the raster's ring in degrees.

    Raises:
        ValueError: the points are not on Earth, or GDAL's polynomial does not fit them.
    """
    transformer = transformer_of(crs.to_string())
    if transformer is None:
        raise ValueError("the CRS of the control points is not of the Earth")
    row, column, x, y = np.array([(gcp.row, gcp.col, gcp.x, gcp.y) for gcp in gcps]).T
    if not transformer.reaches(x, y).all():
        raise ValueError("the control points are nowhere on Earth")
    x = _on_one_side(x, transformer.turn)
    gcps = [
        GroundControlPoint(gcp.row, gcp.col, place, gcp.y, gcp.z)
        for gcp, place in zip(gcps, x.tolist(), strict=True)
    ]
    with GCPTransformer(gcps) as polynomial:
        off = np.array(polynomial.xy(row, column, offset="ul")) - (x, y)
        if not np.abs(off).max() <= _MAX_MISFIT * (np.ptp(x) + np.ptp(y)):
            raise ValueError("the control points do not fit")
        x, y = map(np.array, _ring(dataset, polynomial))
    lon, lat = transformer.degrees(x, y)
    if not transformer.holds(x, y, lon, lat).all():
        raise ValueError("the control points are nowhere on Earth")
    return lon.tolist(), lat.tolist()


def _on_one_side(x: Floats, turn: float | None) -> Floats:
    """Return the x of points so that it continues across the antimeridian.

    Points more than half a turn round the Earth apart lie on both sides of the antimeridian.
    """
    return x if turn is None or np.ptp(x) <= turn / 2 else x % turn


def _ring(dataset: Any, transformer: Any) -> tuple[list[float], list[float]]:
    """Return points of the raster's edges, in the transformer's coordinates."""
    along = np.arange(_OUTLINE_SEGMENTS) / _OUTLINE_SEGMENTS
    zero, one = np.zeros(_OUTLINE_SEGMENTS), np.ones(_OUTLINE_SEGMENTS)
    column = np.concatenate([zero, along, one, 1 - along]) * dataset.width
    row = np.concatenate([along, one, 1 - along, zero]) * dataset.height
    x, y = transformer.xy(row, column, offset="ul")
    return list(x), list(y)
