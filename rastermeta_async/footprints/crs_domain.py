"""Computes, one by one, outlines that meet a pole or reach beyond the domain of their CRS."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from rastermeta_async.footprints.degrees import Transformer, transformer_of
from rastermeta_async.footprints.polygons import Floats, Mask, Outline, polygon_around, unwrapped

TOLERANCE = 1e-4
"""Degrees by which an outline may be off; a pixel is permitted if it is more."""

_INSET = 1e-9
"""Share of a raster left out at each side: its edges may end with the map, or touch a pole."""

_SNAP = 1e-6
"""Degrees; a point closer than this to the antimeridian or a pole moves onto it."""

_LOOKED_AT = 0.25, 0.5, 0.75
"""Positions where the error of a segment is measured: near a pole its ends bend differently."""

_LEVELS = 24
_MOST_POINTS = 8192
_ROWS, _COLUMNS = 65, 129
"""Grid of points that are checked if a raster reaches beyond its CRS's domain."""

_HALVINGS = 24


Ring = tuple[Floats, Floats]
"""Longitudes and latitudes."""


class Grid(NamedTuple):
    """The grid of a raster's pixels."""

    transform: tuple[float, ...]
    """Geotransform in GDAL's order."""
    width: int
    height: int


@lru_cache(512)
def outline_by_parts(crs: str, grid: Grid) -> Outline | None:
    """Return the outline of the part of a raster that is on Earth; None if no part is."""
    transformer = transformer_of(crs)
    if transformer is None:
        return None
    view = _View(transformer, grid)
    if not view.fits():
        return None
    ring = _edges(view)
    if ring is not None:
        return polygon_around(*_snapped(*ring), _some_inside(view))
    domain = _domain(view)
    if domain is None:
        return None
    return polygon_around(*_snapped(*domain.ring(view)), domain.inside(view))


class _View:
    """A raster; points in it are fractions of its width and height."""

    def __init__(self, transformer: Transformer, grid: Grid) -> None:
        self._transformer = transformer
        self._grid = grid

    def degrees(self, across: Floats, down: Floats) -> tuple[Floats, Floats]:
        """Return longitudes and latitudes; NaN where the CRS has no place for a point."""
        x, y = self._coordinates(across, down)
        lon, lat = self._transformer.degrees(x, y)
        good = self._transformer.holds(x, y, lon, lat)
        return np.where(good, lon, np.nan), np.where(good, lat, np.nan)

    def _coordinates(self, across: Floats, down: Floats) -> tuple[Floats, Floats]:
        (x0, a, b, y0, d, e), width, height = self._grid
        column, row = across * width, down * height
        return x0 + column * a + row * b, y0 + column * d + row * e

    def fits(self) -> bool:
        """Whether the raster is no larger than the Earth."""
        corners = self._coordinates(np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 1, 0]))
        return bool(self._transformer.reaches(*corners).all())

    def has(self, across: Floats, down: Floats) -> Mask:
        """Tell which points have a place on Earth."""
        return np.isfinite(self.degrees(across, down)[0])

    def tolerance(self, lon: Floats, lat: Floats) -> float:
        """Return the permitted error of an outline in degrees: a pixel's side on the ground."""
        narrow = np.cos(np.radians((lat[1:] + lat[:-1]) / 2))  # meridians converge at a pole
        length = float(np.hypot(np.diff(lon) * narrow, np.diff(lat)).sum())
        return max(TOLERANCE, length / 2 / (self._grid.width + self._grid.height))


def _edges(view: _View) -> Ring | None:
    """Return the edges with as many points as the tolerance needs; None if one has no place."""
    at = np.arange(65) / 16
    lon, lat = _along(view, at)
    if not np.isfinite(lon).all():
        return None
    tolerance = view.tolerance(unwrapped(lon), lat)
    found = [(at, lon, lat)]
    start, end = (at[:-1], lon[:-1], lat[:-1]), (at[1:], lon[1:], lat[1:])
    for _ in range(_LEVELS):
        points = [_between(view, start, end, part) for part in _LOOKED_AT]
        if not all(np.isfinite(lon).all() for _, lon, _ in points):
            return None
        off = [_far(*pair, start, end) for pair in zip(points, _LOOKED_AT, strict=True)]
        far, middle = np.max(off, axis=0) > tolerance, points[1]
        if not far.any() or sum(len(one[0]) for one in found) > _MOST_POINTS:
            break
        start, middle, end = (
            (one[0][far], one[1][far], one[2][far]) for one in (start, middle, end)
        )
        found.append(middle)
        start, end = _joined([start, middle]), _joined([middle, end])
    at, lon, lat = _joined(found)
    order = np.argsort(at)[:-1]  # the last point is the first one
    return unwrapped(lon[order]), lat[order]


Points = tuple[Floats, Floats, Floats]
"""Positions along the edges (see `_along`), longitudes, latitudes."""


def _joined(some: list[Points]) -> Points:
    at, lon, lat = (np.concatenate(parts) for parts in zip(*some, strict=True))
    return at, lon, lat


def _along(view: _View, at: Floats) -> tuple[Floats, Floats]:
    """Return points of the edges; positions go from 0, the upper left, down and round to 4."""
    across = np.clip(np.minimum(at - 1, 4 - at), _INSET, 1 - _INSET)
    down = np.clip(np.minimum(at, 3 - at), _INSET, 1 - _INSET)
    return view.degrees(across, down)


def _between(view: _View, start: Points, end: Points, part: float) -> Points:
    at = start[0] + (end[0] - start[0]) * part
    return at, *_along(view, at)


def _far(points: Points, part: float, start: Points, end: Points) -> Floats:
    """Return the distances in degrees of points, at fraction `part`, from the chords."""
    whole, some = _turned(end[1] - start[1]), _turned(points[1] - start[1])
    lat = start[2] + (end[2] - start[2]) * part
    far: Floats = np.hypot(_turned(some - whole * part), points[2] - lat)
    return far


def _turned(lon: Floats) -> Floats:
    turned: Floats = lon - 360.0 * np.round(lon / 360.0)
    return turned


class _Domain(NamedTuple):
    """The part of a raster for which its CRS has places on Earth.

    In each row of points, it lies between the first and the last good point. This is true for the
    outlines of the Earth in world maps and as seen from satellites.
    """

    rows: Floats
    left: Floats
    right: Floats

    def ring(self, view: _View) -> Ring:
        """Return the outline of this part in degrees."""
        rows, left, right = self
        parts = np.linspace(0, 1, _COLUMNS)[1:-1]
        across = [left, left[-1] + (right[-1] - left[-1]) * parts,
                  right[::-1], right[0] + (left[0] - right[0]) * parts]  # fmt: skip
        down = [rows, np.full(len(parts), rows[-1]), rows[::-1], np.full(len(parts), rows[0])]
        lon, lat = _in_degrees(view, np.concatenate(across), np.concatenate(down))
        return unwrapped(lon), lat

    def inside(self, view: _View) -> Ring:
        """Return some points within this part in degrees."""
        parts = np.array([[0.1], [0.4], [0.6], [0.9]])
        across = self.left + (self.right - self.left) * parts
        return _in_degrees(view, across.ravel(), np.tile(self.rows, len(parts)))


def _domain(view: _View) -> _Domain | None:
    """Return the part of a raster that has a place on Earth; None if no part has one."""
    rows = np.linspace(_INSET, 1 - _INSET, _ROWS)
    good = (~np.isnan(_scan(view, rows)[0])).nonzero()[0]
    if not len(good):
        return None
    top = _last_row(view, rows[good[0]], rows[max(good[0] - 1, 0)])
    bottom = _last_row(view, rows[good[-1]], rows[min(good[-1] + 1, _ROWS - 1)])
    # More rows at the top and bottom, where a round outline changes most.
    rows = top + (bottom - top) * (1 - np.cos(np.linspace(0, np.pi, 2 * _ROWS))) / 2
    left, right = _scan(view, rows)
    kept = ~np.isnan(left)
    return _Domain(rows[kept], left[kept], right[kept]) if kept.sum() > 1 else None


def _scan(view: _View, rows: Floats) -> tuple[Floats, Floats]:
    """Return where the good points of each row begin and end; NaN if a row has none."""
    across = np.linspace(_INSET, 1 - _INSET, _COLUMNS)
    good = view.has(*np.meshgrid(across, rows))
    first, last = good.argmax(axis=1), _COLUMNS - 1 - good[:, ::-1].argmax(axis=1)
    inside = np.concatenate([across[first], across[last]])
    outside = np.concatenate([
        across[np.maximum(first - 1, 0)], across[np.minimum(last + 1, _COLUMNS - 1)]
    ])  # fmt: skip
    down = np.concatenate([rows, rows])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        better = view.has(middle, down)
        inside, outside = np.where(better, middle, inside), np.where(better, outside, middle)
    ends = np.where(np.concatenate([good.any(axis=1)] * 2), inside, np.nan)
    return ends[: len(rows)], ends[len(rows) :]


def _last_row(view: _View, inside: float, outside: float) -> float:
    """Return the last row with good points between a row with and a row without good points."""
    across = np.linspace(_INSET, 1 - _INSET, _COLUMNS)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if view.has(across, np.full(_COLUMNS, middle)).any():
            inside = middle
        else:
            outside = middle
    return inside


def _some_inside(view: _View) -> Ring:
    """Return some points, in degrees, of a raster that is entirely on Earth."""
    parts = np.linspace(0.07, 0.93, 9)
    return _in_degrees(view, *(values.ravel() for values in np.meshgrid(parts, parts)))


def _in_degrees(view: _View, across: Floats, down: Floats) -> Ring:
    """Return the points that have a place, in degrees."""
    lon, lat = view.degrees(across, down)
    good = np.isfinite(lon)
    return lon[good], lat[good]


def _snapped(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return points; move those next to the antimeridian or a pole onto it."""
    edge = 180.0 * np.round(lon / 180.0)
    pole = np.copysign(90.0, lat)
    return (
        np.where(np.abs(lon - edge) < _SNAP, edge, lon),
        np.where(np.abs(lat - pole) < _SNAP, pole, lat),
    )
