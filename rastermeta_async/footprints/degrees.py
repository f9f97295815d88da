"""Converts coordinates of a CRS to longitude and latitude, for many points at once.

PROJ chooses an operation for each point separately, so the result for a point does not depend on
the other points. But if one point has no place in the target, the call fails for all points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as warp

from rastermeta_async.footprints.polygons import Floats, Mask, Places

WGS84 = CRS.from_epsg(4326)

_STRAY = 1000.0
"""Metres by which a point may miss its place after a transformation there and back. Old datums use
other operations on the way back, up to 500 m off. A point that a projection wraps is off by far
more, except next to a pole."""

_NEXT_TO_POLE = 89.0, 1e-3
"""Degrees of latitude; fraction of `_STRAY` that is permitted from this latitude on."""

_METRES_A_DEGREE = 1e5

_REACH = 1e8
"""Metres; larger coordinates are not on Earth. PROJ never finishes with some huge numbers."""

_UTM = CRS.from_epsg(32631)
_UTM_REACH = 1e6, 1e7
"""Metres from the central meridian and from the equator; within them UTM is surely exact."""

FARTHEST = 540.0, 180.0
"""Longitude, latitude. Larger numbers are no coordinates in degrees, whatever their CRS says."""

_ROUND = 360.0
"""Degrees of a full turn."""

_EDGE = 2e-6 / _ROUND
"""Share of a full turn. Up to half of it beyond an edge of the map, x still counts as on the map: a
raster whose rounded coordinates end at the edge must end on the map."""

_LINEAR = 1e-11
"""Share of a full turn by which x may miss its place in a cylindrical projection."""

_SAMPLES = 128
_ROUNDS = 8
"""Rounds of a search with `_SAMPLES` samples each; they reach the precision of floats."""


class _Turn(NamedTuple):
    """A full turn of x round the Earth, in units of a CRS."""

    middle: float
    """Middle of PROJ's map."""
    length: float
    """Length of a turn; negative if x goes west."""

    def numbers(self, x: Floats) -> Floats:
        """Return the number of turns by which coordinates are away from the map."""
        numbers: Floats = np.round((x - self.middle) / self.length * (1.0 - _EDGE))
        return numbers


class _SourceCrs(NamedTuple):
    """A CRS of the Earth, as PROJ defines it; `Transformers` documents its methods."""

    crs: CRS
    unit: float
    """Degrees in a unit; 0 if the coordinates are not longitudes and latitudes."""
    stray: float
    """`_STRAY` in units of the CRS."""
    turn: _Turn | None
    """None if x does not go round the Earth."""

    def degrees(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        if self.unit:
            return self._degrees_of_angles(x * self.unit, y * self.unit)
        near = self.reaches(x, y)
        if not near.all():
            lon, lat = self.degrees(np.where(near, x, 0), np.where(near, y, 0))
            return np.where(near, lon, np.nan), np.where(near, lat, np.nan)
        x, beyond = self._on_map(x)
        lon, lat = (one.reshape(x.shape) for one in _warp(self.crs, WGS84, x.ravel(), y.ravel()))
        return lon + beyond, np.clip(lat, -90.0, 90.0)

    def _degrees_of_angles(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        if self.crs is WGS84:
            return x, y
        near = np.clip(x, -FARTHEST[0], FARTHEST[0])  # `holds` rejects larger values
        on_map = near - _ROUND * np.round(near / _ROUND)
        on_earth = np.clip(y, -90.0, 90.0)
        angles = (on_map / self.unit).ravel(), (on_earth / self.unit).ravel()
        lon, lat = (one.reshape(x.shape) for one in _warp(self.crs, WGS84, *angles))
        return lon + _ROUND * np.round((x - lon) / _ROUND), lat + (y - on_earth)

    def _on_map(self, x: Floats) -> tuple[Floats, Floats | float]:
        """Return x moved onto the map, and the degrees of longitude of that move.

        For x beyond the map, PROJ may choose another operation.
        """
        if self.turn is None or not (turns := self.turn.numbers(x)).any():
            return x, 0.0
        return x - self.turn.length * turns, _ROUND * turns

    def reaches(self, x: Floats, y: Floats) -> Mask:
        reach = FARTHEST[0] / self.unit if self.unit else self.stray * _REACH / _STRAY
        near: Mask = (np.abs(x) <= reach) & (np.abs(y) <= reach)
        return near

    def holds(self, x: Floats, y: Floats, lon: Floats, lat: Floats) -> Mask:
        near: Mask
        if self.unit:
            near = (np.abs(lon) <= FARTHEST[0]) & (np.abs(lat) <= FARTHEST[1])
            return near
        if self.crs is _UTM:
            near = (np.abs(x - 5e5) <= _UTM_REACH[0]) & (np.abs(y) <= _UTM_REACH[1])
            if near.all():
                return near
        x, beyond = self._on_map(x)
        there = np.abs(lon) <= FARTHEST[0]  # and finite
        back = _warp(WGS84, self.crs, (lon - beyond)[there], lat[there])
        polar, less = _NEXT_TO_POLE
        stray = self.stray * np.where(np.abs(lat[there]) < polar, 1.0, less)
        found = np.zeros(lon.shape, dtype=bool)
        found[there] = (np.abs(back[0] - x[there]) <= stray) & (np.abs(back[1] - y[there]) <= stray)
        return found


class Transformers:
    """Converts coordinates of many rasters at once to degrees, each in its own CRS.

    The last axis of coordinates is the axis of the rasters. All UTM zones share one source. The
    coordinates are first moved to the zone of the source; afterwards the longitudes are moved back.
    """

    def __init__(
        self,
        groups: Sequence[tuple[_SourceCrs, Places | slice]],
        east: Floats | float,
        north: Floats | float,
        angles: Mask,
    ) -> None:
        self._groups = groups
        self._east = east  # added to longitudes
        self._north = north  # added to y first
        self.angles = angles
        """For each raster, whether its coordinates are longitudes and latitudes."""

    @classmethod
    def of(cls, each: Sequence[Transformer], which: Places) -> Transformers:
        """Return the transformers of rasters; `which` has the index in `each` for each raster."""
        sources = {id(one._source.crs): one._source for one in each}
        groups: list[tuple[_SourceCrs, Places | slice]] = [(each[0]._source, slice(None))]
        if len(sources) > 1:
            keys = np.array([id(one._source.crs) for one in each])[which]
            groups = [(source, (keys == key).nonzero()[0]) for key, source in sources.items()]
        east, north, angles = (
            np.array(values)[which]
            for values in zip(*((one._east, one._north, one.angles) for one in each), strict=True)
        )
        return cls(groups, east, north, angles)

    def degrees(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return longitudes and latitudes in the shape of x; NaN where there are none.

        In a geographic CRS, they continue beyond 180 and 90 degrees. If a map repeats beyond its
        edges, the longitudes continue as well.
        """
        found, y = np.empty((2, *x.shape)), y + self._north
        for source, at in self._groups:
            found[..., at] = source.degrees(x[..., at], y[..., at])
        return found[0] + self._east, found[1]

    def reaches(self, x: Floats, y: Floats) -> Mask:
        """Tell which coordinates may be on Earth at all."""
        found, y = np.empty(x.shape, dtype=bool), y + self._north
        for source, at in self._groups:
            found[..., at] = source.reaches(x[..., at], y[..., at])
        return found

    def holds(self, x: Floats, y: Floats, lon: Floats, lat: Floats) -> Mask:
        """Tell which points are really where `degrees` places them."""
        found, y, lon = np.empty(x.shape, dtype=bool), y + self._north, lon - self._east
        for source, at in self._groups:
            found[..., at] = source.holds(x[..., at], y[..., at], lon[..., at], lat[..., at])
        return found


class Transformer(Transformers):
    """Converts coordinates of one CRS, in arrays of any shape, to degrees."""

    def __init__(self, source: _SourceCrs, east: float = 0.0, north: float = 0.0) -> None:
        super().__init__([(source, slice(None))], east, north, np.array(source.unit > 0))
        self._source = source

    @property
    def turn(self) -> float | None:
        """Length in x of a full turn round the Earth; None if x does not go round it."""
        return self._source.turn and abs(self._source.turn.length)


@lru_cache(256)
def transformer_of(name: str) -> Transformer | None:
    """Return the transformer of a CRS; None if the CRS has no places on the Earth's surface."""
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
    if crs.is_geographic:
        turn = _Turn(0.0, 2 * np.pi / factor)
        if not angles:
            return Transformer(_SourceCrs(crs, 0.0, _STRAY / _METRES_A_DEGREE, turn))
        return Transformer(
            _SourceCrs(WGS84 if crs == WGS84 else crs, float(np.degrees(factor)), 0.0, turn)
        )
    stray = _STRAY / factor
    return Transformer(_SourceCrs(crs, 0.0, stray, _turn_of(crs, stray)))


def _shared(name: str) -> Transformer | None:
    """Return the transformer of a UTM zone of WGS 84; the zones differ only in their origins."""
    south = name.startswith("EPSG:327")
    zone = name[8:]
    if not (south or name.startswith("EPSG:326")) or not (zone.isdecimal() and len(zone) == 2):
        return None
    if not 1 <= int(zone) <= 60:
        return None
    source = _SourceCrs(_UTM, 0.0, _STRAY, None)
    return Transformer(source, 6.0 * (int(zone) - 31), -1e7 * south)


def _turn_of(crs: CRS, stray: float) -> _Turn | None:
    """Return how x goes round the Earth; None if the projection is not cylindrical."""
    one_meridian, _ = _warp(WGS84, crs, np.array([17.0, 17.0]), np.array([0.0, 50.0]))
    if not np.ptp(one_meridian) <= stray:  # nearly all other CRSs return here
        return None
    if turn := _turn_between(WGS84, crs):
        return turn
    try:
        return _turn_between(*_without_datum(crs))
    except (RasterioError, ValueError, LookupError):
        return None


def _turn_between(base: CRS, projected: CRS) -> _Turn | None:
    """Return how x goes round the Earth; None if x is not linear in the longitudes of `base`.

    In a cylindrical projection, x depends only on the longitude, and linearly, from one edge of the
    map to the other. Both edges are the same meridian.
    """
    _, factor = base.units_factor
    whole = 2 * np.pi / factor
    before, after = np.array([-0.4, 0.6]) * whole
    for _ in range(_ROUNDS):  # of the search for the edge, where x jumps
        lon = np.linspace(before, after, _SAMPLES)
        x, _ = _warp(base, projected, lon, np.zeros(_SAMPLES))
        edge = int(np.abs(np.diff(x)).argmax())
        (before, after), (last, first) = lon[edge : edge + 2], x[edge : edge + 2]
    parts = np.linspace(0.0, 1.0, 9)[1:-1]
    lon, lat = np.meshgrid(after + whole * parts, np.linspace(-1 / 6, 1 / 6, 5) * whole)
    x, _ = _warp(base, projected, lon.ravel(), lat.ravel())
    off = np.abs(x.reshape(lon.shape) - (first + (last - first) * parts)).max()
    if not off <= _LINEAR * abs(last - first):
        return None
    return _Turn(float(first + last) / 2, float(last - first))


def _without_datum(crs: CRS) -> tuple[CRS, CRS]:
    """Return the base CRS of a projected CRS, and the projected CRS, both of the same datum.

    Raises:
        LookupError: there is no base CRS.
    """
    part = crs.to_dict(projjson=True)
    while "base_crs" not in part:  # compound, or bound to another datum
        part = part["source_crs"] if "source_crs" in part else part["components"][0]
    base, projected = (json.dumps(one) for one in (part["base_crs"], part))
    return CRS.from_user_input(base), CRS.from_user_input(projected)


def _is_of_earth(crs: CRS) -> bool:
    try:
        warp(crs, WGS84, [0.0], [0.0])
    except Exception as error:  # noqa: BLE001  # GDAL's errors have no common public class
        return "coordinate operation" not in str(error)
    return True


def _warp(source: CRS, target: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Transform points; NaN where a point cannot be transformed."""
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
