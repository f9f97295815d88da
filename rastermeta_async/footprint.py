"""Footprints: where on Earth each raster lies, as polygons in longitude and latitude (OGC:CRS84).

    columns of a batch ──▶ rings of pixels ──▶ rings of degrees, a CRS at once ──▶ WKB

A ring has as many points as keep it within a pixel, or 1e-4 degrees, of the true outline. Rings
that meet the antimeridian or a pole, and rasters that reach beyond the domain of their CRS,
take a slower way. Where nothing is known there is no footprint: never a guess.

References: GeoParquet 1.1 ("orientation", "bbox covering"); OGC Simple Features (06-103r4),
section 8 (WKB); RFC 7946, sections 3.1.9 and 5 (the antimeridian, the poles).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as warp

from rastermeta_async.record import SCHEMA, BBox, Record, to_batch

TOLERANCE = 1e-4
"""Degrees by which an outline may be off, or by a pixel, if that is more."""

MAX_SEGMENTS = 64
"""Of an edge."""

_SURE = 60.0
"""A ring that spans fewer degrees of longitude between neighbouring points is told from one
that goes the other way round the Earth."""

_CELLS = 64
"""Rows of pixels that are looked at where a raster reaches beyond its CRS's domain."""

_STRAY = 1e-6
"""By how much of the raster's size a point may miss when it is transformed there and back."""

Floats = np.ndarray[Any, np.dtype[np.float64]]

WGS84 = CRS.from_epsg(4326)


class Outline(NamedTuple):
    """A footprint as it is stored."""

    geometry: bytes
    """WKB."""
    bbox: BBox


class _Grid(NamedTuple):
    """The raster that an outline is of."""

    transform: tuple[float, ...]
    """Geotransform, GDAL's order."""
    width: int
    height: int


def rows_of(records: Sequence[Record]) -> pa.RecordBatch:
    """Return records as a batch of `SCHEMA`, with footprints."""
    return with_footprints(to_batch(records))


def with_footprints(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with the columns geometry, bbox and footprint filled in.

    Rows that have a footprint keep it. What a row gets depends on its own columns alone.
    """
    outlines = _outlines(rows)
    if not any(outlines):
        return rows
    made = pa.array([outline is not None for outline in outlines])
    columns = {
        "geometry": pa.array([outline and outline.geometry for outline in outlines], pa.binary()),
        "bbox": pa.array(
            [outline and outline.bbox._asdict() for outline in outlines], SCHEMA.field("bbox").type
        ),
        "footprint": pa.array(["transform" if outline else None for outline in outlines]),
    }
    for name, values in columns.items():
        at = SCHEMA.get_field_index(name)
        kept = rows.column(at)
        if kept.null_count < len(kept):
            import pyarrow.compute as pc

            values = pc.if_else(made, values, kept)
        rows = rows.set_column(at, SCHEMA.field(name), values)
    return rows


def _outlines(rows: pa.RecordBatch) -> list[Outline | None]:
    found: list[Outline | None] = [None] * rows.num_rows
    by_crs: dict[str, list[int]] = {}
    crs = rows.column("crs").to_pylist()
    counts, had = rows.column("count").to_pylist(), rows.column("footprint").to_pylist()
    statuses = rows.column("status").to_pylist()
    for at, name in enumerate(crs):
        if name and counts[at] and not had[at] and statuses[at] == "success":
            by_crs.setdefault(name, []).append(at)
    if not by_crs:
        return found
    transforms = rows.column("transform").to_pylist()
    widths, heights = rows.column("width").to_pylist(), rows.column("height").to_pylist()
    for name, places in by_crs.items():
        grids = [_Grid(tuple(transforms[at]), widths[at], heights[at]) for at in places]
        for at, outline in zip(places, outlines_of(name, grids), strict=True):
            found[at] = outline
    return found


def outlines_of(crs: str, grids: Sequence[_Grid]) -> list[Outline | None]:
    """Return the outlines of rasters in one CRS; None: it cannot be told."""
    source = _crs_of(crs)
    if source is None:
        return [None] * len(grids)
    geographic = _is_geographic(source)
    affine = np.array([grid.transform for grid in grids])
    sizes = np.array([(grid.width, grid.height) for grid in grids], dtype=float)
    usable = np.isfinite(affine).all(axis=1)
    affine[~usable] = 0.0
    usable &= affine[:, 1] * affine[:, 5] != affine[:, 2] * affine[:, 4]
    placed = usable.copy()
    x, y = _ring(affine, sizes, 2)
    lon, lat = _to_degrees(source, x, y, geographic=geographic)
    usable &= np.isfinite(lon).all(axis=1)
    if not geographic:
        usable &= _returns(source, x, y, lon, lat)
    simple = usable & _is_simple(lon, lat, geographic=geographic)
    found: list[Outline | None] = [None] * len(grids)
    segments = np.where(simple, _segments(lon, lat, sizes), 0)
    for number in np.unique(segments[simple]):
        places = np.flatnonzero(segments == number)
        if number > 1:
            x, y = _ring(affine[places], sizes[places], int(number))
            some_lon, some_lat = _to_degrees(source, x, y, geographic=geographic)
        else:
            some_lon, some_lat = lon[places, ::2], lat[places, ::2]
        good = np.isfinite(some_lon).all(axis=1)
        for place, outline in zip(places.tolist(), _polygons(some_lon, some_lat), strict=True):
            found[place] = outline
        simple[places[~good]] = False
    for place in np.flatnonzero(~simple & placed).tolist():
        found[place] = _hard_outline(crs, grids[place])
    return found


@lru_cache(256)
def _crs_of(name: str) -> CRS | None:
    """Return a CRS that has to do with the Earth, or None."""
    try:
        crs = CRS.from_user_input(name)
        warp(crs, WGS84, [0.0], [0.0])
    except (RasterioError, ValueError):
        return None
    except Exception as error:  # noqa: BLE001  # GDAL's errors have no common public class
        return None if "coordinate operation" in str(error) else crs
    return crs


@lru_cache(256)
def _is_geographic(source: CRS) -> bool:
    """Whether coordinates are longitude and latitude; those of a rotated pole are not."""
    return source.is_geographic and "DERIVING" not in source.to_wkt(version="WKT2_2019")


def _ring(affine: Floats, sizes: Floats, segments: int) -> tuple[Floats, Floats]:
    """Return the outlines' coordinates, shape (rasters, 4 * segments), from the upper left down."""
    along = np.arange(segments) / segments
    zero, one = np.zeros(segments), np.ones(segments)
    column = np.concatenate([zero, along, one, 1 - along]) * sizes[:, :1]
    row = np.concatenate([along, one, 1 - along, zero]) * sizes[:, 1:]
    return _at(affine, column, row)


def _at(affine: Floats, column: Floats, row: Floats) -> tuple[Floats, Floats]:
    x0, a, b, y0, d, e = (affine[:, index, None] for index in range(6))
    return x0 + column * a + row * b, y0 + column * d + row * e


def _to_degrees(source: CRS, x: Floats, y: Floats, *, geographic: bool) -> tuple[Floats, Floats]:
    """Return longitudes and latitudes, NaN where there are none.

    Those of a geographic CRS go on beyond 180 degrees as its own do.
    """
    lon, lat = _warp(source, WGS84, x.ravel(), y.ravel())
    lon, lat = lon.reshape(x.shape), lat.reshape(y.shape)
    if geographic:
        lon = lon + 360.0 * np.round((_degrees_of(source) * x - lon) / 360.0)
        beyond = np.abs(_degrees_of(source) * y) > 90  # a pixel's half beyond a pole, mostly
        lat = np.where(beyond, np.copysign(90.0, y), lat)
    return lon, np.clip(lat, -90.0, 90.0)


@lru_cache(256)
def _degrees_of(source: CRS) -> float:
    """Return the degrees in a unit of a geographic CRS."""
    _, factor = source.units_factor
    return float(np.degrees(factor))


def _warp(source: CRS, target: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Transform points; what cannot be is NaN. One bad point fails all that are given at once."""
    try:
        first, second = warp(source, target, x.tolist(), y.tolist())
        found = np.array(first, dtype=float), np.array(second, dtype=float)
    except Exception:  # noqa: BLE001  # GDAL's errors have no common public class
        if len(x) == 1:
            return np.full(1, np.nan), np.full(1, np.nan)
        half = len(x) // 2
        parts = _warp(source, target, x[:half], y[:half]), _warp(source, target, x[half:], y[half:])
        return np.concatenate([parts[0][0], parts[1][0]]), np.concatenate(
            [parts[0][1], parts[1][1]]
        )
    bad = ~(np.isfinite(found[0]) & np.isfinite(found[1]))
    found[0][bad] = found[1][bad] = np.nan
    return found


def _returns(source: CRS, x: Floats, y: Floats, lon: Floats, lat: Floats) -> Any:
    """Tell which rings' corners are the same after a way there and back."""
    there = np.isfinite(lon).all(axis=1)
    result = np.zeros(len(x), dtype=bool)
    if there.any():
        corners = np.s_[there, ::2]
        result[there] = _near(source, x[corners], y[corners], lon[corners], lat[corners]).all(
            axis=1
        )
    return result


def _near(source: CRS, x: Floats, y: Floats, lon: Floats, lat: Floats) -> Any:
    back_x, back_y = _warp(WGS84, source, lon.ravel(), lat.ravel())
    size = np.ptp(x, axis=-1, keepdims=True) + np.ptp(y, axis=-1, keepdims=True)
    off = np.abs(back_x.reshape(x.shape) - x) + np.abs(back_y.reshape(y.shape) - y)
    return off <= _STRAY * size + 1e-2


def _is_simple(lon: Floats, lat: Floats, *, geographic: bool) -> Any:
    """Tell which rings lie within the usual range, away from antimeridian and poles."""
    inside = (np.abs(lon) <= 180).all(axis=1)
    if geographic:
        return inside
    steps = np.abs(lon - np.roll(lon, 1, axis=1)).max(axis=1)
    return inside & (steps < _SURE) & (np.abs(lat).max(axis=1) < 89)


def _segments(lon: Floats, lat: Floats, sizes: Floats) -> Any:
    """Return into how many segments edges are to be cut, from how far their middles are off.

    Args:
        lon: longitudes of corners and middles, shape (rasters, 8).
        lat: their latitudes.
        sizes: columns and rows of the rasters.
    """
    off = np.zeros(len(lon))
    pixel = np.zeros(len(lon))
    for edge in range(4):
        start, middle, end = 2 * edge, 2 * edge + 1, (2 * edge + 2) % 8
        ends = lon[:, start] + lon[:, end], lat[:, start] + lat[:, end]
        sag = np.hypot(lon[:, middle] - ends[0] / 2, lat[:, middle] - ends[1] / 2)
        off = np.maximum(off, sag)
        length = np.hypot(lon[:, end] - lon[:, start], lat[:, end] - lat[:, start])
        pixel = np.maximum(pixel, length / sizes[:, (edge + 1) % 2])
    # The sagitta falls with the square of the number of segments; twice as many as that for
    # curves whose bend is not the same all along.
    wanted = np.sqrt(4 * off / np.maximum(pixel, TOLERANCE))
    wanted = np.where(np.isfinite(wanted), wanted, MAX_SEGMENTS)
    wanted = np.where(off <= np.maximum(pixel, TOLERANCE) / 2, 1, np.maximum(wanted, 2))
    return np.minimum(2 ** np.ceil(np.log2(wanted)).astype(int), MAX_SEGMENTS)


_POLYGON = struct.Struct("<BIII")  # byte order, type 3, rings, points


def _polygons(lon: Floats, lat: Floats) -> list[Outline | None]:
    """Return rings, shape (rasters, points), as polygons that run counter-clockwise."""
    points = lon.shape[1]
    lon, lat = lon + 0.0, lat + 0.0  # no negative zeros
    area = np.sum(lon * np.roll(lat, -1, axis=1) - np.roll(lon, -1, axis=1) * lat, axis=1)
    backwards = area < 0
    lon[backwards], lat[backwards] = lon[backwards, ::-1], lat[backwards, ::-1]
    ring = np.empty((len(lon), points + 1, 2), dtype="<f8")
    ring[:, :-1, 0], ring[:, :-1, 1] = lon, lat
    ring[:, -1] = ring[:, 0]
    head = _POLYGON.pack(1, 3, 1, points + 1)
    low, high = ring.min(axis=1).tolist(), ring.max(axis=1).tolist()
    return [
        Outline(head + one.tobytes(), BBox(*least, *most)) if size else None
        for one, size, least, most in zip(ring, area, low, high, strict=True)
    ]


@lru_cache(512)
def _hard_outline(crs: str, grid: _Grid) -> Outline | None:
    """Return the outline of a raster that the usual way is not sure of."""
    source = _crs_of(crs)
    if source is None:
        return None
    affine, sizes = np.array([grid.transform]), np.array([[grid.width, grid.height]], dtype=float)
    x, y = _ring(affine, sizes, MAX_SEGMENTS)
    geographic = _is_geographic(source)
    lon, lat = _to_degrees(source, x, y, geographic=geographic)
    if geographic:
        return _around(lon[0], lat[0]) if np.isfinite(lon).all() else None
    valid = np.isfinite(lon)
    if valid.all():
        valid = _near(source, x, y, lon, lat)
    if not valid.all():
        lon, lat = _valid_ring(source, affine, sizes)
        if lon.shape[1] < 3:
            return None
    return _around(_unwrapped(lon[0]), lat[0])


def _valid_ring(source: CRS, affine: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Return the outline of the part of a raster that the CRS has a place on Earth for.

    Of each of some rows of pixels that is what lies between its first and its last good point,
    as it is for the outlines of the Earth in world maps and as seen from satellites.
    """
    across = np.linspace(0, 1, 2 * _CELLS + 1)
    left: list[tuple[float, float]] = []
    right: list[tuple[float, float]] = []
    for down in np.linspace(0, 1, _CELLS + 1):
        good = _good(source, affine, sizes, across, down)
        if not good.any():
            continue
        first, last = np.flatnonzero(good)[[0, -1]]
        ends = []
        for inside, outside in ((first, first - 1), (last, last + 1)):
            at = across[inside]
            if 0 <= outside < len(across):
                at = _edge(source, affine, sizes, at, across[outside], down)
            ends.append(at)
        x, y = _at(affine, np.array([ends]) * sizes[:, :1], np.full((1, 2), down) * sizes[:, 1:])
        lon, lat = _to_degrees(source, x, y, geographic=False)
        left.append((lon[0, 0], lat[0, 0]))
        right.append((lon[0, 1], lat[0, 1]))
    ring = np.array([*left, *reversed(right)]).reshape(-1, 2).T
    return ring[:1], ring[1:]


def _edge(
    source: CRS, affine: Floats, sizes: Floats, inside: float, outside: float, down: float
) -> float:
    """Return, between a good and a bad point of a row, the last good one."""
    for _ in range(12):
        middle = (inside + outside) / 2
        if _good(source, affine, sizes, np.array([middle]), down)[0]:
            inside = middle
        else:
            outside = middle
    return inside


def _good(source: CRS, affine: Floats, sizes: Floats, across: Floats, down: float) -> Any:
    x, y = _at(affine, across[None] * sizes[:, :1], np.full((1, len(across)), down) * sizes[:, 1:])
    lon, lat = _to_degrees(source, x, y, geographic=False)
    good = np.isfinite(lon[0])
    back_x, back_y = _warp(WGS84, source, np.where(good, lon[0], 0), np.where(good, lat[0], 0))
    size = float(np.abs(affine[0, [1, 2, 4, 5]]).sum() * sizes.max())
    near = np.abs(back_x - x[0]) + np.abs(back_y - y[0]) <= _STRAY * size + 1e-2
    return good & near


def _unwrapped(lon: Floats) -> Floats:
    """Return longitudes of a ring that go on where they would jump by 360 degrees."""
    steps = np.diff(lon)
    turns = -np.round(steps / 360.0)
    unwrapped: Floats = lon + 360.0 * np.concatenate([[0.0], np.cumsum(turns)])
    return unwrapped


def _around(lon: Floats, lat: Floats) -> Outline | None:
    """Return a ring that may go beyond 180 degrees, or round a pole, as valid geometry."""
    import shapely.affinity
    import shapely.geometry

    closing = lon[0] - lon[-1]
    if abs(closing) > 180:  # it goes round a pole
        pole = 90.0 if lat.mean() > 0 else -90.0
        end = lon[0] - 360.0 * np.round(closing / 360.0)
        lon = np.concatenate([lon, [end, end, lon[0]]])
        lat = np.concatenate([lat, [lat[0], pole, pole]])
    elif np.ptp(lon) > 360:  # wider than the Earth is round
        lon = np.clip(lon - (lon.min() + lon.max()) / 2, -180, 180)
    whole = shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))
    parts = []
    turns = np.floor((lon.min() + 180) / 360), np.ceil((lon.max() + 180) / 360)
    for turn in range(*map(int, turns)):
        east = 360.0 * turn
        part = shapely.intersection(whole, shapely.box(east - 180, -90, east + 180, 90))
        parts.append(shapely.affinity.translate(part, -east))
    pieces = [
        piece
        for piece in shapely.get_parts(shapely.union_all(parts)).tolist()
        if piece.geom_type == "Polygon" and piece.area > 0
    ]
    if not pieces:
        return None
    pieces = [shapely.geometry.polygon.orient(piece) for piece in pieces]
    geometry = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return Outline(shapely.to_wkb(geometry, byte_order=1), BBox(*geometry.bounds))


def outline_of_points(lon: Sequence[float], lat: Sequence[float]) -> Outline | None:
    """Return the outline through points in degrees, in the order of a ring."""
    ring = np.array([lon]), np.clip(np.array([lat]), -90, 90)
    if not (np.isfinite(ring[0]).all() and np.isfinite(ring[1]).all()):
        return None
    if _is_simple(*ring, geographic=False).all():
        return _polygons(*ring)[0]
    return _around(_unwrapped(ring[0][0]), ring[1][0])
