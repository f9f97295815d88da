"""From the coordinates of a CRS to longitude and latitude, for many points at once.

PROJ chooses an operation for each point by itself, so that what a point becomes does not depend
on the others; one that it has no place for fails all that are given at once, though.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as warp

from rastermeta_async.footprints.polygons import Floats, Truths

WGS84 = CRS.from_epsg(4326)

_STRAY = 1000.0
"""Metres by which a point may miss when it is transformed there and back: old datums have other
operations on the way back, up to 500 m off. What a projection wraps is off by far more, but
next to a pole."""

_NEXT_TO_POLE = 89.0, 1e-3
"""Degrees of latitude; part of `_STRAY` from there on."""

_METRES_A_DEGREE = 1e5

_REACH = 1e8
"""Metres beyond which nothing is on Earth. PROJ takes for ever over some numbers that are huge."""

_UTM = CRS.from_epsg(32631)
_UTM_REACH = 1e6, 1e7
"""Metres from the central meridian and the equator within which UTM is exact for sure."""

FARTHEST = 540.0, 180.0
"""Degrees beyond which coordinates are none in degrees, whatever their CRS says."""


class System(NamedTuple):
    """A CRS that has to do with the Earth."""

    source: CRS
    unit: float
    """Degrees in a unit of longitudes and latitudes; 0: coordinates are others."""
    stray: float
    """See `_STRAY`, in units of the CRS."""
    east: float = 0.0
    """To be added to longitudes."""
    north: float = 0.0
    """To be added to y beforehand."""

    def degrees(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return longitudes and latitudes, of x's shape; NaN where there are none.

        Those of a geographic CRS go on beyond 180 and 90 degrees as its own do.
        """
        if self.unit:
            return self._degrees_of_angles(x * self.unit, y * self.unit)
        near = self.reaches(x, y)
        if not near.all():
            lon, lat = self.degrees(np.where(near, x, 0), np.where(near, y, 0))
            return np.where(near, lon, np.nan), np.where(near, lat, np.nan)
        lon, lat = _warp(self.source, WGS84, x.ravel(), y.ravel())
        return lon.reshape(x.shape), np.clip(lat, -90.0, 90.0).reshape(x.shape)

    def _degrees_of_angles(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        if self.source is WGS84:
            return x, y
        near = np.clip(x, -FARTHEST[0], FARTHEST[0])  # what is not is not held for a place
        on_earth = np.clip(y, -90.0, 90.0)
        angles = (near / self.unit).ravel(), (on_earth / self.unit).ravel()
        lon, lat = (found.reshape(x.shape) for found in _warp(self.source, WGS84, *angles))
        return lon + 360.0 * np.round((x - lon) / 360.0), lat + (y - on_earth)

    def reaches(self, x: Floats, y: Floats) -> Truths:
        """Tell which coordinates may be on Earth at all."""
        reach = FARTHEST[0] / self.unit if self.unit else self.stray * _REACH / _STRAY
        near: Truths = (np.abs(x) <= reach) & (np.abs(y) <= reach)
        return near

    def holds(self, x: Floats, y: Floats, lon: Floats, lat: Floats) -> Truths:
        """Tell which points are really where the CRS seems to place them."""
        if self.unit:
            return (np.abs(lon) <= FARTHEST[0]) & (np.abs(lat) <= FARTHEST[1])
        if self.source is _UTM:
            near: Truths = (np.abs(x - 5e5) <= _UTM_REACH[0]) & (np.abs(y) <= _UTM_REACH[1])
            if near.all():
                return near
        there = np.isfinite(lon)
        back = _warp(WGS84, self.source, lon[there], lat[there])
        polar, less = _NEXT_TO_POLE
        stray = self.stray * np.where(np.abs(lat[there]) < polar, 1.0, less)
        found = np.zeros(lon.shape, dtype=bool)
        found[there] = (np.abs(back[0] - x[there]) <= stray) & (np.abs(back[1] - y[there]) <= stray)
        return found


@lru_cache(256)
def system_of(name: str) -> System | None:
    """Return the system of a CRS; None: it has no places on the Earth's surface."""
    if shared := _shared(name):
        return shared
    try:
        crs = CRS.from_user_input(name)
        if not (crs.is_geographic or crs.is_projected):  # a local, vertical or geocentric one
            return None
        _, factor = crs.units_factor
        angles = crs.is_geographic and "DERIVING" not in crs.to_wkt(version="WKT2_2019")
    except (RasterioError, ValueError):
        return None
    if not _is_of_earth(crs):
        return None
    if angles:
        crs = WGS84 if crs == WGS84 else crs
        return System(crs, float(np.degrees(factor)), 0.0)
    return System(crs, 0.0, _STRAY / (_METRES_A_DEGREE if crs.is_geographic else factor))


def _shared(name: str) -> System | None:
    """Return the system of a UTM zone of WGS 84: all are the same but for their origins."""
    south = name.startswith("EPSG:327")
    zone = name[8:]
    if not (south or name.startswith("EPSG:326")) or not (zone.isdecimal() and len(zone) == 2):
        return None
    if not 1 <= int(zone) <= 60:
        return None
    return System(_UTM, 0.0, _STRAY, 6.0 * (int(zone) - 31), -1e7 * south)


def _is_of_earth(crs: CRS) -> bool:
    try:
        warp(crs, WGS84, [0.0], [0.0])
    except Exception as error:  # noqa: BLE001  # GDAL's errors have no common public class
        return "coordinate operation" not in str(error)
    return True


def _warp(source: CRS, target: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Transform points; what cannot be is NaN."""
    if not len(x):
        return x, y
    try:
        first, second = warp(source, target, x.tolist(), y.tolist())
    except Exception:  # noqa: BLE001  # GDAL's errors have no common public class
        if len(x) == 1:
            return np.full(1, np.nan), np.full(1, np.nan)
        half = len(x) // 2
        low = _warp(source, target, x[:half], y[:half])
        high = _warp(source, target, x[half:], y[half:])
        return np.concatenate([low[0], high[0]]), np.concatenate([low[1], high[1]])
    found = np.fromiter(first, float, len(first)), np.fromiter(second, float, len(second))
    good = np.isfinite(found[0]) & np.isfinite(found[1])
    if not good.all():
        found[0][~good] = found[1][~good] = np.nan
    return found
