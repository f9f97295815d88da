"""Computes outlines of many rasters at once, with enough points to stay near the true outlines.

Arrays of points have the shape (2, points, rasters): longitudes or x, then latitudes or y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from rastermeta_async.footprints.crs_domain import TOLERANCE, Grid, outline_by_parts
from rastermeta_async.footprints.degrees import FARTHEST, Transformer, Transformers, transformer_of
from rastermeta_async.footprints.polygons import (
    MIN_WIDTH,
    Floats,
    Mask,
    Outline,
    Places,
    Polygons,
    areas,
    boxes,
    limits_of,
    polygon_of,
    unwrapped,
)

_SURE = 60.0
"""Degrees of longitude. If neighbouring points are closer than this, the ring cannot be confused
with one that goes the other way round the Earth."""

_POLAR = 89.0
"""Degrees of latitude. A ring beyond this may go round a pole without being detected."""

_SEGMENTS = np.array([1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512])
"""Numbers of segments for an edge; few, as rings with equal numbers of points are made at once."""

_ENOUGH = 0.7
"""Share of the tolerance that is used, because edges do not bend evenly."""

_FLAT = 1e-9
"""Sine of the angle between rows and columns. Up to this value, a raster is only a line."""

_SMOOTH = 1e-3
"""Degrees. Up to this fourth difference of an edge, a polynomial through five points is off by less
than 1e-5."""

_WORLD = np.array([[180.0], [90.0], [180.0], [90.0]])
"""Largest absolute values of the limits of a ring, in degrees."""

_THIN = 1e-2
"""Share of the squared extent. If the area of a ring is less, inexact edges may cross."""

Along = tuple[float, ...]
"""Points of an edge, as fractions of its length from its start."""


class Made:
    """Collects footprints, one or more at a time."""

    def __init__(self) -> None:
        self._polygons: list[Polygons] = []
        self._places: list[Places] = []

    def add(self, places: Places, polygons: Polygons) -> None:
        """Add the footprints of the rasters at these places."""
        if len(places):
            self._places.append(places)
            self._polygons.append(polygons)

    def add_each(self, places: Places, outline: Callable[[int], Outline | None]) -> None:
        """Make and add footprints one by one, except where `outline` returns None."""
        found = {at: made for at in places.tolist() if (made := outline(at))}
        if found:
            self.add(np.array(list(found)), Polygons.of_outlines(list(found.values())))

    @property
    def places(self) -> Places:
        """Indices of the rasters with a footprint, in the order of the columns."""
        return np.concatenate(self._places) if self._places else np.empty(0, np.int64)

    def columns(self) -> tuple[list[pa.Array], list[pa.Array]]:
        """Return the columns geometry and bbox, each as a list of arrays."""
        limits = np.concatenate([some.limits for some in self._polygons], axis=1)
        return [some.geometry for some in self._polygons], [boxes(limits)]


def outlines(names: Sequence[str], which: Places, affine: Floats, sizes: Floats) -> Made:
    """Return the footprints of rasters; some may have none.

    Args:
        names: CRSs, as codes or WKT.
        which: index in `names` of the CRS of each raster.
        affine: geotransforms in GDAL's order, shape (6, rasters).
        sizes: columns and rows, shape (2, rasters).
    """
    turned = affine[1] * affine[5] - affine[2] * affine[4]
    sides = np.hypot(affine[1], affine[4]) * np.hypot(affine[2], affine[5])
    usable = np.isfinite(affine).all(axis=0) & (np.abs(turned) > _FLAT * sides)
    found = [transformer_of(name) for name in names]
    known = np.array([transformer is not None for transformer in found])
    usable &= known[which]
    places = usable.nonzero()[0]
    made = Made()
    if len(places):
        transformers = [transformer for transformer in found if transformer is not None]
        of_these = (known.cumsum() - 1)[which[places]]
        rasters = _Rasters(affine[:, places], sizes[:, places], transformers, of_these)
        made.add_each(
            _add_usual(made, rasters, places),
            lambda at: outline_by_parts(
                names[which[at]], Grid(tuple(affine[:, at].tolist()), *map(int, sizes[:, at]))
            ),
        )
    return made


class _Rasters:
    """Rasters with the transformation from their pixels to degrees."""

    def __init__(
        self, affine: Floats, sizes: Floats, each: Sequence[Transformer], which: Places
    ) -> None:
        self.sizes = sizes
        self._affine = affine
        self._each = each
        self._which = which
        self._transformers = Transformers.of(each, which)
        self.angles = self._transformers.angles

    def some(self, which: Mask) -> _Rasters:
        """Return some of the rasters."""
        if which.all():
            return self
        return _Rasters(
            self._affine[:, which], self.sizes[:, which], self._each, self._which[which]
        )

    def edges(self, along: Along) -> Floats:
        """Return points of all edges in CRS coordinates; the ring goes down from the upper left."""
        column, row = _way_round(along)[..., None] * self.sizes[:, None]
        x0, a, b, y0, d, e = self._affine[:, None]
        start, right, down = (np.stack(pair) for pair in ((x0, y0), (a, d), (b, e)))
        points: Floats = start + column * right + row * down
        return points

    def degrees(self, points: Floats) -> Floats:
        """Return points in degrees; NaN where a point has no place."""
        return np.stack(self._transformers.degrees(*points))

    def held(self, points: Floats, degrees: Floats) -> Mask:
        """Tell which rasters' degrees, if finite, are all right (see `Transformers.holds`)."""
        found: Mask = np.all(self._transformers.holds(*points, *degrees), axis=0)
        return found


@lru_cache
def _way_round(along: Along) -> Floats:
    """Return points of all edges as fractions of width and height, shape (2, 4 * points)."""
    one, zero, on = np.ones(len(along)), np.zeros(len(along)), np.array(along)
    return np.array([[*zero, *on, *one, *(1 - on)], [*on, *one, *(1 - on), *zero]])


def _add_usual(made: Made, rasters: _Rasters, places: Places) -> Places:
    """Add the footprints of usual rasters; return the places that need `outline_by_parts`."""
    points = rasters.edges((0.0, 0.5))
    ring = rasters.degrees(points)
    known = np.isfinite(ring).all(axis=(0, 1)) & rasters.held(points[:, ::2], ring[:, ::2])
    if not rasters.angles.all():
        ring[0] = np.where(rasters.angles, ring[0], unwrapped(ring[0]))
        known &= rasters.angles | _is_sure(ring)
    extent = np.maximum(np.ptp(ring, axis=1).max(axis=0), MIN_WIDTH)
    good = known & (np.abs(areas(ring)) > MIN_WIDTH * extent)
    tolerance = np.maximum(_pixels(ring, rasters.sizes), TOLERANCE)
    bent = good & (_sags(ring) > _ENOUGH * tolerance)
    straight = good & ~bent
    _add_rings(made, places[straight], ring[:, ::2, straight])
    odd = ~known & ~rasters.angles
    if bent.any():
        odd[bent] = _add_bent(
            made, rasters.some(bent), places[bent], ring[:, :, bent], tolerance[bent]
        )
    left: Places = places[odd]
    return left


def _is_sure(ring: Floats) -> Mask:
    """Tell which rings are unlikely to go round a pole, or the other way round the Earth."""
    lon, lat = ring
    steps = np.abs(np.diff(lon, axis=0, append=lon[:1])).max(axis=0)
    sure: Mask = (steps < _SURE) & (np.abs(lat).max(axis=0) < _POLAR)
    return sure


def _pixels(ring: Floats, sizes: Floats) -> Floats:
    """Return the shorter side of pixels in degrees; `ring` has corners and middles of the edges."""
    down = ring[:, 2] - ring[:, 0], sizes[1]
    right = ring[:, 4] - ring[:, 2], sizes[0]
    sides = [np.sqrt((side * side).sum(axis=0)) / number for side, number in (down, right)]
    shorter: Floats = np.minimum(*sides)
    return shorter


def _sags(ring: Floats) -> Floats:
    """Return the largest distance of the middle of an edge from its chord, in degrees."""
    off = ring[:, 1::2] - (ring[:, ::2] + ring[:, [2, 4, 6, 0]]) / 2
    most: Floats = np.sqrt((off * off).sum(axis=0).max(axis=0))
    return most


def _add_bent(
    made: Made, rasters: _Rasters, places: Places, ring: Floats, tolerance: Floats
) -> Mask:
    """Add footprints whose edges are cut into segments; tell for which rasters that fails."""
    nodes = _nodes(rasters, ring)
    smooth = _fourth_differences(nodes) <= _SMOOTH
    wanted = np.sqrt(_bends(nodes) / (_ENOUGH * tolerance)) * np.where(smooth, 1, 2)
    segments = _SEGMENTS[np.searchsorted(_SEGMENTS[:-1], wanted)]
    lost = np.zeros(len(places), dtype=bool)
    for number in np.unique(segments).tolist():
        some = smooth & (segments == number)
        _add_rings(made, places[some], _interpolated(nodes[..., some], number))
        rough = ~smooth & (segments == number)
        if rough.any():
            part = rasters.some(rough)
            found = part.degrees(part.edges(tuple((np.arange(number) / number).tolist())))
            whole = np.isfinite(found).all(axis=(0, 1))
            found[0] = unwrapped(found[0])
            lost[rough] = ~whole
            _add_rings(made, places[rough][whole], found[:, :, whole])
    return lost


def _nodes(rasters: _Rasters, ring: Floats) -> Floats:
    """Return five points of each edge in degrees, shape (5, 2, 4, rasters)."""
    starts, middles, ends = ring[:, ::2], ring[:, 1::2], ring[:, [2, 4, 6, 0]]
    between = rasters.degrees(rasters.edges((0.25, 0.75)))
    between[0] -= 360.0 * np.round((between[0] - np.repeat(middles[0], 2, axis=0)) / 360.0)
    return np.stack([starts, between[:, ::2], middles, between[:, 1::2], ends])


def _fourth_differences(nodes: Floats) -> Floats:
    f0, f1, f2, f3, f4 = nodes
    most: Floats = np.abs(f0 + f4 - 4 * (f1 + f3) + 6 * f2).max(axis=(0, 1))
    return most


def _bends(nodes: Floats) -> Floats:
    """Return the largest distance of edges from their chords, as if the edges bent evenly."""
    f0, f1, f2, f3, f4 = nodes
    off = np.stack([f2 - (f0 + f4) / 2, 4 * f1 - 2 * (f0 + f2), 4 * f3 - 2 * (f2 + f4)])
    most: Floats = np.sqrt((off * off).sum(axis=1).max(axis=(0, 1)))
    return most


def _interpolated(nodes: Floats, segments: int) -> Floats:
    """Return rings with edges cut into segments, by polynomials through the edges' five points."""
    # No matrix product: its order of additions may depend on the number of rasters.
    weights = _weights(segments)[..., None]
    found: Floats = nodes[0][:, :, None] * weights[0]
    part = np.empty_like(found)
    for points, weight in zip(nodes[1:], weights[1:], strict=True):
        found += np.multiply(points[:, :, None], weight, out=part)
    return found.reshape(2, 4 * segments, nodes.shape[-1])


@lru_cache
def _weights(segments: int) -> Floats:
    """Return Lagrange's polynomials at the starts of segments, shape (5, segments)."""
    at, known = np.arange(segments) / segments, np.arange(5) / 4
    return np.array([
        np.prod([(at - other) / (one - other) for other in known if other != one], axis=0)
        for one in known
    ])  # fmt: skip


def _add_rings(made: Made, places: Places, rings: Floats) -> None:
    """Add rings that may go beyond 180 degrees."""
    if not len(places):
        return
    turned, limits = _turned(rings)
    extent = np.maximum(limits[2] - limits[0], limits[3] - limits[1])
    simple = np.abs(areas(turned)) >= _THIN * extent * extent
    within = simple & (np.abs(limits) <= _WORLD).all(axis=0)
    if within.all():
        made.add(places, Polygons.of_rings(turned, limits))
        return
    made.add(places[within], Polygons.of_rings(turned[..., within], limits[:, within]))
    others = dict(zip(places[~within].tolist(), rings[..., ~within].T, strict=True))
    made.add_each(places[~within], lambda at: polygon_of(*others[at].T))


def _turned(rings: Floats) -> tuple[Floats, Floats]:
    """Return rings, moved so that their west is within 180 degrees, and the limits of the rings."""
    limits = limits_of(rings)
    turns = np.floor((limits[0] + 180.0) / 360.0)
    if not turns.any():
        return rings, limits
    # A ring that reaches this far was cut off there and may touch itself, so it does not move.
    turns[(limits[0] <= -FARTHEST[0]) | (limits[2] >= FARTHEST[0])] = 0.0
    turned = np.stack([rings[0] - 360.0 * turns, rings[1]])
    return turned, limits_of(turned)
