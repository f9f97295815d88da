"""Give each footprint one place on the Earth: a cell of a grid of longitudes and latitudes.

A footprint belongs to the cell of its centre. The cells of a level are squares in degrees; four
cells make one of the next coarser level, so that the cells of any level are exact sums.

The centre is that of the bounding box. A footprint that reaches from -180 to 180 degrees, or is
very wide, crosses the antimeridian, encloses a pole, or is large: its centre is the mean direction
of its outline from the centre of the Earth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.footprints.limits import parsed
from rastermeta_async.model.record import BBox

Codes = np.ndarray[Any, np.dtype[np.int64]]

FINEST = 16
"""Level of the finest cells: 2**16 rows from pole to pole, 300 m each."""

NOWHERE = -1
"""Code of a row without a footprint."""

EVERYWHERE = -2
"""Code of a footprint that is too large for one place."""

ANYWHERE = -3
"""Code of all rows alike, where there are too many kinds of them to tell places apart."""

_WIDE = 60.0
"""Degrees; the bounding box of a wider footprint does not tell where its centre is."""

_LARGE = 45.0
"""Degrees of arc from its centre, beyond which a footprint is nowhere in particular."""

_ROW = 1 << (FINEST + 1)
"""Number of the finest cells in a row."""


def cells_of(boxes: pa.Array, geometry: pa.Array) -> Codes:
    """Return the code of the finest cell of each row: ``row * 2**17 + column``, from south-west.

    Args:
        boxes: column bbox.
        geometry: column geometry.
    """
    west, south, east, north = (
        pc.fill_null(pc.struct_field(boxes, name), np.nan).to_numpy(zero_copy_only=False)
        for name in BBox._fields
    )
    wide = (east - west) > _WIDE
    longitude, latitude = (west + east) / 2, (south + north) / 2
    large = np.zeros(len(wide), dtype=bool)
    if wide.any():
        longitude[wide], latitude[wide], large[wide] = _centres(geometry.filter(pa.array(wide)))
    codes = _cells(np.nan_to_num(longitude), np.nan_to_num(latitude))
    codes[large] = EVERYWHERE
    codes[np.isnan(west) | np.isnan(longitude)] = NOWHERE
    return codes


def _cells(longitude: Any, latitude: Any) -> Codes:
    column = np.clip((longitude + 180) / 360 * _ROW, 0, _ROW - 1).astype(np.int64)
    row = np.clip((latitude + 90) / 180 * (_ROW // 2), 0, _ROW // 2 - 1).astype(np.int64)
    codes: Codes = row * _ROW + column
    return codes


def _centres(geometry: pa.Array) -> tuple[Any, Any, Any]:
    """Return longitude, latitude, and whether it is large, of each footprint."""
    encoded = geometry.dictionary_encode()
    found = np.array([_centre(shape) for shape in parsed(encoded.dictionary.to_pylist())])
    at = np.asarray(encoded.indices.fill_null(0))
    longitude, latitude, radius = found[at].T
    unknown = np.asarray(geometry.is_null())
    longitude[unknown] = np.nan
    return longitude, latitude, radius > _LARGE


def _centre(shape: Any) -> tuple[float, float, float]:
    """Return longitude and latitude of a shape's centre, and its radius, in degrees."""
    import shapely

    rings = shapely.get_rings(shapely.get_parts(shape)) if shape is not None else ()
    if not len(rings):
        return np.nan, np.nan, 0.0
    # The last point of a ring is its first one.
    points = np.radians(np.concatenate([shapely.get_coordinates(ring)[:-1] for ring in rings]))
    cosine = np.cos(points[:, 1])
    towards = np.stack(
        [cosine * np.cos(points[:, 0]), cosine * np.sin(points[:, 0]), np.sin(points[:, 1])]
    )
    mean = towards.mean(axis=1)
    length = float(np.linalg.norm(mean))
    if length < 0.1:  # all around the Earth
        return 0.0, 0.0, 180.0
    x, y, z = mean / length
    radius = float(np.degrees(np.arccos(np.clip((mean / length) @ towards, -1, 1))).max())
    return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arcsin(z))), radius


def coarser(codes: Codes, levels: int) -> Codes:
    """Return the cells that hold the given ones, some levels up; codes keep their form."""
    row, column = codes // _ROW >> levels << levels, codes % _ROW >> levels << levels
    return np.where(codes < 0, codes, row * _ROW + column)


def box_of(code: int, level: int) -> tuple[float, float, float, float]:
    """Return the limits west, south, east, north of a cell of a level, in degrees."""
    size = 180 / (1 << level)
    west, south = code % _ROW * 360 / _ROW - 180, code // _ROW * 360 / _ROW - 90
    return west, south, west + size, south + size
