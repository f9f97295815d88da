"""Makes polygons of rings of longitudes and latitudes: WKB, the antimeridian, the poles.

References: OGC Simple Features (06-103r4), section 8 (WKB); GeoParquet 1.1 ("orientation");
RFC 7946, sections 3.1.9 and 5 (the antimeridian, the poles).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rastermeta_async.model.record import SCHEMA, BBox

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.int64]]

MIN_WIDTH = 1e-9
"""Degrees. In the floats of its coordinates, a narrower ring has no area."""

_WIDE = 30.0
"""Degrees. If its points span more, a raster may cover all of the Earth outside its ring."""

_MOST = 0.5
"""Minimum share of a raster's points that must be within its footprint."""

POLYGON = struct.Struct("<BIII")
"""WKB before a polygon's points: byte order, type 3, number of rings, number of points."""


class Outline(NamedTuple):
    """A footprint as it is stored."""

    geometry: bytes
    """WKB."""
    bbox: BBox


class Polygons(NamedTuple):
    """Some footprints, as columns."""

    geometry: pa.Array
    """WKB."""
    limits: Floats
    """Bounding boxes, shape (4, polygons)."""

    @classmethod
    def of_rings(cls, rings: Floats, limits: Floats) -> Polygons:
        """Return the polygons of rings that need no further treatment.

        Args:
            rings: rings that are not closed, shape (2, points, polygons).
            limits: their bounding boxes, see `limits_of`.
        """
        rings = counterclockwise(rings)
        _, points, number = rings.shape
        closed = np.empty((points + 1, 2, number))
        np.add(rings.transpose(1, 0, 2), 0.0, out=closed[:-1])  # no negative zeros
        closed[-1] = closed[0]
        head = np.void(POLYGON.pack(1, 3, 1, points + 1))
        content = np.empty(number, [("head", head.dtype), ("points", "<f8", (points + 1, 2))])
        content["head"], content["points"] = head, closed.transpose(2, 0, 1)
        offsets = np.arange(number + 1, dtype=np.int32) * np.int32(content.itemsize)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content.view(np.uint8))]
        return cls(pa.BinaryArray.from_buffers(pa.binary(), number, buffers), limits)

    @classmethod
    def of_outlines(cls, outlines: list[Outline]) -> Polygons:
        """Return outlines that were made one by one."""
        limits = np.array([outline.bbox for outline in outlines]).T
        return cls(pa.array([outline.geometry for outline in outlines]), limits)


def boxes(limits: Floats) -> pa.Array:
    """Return bounding boxes, shape (4, polygons), as a column."""
    kind = SCHEMA.field("bbox").type
    return pa.StructArray.from_arrays([pa.array(one) for one in limits], fields=list(kind))


def limits_of(rings: Floats) -> Floats:
    """Return bounding boxes, shape (4, polygons), of rings, shape (2, points, polygons)."""
    return np.concatenate([rings.min(axis=1), rings.max(axis=1)])


def areas(rings: Floats) -> Floats:
    """Return the areas of rings, shape (2, points, polygons); negative if clockwise."""
    x, y = rings[:, 1:] - rings[:, :1]
    found: Floats = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum(axis=0) / 2
    return found


def counterclockwise(rings: Floats) -> Floats:
    """Return rings, shape (2, points, polygons), with the clockwise rings reversed."""
    clockwise = areas(rings) < 0
    return np.where(clockwise, rings[:, ::-1], rings) if clockwise.any() else rings


def unwrapped(lon: Floats) -> Floats:
    """Return longitudes along lines (the first axis) without jumps by 360 degrees."""
    turns = np.round(np.diff(lon, axis=0) / 360.0)
    if not turns.any():
        return lon
    going_on = lon.copy()
    going_on[1:] -= 360.0 * np.cumsum(turns, axis=0)
    return going_on


def polygon_of(lon: Floats, lat: Floats) -> Outline | None:
    """Return a closing ring as valid geometry; it may go beyond 180 degrees or the poles."""
    return _outline_of(_folded(np.column_stack([lon, lat])))


def polygon_around(
    lon: Floats, lat: Floats, inside: tuple[Floats, Floats] | None = None
) -> Outline | None:
    """Return a ring as valid geometry; it may go beyond 180 degrees, or round a pole.

    Args:
        lon: longitudes of the ring, which continue beyond 180 degrees.
        lat: latitudes of the ring; the part beyond a pole is cut off.
        inside: longitudes and latitudes of points inside, which select the side of the ring.
    """
    import shapely

    if inside is None:
        return _outline_of(next(_sides(lon, lat, north=bool(lat.mean() > 0), wide=False)))
    if len(lon) < 3 or not len(inside[0]):
        return None
    points = shapely.points((inside[0] + 180) % 360 - 180, inside[1])
    wide = np.ptp(inside[1]) > _WIDE or np.ptp(inside[0]) > _WIDE
    for side in _sides(lon, lat, north=bool(inside[1].mean() > 0), wide=bool(wide)):
        if shapely.intersects(side, points).mean() > _MOST:
            return _outline_of(side)
    return None


def _sides(lon: Floats, lat: Floats, *, north: bool, wide: bool) -> Iterator[Any]:
    """Yield the areas that a ring may enclose on a sphere, the most likely one first."""
    import shapely

    end = lon[-1] + (lon[0] - lon[-1] + 180) % 360 - 180
    if abs(end - lon[0]) < 180:
        area = _folded(np.column_stack([lon, lat]))
        yield area
        if wide:
            yield shapely.difference(shapely.box(-180, -90, 180, 90), area)
        return
    for pole in (90.0, -90.0) if north else (-90.0, 90.0):  # the ring goes round this pole
        cap = [[end, lat[0]], [end, pole], [lon[0], pole]]
        yield _folded(np.concatenate([np.column_stack([lon, lat]), cap]))


def _folded(ring: Floats) -> Any:
    """Return the area of a ring, moved to between -180 and 180 degrees of longitude."""
    import shapely
    import shapely.affinity

    whole = shapely.make_valid(shapely.Polygon(ring))
    low, high = ring[:, 0].min(), ring[:, 0].max()
    parts = []
    for turn in range(int(np.floor((low + 180) / 360)), int(np.ceil((high + 180) / 360))):
        east = 360.0 * turn
        part = shapely.intersection(whole, shapely.box(east - 180, -90, east + 180, 90))
        parts.append(shapely.affinity.translate(part, -east))
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _outline_of(area: Any) -> Outline | None:
    """Return the polygons of any geometry as an outline; None if it has none."""
    import shapely
    from shapely.geometry import polygon

    pieces = [
        polygon.orient(piece)
        for piece in shapely.get_parts(shapely.get_parts(area)).tolist()
        if piece.geom_type == "Polygon" and 2 * piece.area > MIN_WIDTH * piece.length
    ]
    if not pieces:
        return None
    geometry = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return Outline(shapely.to_wkb(geometry, byte_order=1), BBox(*geometry.bounds))
