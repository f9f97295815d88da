"""Rings that cross the antimeridian, cut in two there, many at once.

Only those that are as simple as that: the others are for GEOS, which takes many times as long.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from rastermeta_async.footprints.polygons import (
    POLYGON,
    Floats,
    Mask,
    Places,
    Polygons,
    counterclockwise,
)

_SURE = 1e-6
"""Degrees; a half that is as wide, and whose cut is as long, is no sliver."""

_HEAD = struct.pack("<BII", 1, 6, 2)  # byte order, type 6 (multipolygon), polygons


def halves(rings: Floats) -> tuple[Mask, Polygons]:
    """Return which rings can be cut in two at 180 degrees, and these, as polygons of two parts.

    Args:
        rings: that do not cross themselves, shape (2, points, rings), not closed.
    """
    fit = _cross_once(rings)
    lon, lat = _from_meridian_on(counterclockwise(rings[..., fit]))
    number = (lon > 180.0).sum(axis=0)
    enter, leave = _latitude(lon, lat, np.zeros_like(number)), _latitude(lon, lat, number)
    sure = np.abs(leave - enter) > _SURE
    fit[fit] = sure
    edge = np.full(len(number), 180.0)
    moved = np.stack([np.where(lon > 180.0, lon - 360.0, lon), lat])
    cuts = np.array([[-edge, -edge, edge, edge], [enter, leave, leave, enter]])
    points = np.concatenate([moved, cuts], axis=1)[..., sure]
    limits = np.array([-edge, lat.min(axis=0), edge, lat.max(axis=0)])[:, sure]
    return fit, Polygons(pa.array(_wkb(points, number[sure]), pa.binary()), limits)


def _cross_once(rings: Floats) -> Mask:
    """Tell which rings cross the meridian there and back, and nothing else."""
    lon, lat = rings
    beyond = lon > 180.0
    low, high = lon.min(axis=0), lon.max(axis=0)
    once: Mask = (
        ((beyond != np.roll(beyond, 1, axis=0)).sum(axis=0) == 2)
        & (lon != 180.0).all(axis=0)
        & (low >= -180.0)
        & (np.minimum(high - 180.0, 180.0 - low) > _SURE)
        & (high - low < 360.0)
        & (np.abs(lat).max(axis=0) <= 90.0)
    )
    return once


def _from_meridian_on(rings: Floats) -> Floats:
    """Return rings that start with their first point beyond the meridian."""
    beyond = rings[0] > 180.0
    first = (beyond & ~np.roll(beyond, 1, axis=0)).argmax(axis=0)
    order = (first + np.arange(len(beyond))[:, None]) % len(beyond)
    return np.take_along_axis(rings, order[None], axis=1)


def _latitude(lon: Floats, lat: Floats, at: Places) -> Floats:
    """Return where rings cross the meridian, between their points at these places and before."""
    rings = np.arange(len(at))
    (x0, y0), (x1, y1) = ((lon[point, rings], lat[point, rings]) for point in (at - 1, at))
    found: Floats = y0 + (y1 - y0) * ((180.0 - x0) / (x1 - x0))
    return np.clip(found, np.minimum(y0, y1), np.maximum(y0, y1))


def _wkb(points: Floats, numbers: Places) -> list[bytes]:
    """Return polygons of two parts.

    Args:
        points: of the rings, of those beyond the meridian first; then the four that the parts
            start and end with at the meridian; shape (2, points, rings).
        numbers: of points beyond the meridian.
    """
    count = points.shape[1] - 4
    found = []
    for ring, number in zip((points.T + 0.0).astype("<f8"), numbers.tolist(), strict=True):
        first = [count, *range(number), count + 1, count]
        second = [count + 2, *range(number, count), count + 3, count + 2]
        parts = [
            POLYGON.pack(1, 3, 1, len(part)) + ring[part].tobytes() for part in (first, second)
        ]
        found.append(_HEAD + b"".join(parts))
    return found
