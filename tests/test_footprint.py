"""Footprints hold every pixel of their raster and nothing else, in every kind of CRS.

The oracle is pyproj, point by point: what lies within the raster must lie within its footprint,
and the other way round, but for points that are nearer to the outline than it may be off.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from factory import record
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.warp import transform_bounds

from rastermeta_async import read_record
from rastermeta_async.footprints.limits import west_to_east
from rastermeta_async.footprints.polygons import polygon_of
from rastermeta_async.footprints.rings import outlines
from rastermeta_async.footprints.rows import (
    TOLERANCE,
    Grid,
    Outline,
    outline_of_points,
    outlines_of,
    rows_with_footprints,
    with_footprints,
)
from rastermeta_async.model.record import Record, from_batch, to_batch

TILE = 1111950.5196666666
MODIS = "+proj=sinu +R=6371007.181 +units=m +type=crs"
ROTATED_POLE = (
    "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 "
    "+to_meter=0.0174532925199433 +type=crs"
)
UTM_IN_KM = "+proj=utm +zone=56 +south +ellps=bessel +units=km +type=crs"
MERCATOR = 20037508.342789244
WORLD = shapely.box(-180, -90, 180, 90)


def grid(
    left: float, top: float, size: float, pixels: int = 100, turn: float = 0.0, shear: float = 0.0
) -> Grid:
    step = size / pixels
    c, s = math.cos(turn) * step, math.sin(turn) * step
    return Grid((left, c, s + shear * c, top, s, shear * s - c), pixels, pixels)


def box(left: float, top: float, width: float, height: float, columns: int, rows: int) -> Grid:
    return Grid((left, width / columns, 0.0, top, 0.0, -height / rows), columns, rows)


def outline(crs: str, raster: Grid) -> Outline | None:
    name = crs if ":" in crs else CRS.from_string(crs).to_string()
    (found,) = outlines_of(name, [raster])
    return found


def geometry(crs: str, raster: Grid) -> Any:
    """Return the footprint, having checked what holds for all."""
    found = outline(crs, raster)
    assert found is not None
    shape = shapely.from_wkb(found.geometry)
    assert shape.is_valid
    assert shape.geom_type in ("Polygon", "MultiPolygon")
    assert tuple(found.bbox) == shape.bounds
    assert WORLD.covers(shape)
    for part in shapely.get_parts(shape):
        assert part.exterior.is_ccw
        assert not any(ring.is_ccw for ring in part.interiors)
    return shape


@lru_cache
def transformers(crs: str) -> tuple[pyproj.Transformer, pyproj.Transformer]:
    source = pyproj.CRS(crs)
    return (
        pyproj.Transformer.from_crs(source, "OGC:CRS84", always_xy=True),
        pyproj.Transformer.from_crs("OGC:CRS84", source, always_xy=True),
    )


def pixels_of(crs: str, raster: Grid, lon: Any, lat: Any) -> Any:
    """Return where points of the Earth lie in a raster, shape (2, points); NaN: nowhere."""
    to_degrees, from_degrees = transformers(crs)
    x, y = from_degrees.transform(lon, lat)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, 0), np.where(finite, y, 0)
    back_lon, back_lat = to_degrees.transform(x, y)
    finite &= np.isfinite(back_lon)
    back_lon = np.where(finite, back_lon, 0)
    off = np.abs((back_lon - lon + 180) % 360 - 180) * np.cos(np.radians(lat)) + abs(back_lat - lat)
    x0, a, b, y0, d, e = raster.transform
    known = finite & (off < 1e-3)
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    place = inverse @ np.stack([np.where(known, x, 0) - x0, np.where(known, y, 0) - y0])
    return np.where(known, place, np.nan)


def places_of(crs: str, raster: Grid, column: Any, row: Any) -> Any:
    """Return where pixels lie, shape (2, points); those that have no place are left out."""
    x0, a, b, y0, d, e = raster.transform
    x, y = x0 + a * column + b * row, y0 + d * column + e * row
    lon, lat = transformers(crs)[0].transform(x, y)
    known = np.isfinite(lon) & np.isfinite(lat)
    back = transformers(crs)[1].transform(np.where(known, lon, 0), np.where(known, lat, 0))
    span = abs(a) + abs(b) + abs(d) + abs(e)
    known &= np.abs(back[0] - x) + np.abs(back[1] - y) < 1e-3 * span
    return np.array([(lon[known] + 180) % 360 - 180, lat[known]])


def some_points(crs: str, raster: Grid, shape: Any) -> Any:
    """Return points within the raster, around its footprint, and anywhere, shape (2, points)."""
    random = np.random.default_rng(1)
    within = random.uniform(0, 1, (2, 300)) * [[raster.width], [raster.height]]
    xmin, ymin, xmax, ymax = shape.bounds
    around = random.uniform(-0.2, 1.2, (2, 300))
    around *= [[xmax - xmin], [ymax - ymin]]
    around += [[xmin], [ymin]]
    anywhere = random.uniform(-1, 1, (2, 200)) * [[180], [90]]
    around[0], around[1] = (around[0] + 180) % 360 - 180, np.clip(around[1], -89.9, 89.9)
    return np.concatenate([places_of(crs, raster, *within), around, anywhere], axis=1)


def check(crs: str, raster: Grid, tolerance: float | None = None) -> Any:
    """Compare a footprint with the oracle's answers."""
    shape = geometry(crs, raster)
    lon, lat = some_points(crs, raster, shape)
    column, row = pixels_of(crs, raster, lon, lat)
    inside = (column >= 0) & (column <= raster.width) & (row >= 0) & (row <= raster.height)
    assert inside.any()
    points = shapely.points(lon, lat)
    wrong = points[shapely.intersects(shape, points) != inside]
    if tolerance is None:
        _, a, _, _, d, _ = raster.transform
        tolerance = max(TOLERANCE, math.hypot(a, d) / 111e3)
        assert_edges_near(crs, raster, shape, tolerance)
    assert (shapely.distance(wrong, shape.boundary) <= tolerance).all(), list(wrong)
    return shape


def assert_edges_near(crs: str, raster: Grid, shape: Any, tolerance: float) -> None:
    on, zero, one = np.linspace(0, 1, 150), np.zeros(150), np.ones(150)
    column, row = np.concatenate([zero, on, one, on]), np.concatenate([on, one, on, zero])
    lon, lat = places_of(crs, raster, column * raster.width, row * raster.height)
    assert len(lon) == 600
    away = shapely.distance(shapely.points(lon, lat), shape.boundary)
    away = away[np.abs(lon) < 180 - tolerance]  # those on the antimeridian are cut off
    assert (away <= 1.001 * tolerance).all()


@pytest.mark.campaign
@pytest.mark.parametrize("south", [False, True])
@pytest.mark.parametrize("zone", range(1, 61))
def test_every_utm_zone(zone: int, south: bool) -> None:
    crs = f"EPSG:{32700 + zone if south else 32600 + zone}"
    check(crs, grid(399960, 5000040, 109800, 10980))
    shape = check(crs, grid(150000, 1000000, 5000, 500, turn=0.4))
    assert shape.area < 0.02


@settings(max_examples=60)
@example(zone=1, x=259888.0, y=8578592.0, size=1e6, turn=-4.0, shear=1.0)  # by the pole
@given(
    zone=st.integers(1, 60), x=st.floats(-4e5, 1.4e6), y=st.floats(-9e6, 9e6),
    size=st.floats(10, 1e6), turn=st.floats(-4, 4), shear=st.floats(-1, 1),
)  # fmt: skip
def test_anywhere_in_utm(
    zone: int, x: float, y: float, size: float, turn: float, shear: float
) -> None:
    check(f"EPSG:{32600 + zone}", grid(x, y, size, 200, turn, shear))


POLAR = {"EPSG:3031": 0.0, "EPSG:3413": 0.0, "EPSG:3995": 0.0, "EPSG:32661": 2e6, "EPSG:32761": 2e6,
         "EPSG:3571": 0.0, "EPSG:6931": 0.0, "EPSG:6932": 0.0}  # fmt: skip


@pytest.mark.parametrize("crs", POLAR)
def test_round_a_pole_and_near_it(crs: str) -> None:
    pole = POLAR[crs]
    for half in (5e3, 3e5, 3e6):
        shape = check(crs, grid(pole - half, pole + half, 2 * half, 1000), 0.05)
        assert (shape.bounds[0], shape.bounds[2]) == (-180, 180)
        assert 90 in (abs(shape.bounds[1]), abs(shape.bounds[3]))
        check(crs, grid(pole - half / 3, pole + half / 5, 2 * half, 1000, turn=0.7), 0.05)
    for size in (1e4, 1e6):  # a corner, an edge at the pole
        corner = check(crs, grid(pole, pole, size, 1000), 0.02)
        assert corner.area == pytest.approx(90 * (90 - abs(corner.centroid.y)) * 2, rel=0.25)
        check(crs, grid(pole - size / 2, pole, size, 1000), 0.02)
    check(crs, grid(pole + 10, pole + 1e5, 1e5, 1000), 0.02)


@settings(max_examples=60)
@given(
    crs=st.sampled_from(sorted(POLAR)), x=st.floats(-3e6, 3e6), y=st.floats(-3e6, 3e6),
    size=st.floats(1e3, 5e5), turn=st.floats(-4, 4),
)  # fmt: skip
def test_anywhere_near_a_pole(crs: str, x: float, y: float, size: float, turn: float) -> None:
    check(crs, grid(x + POLAR[crs], y + POLAR[crs], size, 200, turn), 0.05)


def test_beside_a_pole_no_place_is_that_of_another_longitude() -> None:
    """The map ends a few hundred metres from the pole: what is beyond is off by no more."""
    shape = geometry(MODIS, grid(400, 10007554.677 - 111, 20, 20))
    assert shape.bounds[0] > 174


TILES = list(itertools.product(range(36), range(18)))


@pytest.mark.parametrize("rows", [range(0, 18, 5), range(2, 18, 5)])
def test_some_modis_tiles(rows: Sequence[int]) -> None:
    for h, v in itertools.product(range(0, 36, 3), rows):
        check_modis_tile(h, v)


@pytest.mark.slow
@pytest.mark.parametrize(("h", "v"), TILES)
def test_every_modis_tile(h: int, v: int) -> None:
    check_modis_tile(h, v)


def check_modis_tile(h: int, v: int) -> None:
    raster = grid(-20015109.354 + h * TILE, 10007554.677 - v * TILE, TILE, 1200)
    some = np.random.default_rng(0).uniform(1, 1199, (2, 400))
    if places_of(MODIS, raster, *some).size == 0:
        found = outline(MODIS, raster)
        assert found is None or shapely.from_wkb(found.geometry).area < 0.5, (h, v)
        return
    shape = check(MODIS, raster, 0.2)
    assert shape.area < 1250  # ten degrees of latitude; never the whole world
    assert 79.9 - 10 * v <= shape.bounds[1] <= shape.bounds[3] <= 90.1 - 10 * v


@pytest.mark.parametrize("center", [0.0, 75.2, 140.7, -137.0, 180.0])
def test_the_full_disk_of_a_geostationary_satellite(center: float) -> None:
    crs = f"+proj=geos +h=35785831 +lon_0={center} +ellps=WGS84 +sweep=y +type=crs"
    shape = check(crs, grid(-5570248, 5570248, 2 * 5570248, 3712), 0.3)
    assert shape.area == pytest.approx(23907, abs=10)
    part = check(crs, box(-3627271, 4589199, 5010000, 3006000, 5000, 3000), 0.3)
    assert part.area < shape.area / 4


WORLD_MAPS = {
    "moll": (18040095.7, 9020047.85), "eqearth": (17243959.06, 8392927.6),
    "robin": (17005833.33, 8625154.47), "sinu": (20015109.354, 10007554.677),
    "igh": (20037508.34, 8683259.7), "eck4": (16921202.9, 8460601.4),
    "eqc": (20037508.34, 10018754.17), "cea": (20037508.34, 6363885.33),
    "laea +lat_0=52 +lon_0=10": (12.7e6, 12.7e6), "laea +lat_0=90": (12.7e6, 12.7e6),
}  # fmt: skip


@pytest.mark.parametrize("projection", WORLD_MAPS)
def test_maps_of_the_world(projection: str) -> None:
    crs = f"+proj={projection} +datum=WGS84 +type=crs"
    x, y = WORLD_MAPS[projection]
    world = check(crs, box(-x, y, 2 * x, 2 * y, 4000, 2000), 1.0)
    assert world.area == pytest.approx(WORLD.area, rel=0.005)
    # What is next to the edge of the map may be off by a degree.
    check(crs, box(0, y, x, y, 2000, 1000), 1.5)
    check(crs, box(-x / 2, y / 3, x / 3, y / 2, 2000, 1000), 1.0)


def test_web_mercator() -> None:
    world = check("EPSG:3857", grid(-MERCATOR, MERCATOR, 2 * MERCATOR, 256))
    assert world.bounds == pytest.approx((-180, -85.0511288, 180, 85.0511288))
    check("EPSG:3857", grid(1e6, 6e6, 1e4, 1000))
    tile = check("EPSG:3857", grid(-MERCATOR, MERCATOR, MERCATOR / 2, 256))
    assert tile.bounds == pytest.approx((-180, 66.51326, -90, 85.0511288))


@pytest.mark.parametrize(
    ("crs", "raster"),
    [
        ("EPSG:5070", box(-2356095, 3172605, 4614000, 2902500, 15380, 9675)),  # Albers
        ("EPSG:3035", box(9e5, 5.5e6, 6.5e6, 4.6e6, 65000, 46000)),  # LAEA
        ("EPSG:3034", box(2.5e6, 4e6, 3e6, 3e6, 30000, 30000)),  # Lambert conformal
        ("EPSG:2193", box(2.2e6, 5.3e6, 4e5, 4e5, 4000, 4000)),
        ("EPSG:3832", box(2.9e6, 1e6, 1e6, 1e6, 4000, 4000)),
        ("EPSG:3832", box(-MERCATOR, 1e7, 2 * MERCATOR, 2e7, 4000, 2000)),
        ("EPSG:32633", Grid((5e5, 10.0, 0.0, 5e6, 0.0, 10.0), 300, 400)),  # south-up
        ("EPSG:32633", Grid((5e5, -10.0, 0.0, 5e6, 0.0, -10.0), 300, 400)),  # mirrored
        ("EPSG:32633", Grid((5e5, 10.0, 0.0, 5e6, 0.0, -10.0), 1, 1)),
        ("EPSG:32633", Grid((5e5, 1.0, 0.0, 5e6, 0.0, -1.0), 100000, 1)),
        ("EPSG:32633", box(3e6, 5e6, 5e5, 5e5, 500, 500)),  # far from its meridian
        ("EPSG:32633", box(2e5, 1.02e7, 6e5, 4e5, 500, 500)),  # over the pole
        (ROTATED_POLE, box(-28.4, 22, 46.5, 45, 412, 424)),
        ("EPSG:4326", box(-10, 50, 20, 20, 100, 100)),
        ("EPSG:4326", Grid((150.0, 0.1, 0.05, 10.0, 0.05, -0.1), 200, 100)),
    ],
)
def test_other_rasters(crs: str, raster: Grid) -> None:
    _, a, _, _, d, _ = raster.transform
    degrees = crs in (ROTATED_POLE, "EPSG:4326")
    pixel = math.hypot(a, d) / (1 if degrees else 111e3)
    check(crs, raster, max(TOLERANCE, pixel))


def test_a_rotated_pole_all_over_the_world() -> None:
    assert geometry(ROTATED_POLE, box(-180, 90, 360, 180, 360, 180)).area > 64799


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", "EPSG:4258"])
@pytest.mark.parametrize("left", [-180.0, 0.0, 180.0, -0.125])
def test_the_world_in_degrees(crs: str, left: float) -> None:
    assert geometry(crs, box(left, 90.0, 360.0, 180.0, 1440, 720)).equals(WORLD)


def test_degrees_beyond_the_usual_range() -> None:
    half = geometry("EPSG:4326", box(180.0, 10.0, 10.0, 10.0, 40, 40))
    assert half.bounds == (-180, 0, -170, 10)
    wide = geometry("EPSG:4326", box(-180.125, 90.125, 360.25, 180.25, 1441, 721))
    assert wide.equals(WORLD)
    across = geometry("EPSG:4326", box(179.5, 1.0, 1.0, 1.0, 100, 100))
    assert across.geom_type == "MultiPolygon"
    assert across.area == 1


FAR_MERCATOR = (
    "+proj=merc +lon_0=100 +x_0=5000 +ellps=bessel +towgs84=100,200,300 +units=us-ft +type=crs"
)
CYLINDRICAL = {
    "EPSG:3857": 0, "EPSG:3395": 0, "EPSG:4087": 0, "EPSG:6933": 0, "EPSG:3410": 0,
    "ESRI:54001": 0, "ESRI:54002": 0, "ESRI:54003": 0, "ESRI:54004": 0, "ESRI:54016": 0,
    "ESRI:54034": 0, "EPSG:3832": 150, "EPSG:3994": 100, "EPSG:3388": 51, "EPSG:5641": -43,
    "EPSG:3001": 110, "+proj=comill +lon_0=11 +type=crs": 11, FAR_MERCATOR: 100,
}  # fmt: skip
"""CRSs whose x goes on along the equator, and the longitude that is in the middle of their map."""


@lru_cache
def map_of(crs: str) -> tuple[float, float]:
    """Return the middle and the width of the map of a cylindrical projection, by pyproj."""
    plain = pyproj.CRS(crs)
    plain = (plain.is_bound and plain.source_crs) or plain
    project = pyproj.Transformer.from_crs(plain.geodetic_crs, plain, always_xy=True).transform
    (west, middle, east), _ = project([CYLINDRICAL[crs] + lon for lon in (-90, 0, 90)], [0, 0, 0])
    return middle, 2 * (east - west)


def moved(crs: str, raster: Grid, turns: float) -> Grid:
    """Return a raster that is moved round the Earth."""
    x0, *others = raster.transform
    return raster._replace(transform=(x0 + turns * map_of(crs)[1], *others))


@pytest.mark.parametrize("crs", CYLINDRICAL)
@pytest.mark.parametrize("left", [0.49, 0.5, 0.51, 0.97, 1.3, -0.502, -0.6, -1.2])
def test_cylindrical_projections_go_on_beyond_the_edges_of_their_maps(
    crs: str, left: float
) -> None:
    middle, width = map_of(crs)
    raster = box(middle + left * width, width / 30, width / 60, width / 50, 700, 700)
    ring = ring_by_pyproj(crs, points_on(moved(crs, raster, -round(left)), 0.0, 3))
    if left == 0.49:  # the right part is beyond
        ring = ring_by_pyproj(crs, points_on(raster, 0.0, 3))
    assert_is_ring(geometry(crs, raster).wkb, ring)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3395", "EPSG:4087", "EPSG:6933", "ESRI:54003"])
def test_limits_beyond_the_antimeridian_are_those_of_gdal(crs: str) -> None:
    """As gdalwarp makes them for Fiji or New Zealand."""
    raster = box(1.96e7, -1.8e6, 8e5, 4e5, 800, 400)
    if crs == "EPSG:6933":
        raster = box(1.7e7, -1.8e6, 8e5, 4e5, 800, 400)
    x0, a, _, y0, _, e = raster.transform
    known = transform_bounds(crs, "OGC:CRS84", x0, y0 + 400 * e, x0 + 800 * a, y0, densify_pts=21)
    found = outline(crs, raster)
    assert found is not None
    assert west_to_east(found.bbox._asdict(), found.geometry) == pytest.approx(known, abs=1e-6)
    assert known[0] > 170 > -170 > known[2]
    assert geometry(crs, raster).geom_type == "MultiPolygon"


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933", "EPSG:3832", "EPSG:3388", FAR_MERCATOR])
def test_maps_that_repeat_themselves_are_the_world(crs: str) -> None:
    middle, width = map_of(crs)
    top = width / 12
    once = geometry(crs, box(middle - width / 2, top, width, 2 * top, 1000, 500))
    for left, times in ((-0.5, 1.5), (-0.7, 1.4), (0.1, 1.01), (-1.4, 2.8), (-2, 4)):
        shape = geometry(crs, box(middle + left * width, top, times * width, 2 * top, 1000, 500))
        assert shapely.symmetric_difference(shape, once).area < 0.005 * once.area
        assert (shape.bounds[0], shape.bounds[2]) == (-180, 180)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3395", "EPSG:4087"])
@pytest.mark.parametrize("end", [MERCATOR, 20037508.34, 20037508.3427892, 20037508.343, 20037508.4])
def test_a_raster_that_ends_with_the_map_does_not_cross(crs: str, end: float) -> None:
    """In more or fewer digits."""
    in_the_west = geometry(crs, box(-end, 1e5, 1e5, 1e5, 100, 100))
    in_the_east = geometry(crs, box(end - 1e5, 1e5, 1e5, 1e5, 100, 100))
    assert in_the_west.bounds[0] == pytest.approx(-180, abs=1e-7)
    assert in_the_east.bounds[2] == pytest.approx(180, abs=1e-7)
    assert in_the_west.bounds[2] < -179 < 179 < in_the_east.bounds[0]
    assert geometry(crs, box(-end, 1e7, 2 * end, 2e7, 1000, 1000)).bounds[::2] == (-180, 180)


@pytest.mark.parametrize(
    "projection",
    ["sinu", "moll", "robin", "eqearth", "igh", "eck4", "tmerc", "tcea", "cass",
     "somerc +lat_0=46 +lon_0=7", "laea", "vandg"],
)  # fmt: skip
def test_beyond_the_edges_of_other_maps_there_is_nothing(projection: str) -> None:
    crs = f"+proj={projection} +ellps=WGS84 +type=crs"
    assert outline(crs, box(2.5e7, 1e6, 1e6, 1e6, 100, 100)) is None
    assert outline(crs, box(-2.6e7, 1e6, 1e6, 1e6, 100, 100)) is None


@pytest.mark.parametrize(
    ("crs", "left"),
    [("EPSG:4267", -190.0), ("EPSG:4269", 185.0), (ROTATED_POLE, 181.0), (ROTATED_POLE, -200.0)],
)
def test_degrees_go_on_beyond_the_edges_of_their_maps(crs: str, left: float) -> None:
    """Of a datum, too, that has another operation for each part of its area of use."""
    raster = box(left, 54.0, 4.0, 3.0, 4000, 3000)
    turned = box(left - 360 * round(left / 360), 54.0, 4.0, 3.0, 4000, 3000)
    assert_is_ring(geometry(crs, raster).wkb, ring_by_pyproj(crs, points_on(turned, 0.0, 3)))
    other = geometry(crs, turned)
    assert shapely.symmetric_difference(geometry(crs, raster), other).area < 1e-7 * other.area


def test_across_the_antimeridian_in_utm() -> None:
    shape = check("EPSG:32601", grid(215000, 5e6, 1e5, 1000))
    assert shape.geom_type == "MultiPolygon"
    assert shape.area < 2
    assert {part.bounds[0] == -180 or part.bounds[2] == 180 for part in shape.geoms} == {True}


@pytest.mark.parametrize(
    ("raster", "bounds"),
    [
        (box(170, 95, 30, 10, 30, 10), (85.0, 90.0)),
        (box(170, -85, 30, 10, 30, 10), (-90.0, -85.0)),
        (box(170, -0.0, 30, 10, 30, 10), (-10.0, 0.0)),
        (box(170, 1e-7, 30, 1e-7, 30, 1), (0.0, 1e-7)),
    ],
)
def test_what_reaches_across_the_antimeridian_is_cut_there_and_at_the_poles(
    raster: Grid, bounds: tuple[float, float]
) -> None:
    shape = geometry("EPSG:4326", raster)
    assert shape.bounds[1::2] == pytest.approx(bounds, abs=1e-12)
    assert shape.area == pytest.approx(30 * (bounds[1] - bounds[0]))


def test_rings_that_are_cut_have_no_negative_zero() -> None:
    """Which would be another footprint to the bit."""
    lon, lat = np.array([170.0, 170.0, 190.0, 190.0]), np.array([1.0, -0.0, -0.0, 1.0])
    assert polygon_of(lon, lat) == polygon_of(lon, lat + 0.0)


def test_degrees_that_are_cut_off_far_away_touch_themselves() -> None:
    turned = (-540.0, 0.0563, -0.3042, 63.67, -0.3042, -0.0563)
    assert geometry("EPSG:4258", Grid(turned, 53, 115)).bounds[0] == -180


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        ("EPSG:4807", (2.3372, 36.0, 11.3372, 45.0)),  # grads from Paris
        ("EPSG:4805", (-7.6667, 40.0, 2.3333, 50.0)),  # degrees from Ferro
    ],
)
def test_other_prime_meridians_and_units(crs: str, bounds: tuple[float, ...]) -> None:
    found = geometry(crs, box(0 if crs == "EPSG:4807" else 10, 50, 10, 10, 100, 100)).bounds
    assert found == pytest.approx(bounds, abs=0.02)


ENGINEERING = (
    'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)


@pytest.mark.parametrize(
    "crs",
    ['LOCAL_CS["site",UNIT["metre",1]]', ENGINEERING, "+proj=longlat +R=1737400 +no_defs",
     "EPSG:4978", "EPSG:5773", "", "nonsense", "EPSG:32600", "EPSG:32761x"],
)  # fmt: skip
def test_what_is_not_on_earth_has_no_footprint(crs: str) -> None:
    assert outlines_of(crs, [grid(0, 50, 10), grid(1e5, 5e5, 1e5)]) == [None, None]


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3031", MODIS])
@pytest.mark.parametrize("step", [math.nan, math.inf, 0.0, 1e-300, 1e-15, 1e12, 1e150, 1e300])
def test_odd_geotransforms_have_no_footprint(crs: str, step: float) -> None:
    assert outline(crs, Grid((1.0, step, 0.0, 2.0, 0.0, -step), 10, 10)) is None
    assert outline(crs, Grid((step, 1e-3, 1e-3, step, 1e-3, 1e-3), 10, 10)) is None


def test_coordinates_that_are_no_degrees_have_no_footprint() -> None:
    assert outline("EPSG:4326", grid(5e5, 5e6, 1e5)) is None
    assert outline("EPSG:4326", box(-1e9, 90, 2e9, 180, 100, 100)) is None


@settings(max_examples=150)
@given(
    crs=st.sampled_from(["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3031", "EPSG:4258", MODIS]),
    transform=st.tuples(*[st.floats() | st.floats(-400, 400) | st.floats(-1e7, 1e7)] * 6),
    width=st.integers(1, 2**31 - 1), height=st.integers(1, 2**31 - 1),
)  # fmt: skip
def test_no_geotransform_makes_a_wrong_geometry(
    crs: str, transform: tuple[float, ...], width: int, height: int
) -> None:
    raster = Grid(transform, width, height)
    if outline(crs, raster) is not None:
        geometry(crs, raster)


@pytest.mark.parametrize(
    ("crs", "transform", "width", "height"),
    [
        ("EPSG:32633", (0.0, 0.0, 1.0, 0.0, 1.0, 654.0), 1, 12071),
        ("EPSG:32633", (0.0, 0.0, 1.0, 0.0, 1.0, 711.0), 617, 11085),
        ("EPSG:32601", (164945.2, -123.3, 18.76, 4694949.8, -0.004659, 0.0), 5, 218),
        ("EPSG:3031", (979705.3, 0.0, -1.0, 7139025.7, 595.0, 908.0), 98, 393),
    ],
)
def test_edges_of_a_thin_raster_do_not_cross(
    crs: str, transform: tuple[float, ...], width: int, height: int
) -> None:
    """Its edges are off by more than it is wide."""
    geometry(crs, Grid(transform, width, height))


@pytest.mark.parametrize("slant", [2e-308, 1e-30, 1e-11, 0.0])
def test_a_raster_that_is_a_point_has_no_footprint(slant: float) -> None:
    assert outline("EPSG:32633", Grid((0.0, 0.0, slant, 1.0, slant, 0.0), 1, 1)) is None


@pytest.mark.parametrize("slant", [2e-308, 1e-30, 1e-11, 0.0])
def test_a_raster_that_is_a_line_has_no_footprint(slant: float) -> None:
    assert outline("EPSG:32633", Grid((0.0, 0.0, slant, 0.0, 1.0, 1.0), 1, 1865463)) is None


def test_beyond_the_domain_costs_only_its_own_row() -> None:
    good, bad = grid(5e5, 5e6, 1e4), grid(5e9, 5e9, 1e4)
    found = outlines_of("EPSG:32633", [good, bad, good])
    assert [one is None for one in found] == [False, True, False]
    assert found[0] == found[2] == outlines_of("EPSG:32633", [good])[0]


def some_rows() -> list[Record]:
    """Return rows of many CRSs, datums of many operations among them, in no order."""
    random = np.random.default_rng(3)
    names = [f"EPSG:{code}" for code in (
        32601, 32633, 32733, 32760, 26910, 26710, 5070, 3031, 3413, 4326, 4267, 4230, 4258, 2193,
        27700, 28992, 3857, 23032, 31370, 4978)] + [MODIS]  # fmt: skip
    rows = []
    for number in range(200):
        crs = names[random.integers(len(names))]
        span = 60.0 if crs in ("EPSG:4326", "EPSG:4267", "EPSG:4230", "EPSG:4258") else 2e6
        x, y = (random.uniform(-3, 3, 2) * span).tolist()
        step = float(random.choice([1e-5, 1e-4, 1e-3])) * span
        rows.append(
            record(f"/{number}.tif".encode(), crs=CRS.from_string(crs).to_string(),
                   transform=(x, step, step / 9, y, 0.0, -step), width=200, height=190)
        )  # fmt: skip
    return [*rows, record(b"/none.tif", crs=None), record(b"/no.tif", transform=None)]


def test_a_rows_footprint_depends_on_the_row_alone() -> None:
    rows = some_rows()
    together = rows_with_footprints(rows)
    assert sum(value is not None for value in together["geometry"].to_pylist()) > 150
    for size in (1, 7, 64):
        pieces = [rows_with_footprints(rows[at : at + size]) for at in range(0, len(rows), size)]
        assert pa.Table.from_batches(pieces).combine_chunks().equals(pa.table(together))
    backwards = list(from_batch(rows_with_footprints(rows[::-1])))
    assert backwards[::-1] == list(from_batch(together))


def test_grids_that_differ_in_anything_have_footprints_of_their_own() -> None:
    """Of one origin and resolution, but another size, CRS or turn."""
    plain = record()
    rows = [
        plain, plain._replace(width=2), plain._replace(height=2),
        plain._replace(crs="EPSG:32634", proj_code="EPSG:32634"),
        plain._replace(transform=(300000.0, 10.5, 1.0, 5000021.0, 1.0, -21.0)), plain,
    ]  # fmt: skip
    together = list(from_batch(rows_with_footprints(rows)))
    assert together == [one for row in rows for one in from_batch(rows_with_footprints([row]))]
    assert len({row.geometry for row in together}) == 5


def test_the_footprint_of_a_grid_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a scene, or a tile's dates, have one grid; what it makes must reach all of them."""
    rows = some_rows()
    each = list(from_batch(rows_with_footprints(rows)))
    made: list[int] = []

    def counted(names: Any, which: Any, affine: Any, sizes: Any) -> Any:
        made.append(affine.shape[1])
        return outlines(names, which, affine, sizes)

    monkeypatch.setattr("rastermeta_async.footprints.rows.outlines", counted)
    assert list(from_batch(rows_with_footprints([row for row in rows for _ in range(3)]))) == [
        row for row in each for _ in range(3)
    ]
    assert list(from_batch(rows_with_footprints(rows * 3))) == each * 3
    assert made == [len(rows) - 2] * 2  # two of them have no grid


def test_rows_that_have_a_footprint_keep_it() -> None:
    given = outline_of_points([0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    assert given is not None
    kept = record(b"/a", geometry=given.geometry, bbox=given.bbox, footprint="gcps")
    batch = to_batch([record(b"/b"), kept, record(b"/c", crs=None)])
    made = list(from_batch(with_footprints(batch)))
    assert [row.footprint for row in made] == ["transform", "gcps", None]
    assert made[1] == kept
    assert with_footprints(batch).schema.equals(batch.schema, check_metadata=True)
    assert with_footprints(batch.slice(1)).to_pylist() == with_footprints(batch).to_pylist()[1:]
    assert with_footprints(with_footprints(batch)) == with_footprints(batch)


@pytest.mark.parametrize(
    "fields",
    [{"status": "no_georef"}, {"status": "error"}, {"count": 0}, {"transform": None}, {"crs": None},
     {"transform": (0.0, 1.0, 0.0, 0.0, 0.0, 1.0), "has_rpcs": True, "crs": "EPSG:4326"},
     {"transform": (0.0, 1.0, 0.0, 0.0, 0.0, 1.0), "gcp_count": 4, "crs": "EPSG:4326"}],
)  # fmt: skip
def test_rows_that_nothing_places_have_no_footprint(fields: dict[str, Any]) -> None:
    (row,) = from_batch(rows_with_footprints([record(b"/a.tif", **fields)]))
    assert (row.geometry, row.bbox, row.footprint) == (None, None, None)


def test_rows_without_word_of_other_georeferencing_have_a_footprint() -> None:
    (row,) = from_batch(rows_with_footprints([record(b"/a.tif", gcp_count=None, has_rpcs=None)]))
    assert row.footprint == "transform"


def test_no_rows_at_all() -> None:
    assert rows_with_footprints([]).num_rows == 0


@pytest.mark.parametrize(
    ("lon", "lat", "area"),
    [
        ([10, 10, 11, 11], [1, 0, 0, 1], 1),
        ([10, 11, 11, 10], [1, 1, 0, 0], 1),
        ([179.5, 179.5, -179.5, -179.5], [1, 0, 0, 1], 1),
        ([0, 1, 0, 1], [0, 0, 1, 1], 0.5),  # crossing itself
        ([0, 90, 180, -90], [80, 80, 80, 80], 3600),  # round the pole
        ([0, math.nan, 1, 1], [0, 0, 1, 1], None),
        ([0, 1e9, 1, 1], [0, 0, 1, 1], None),
        ([539, 540, 540, 539], [0, 0, 1, 1], 1),
        ([539, 541, 541, 539], [0, 0, 1, 1], None),  # further than once round the Earth
        ([0, 1, 1, 0], [0, 0, 500, 1], None),
        ([0, 1, 1, 0], [89, 89, 90.1, 90.1], None),
        ([0, 0, 0, 0], [0, 0, 0, 0], None),
    ],
)
def test_outlines_of_points(lon: list[float], lat: list[float], area: float | None) -> None:
    found = outline_of_points(lon, lat)
    if area is None:
        assert found is None
        return
    assert found is not None
    shape = shapely.from_wkb(found.geometry)
    assert shape.is_valid
    assert shape.area == pytest.approx(area)
    assert tuple(found.bbox) == shape.bounds


def corners(west: float, north: float, east: float, south: float) -> list[GroundControlPoint]:
    places = [(0, 0, west, north), (0, 100, east, north), (100, 0, west, south),
              (100, 100, east, south)]  # fmt: skip
    return [GroundControlPoint(row, col, x, y, 0) for row, col, x, y in places]


WILD = [
    GroundControlPoint(*place, 0)
    for place in np.random.default_rng(0).uniform([0, 0, -90, -90], [100, 100, 90, 90], (30, 4))
]
NO_LINES: dict[str, Any] = {"line_num_coeff": [0.0] * 20}


@pytest.mark.parametrize(
    ("gcps", "crs", "area"),
    [
        (corners(10, 50, 11, 49), "EPSG:4326", 1.0),
        (corners(179.5, 50, -179.5, 49), "EPSG:4326", 1.0),
        (corners(-80, 50, 80, 40), "EPSG:4326", 1600.0),  # on one side, though it is wide
        (corners(5e5, 5e6, 5.1e5, 4.99e6), "EPSG:32633", 0.01144),
        (corners(5e5, 5e6, 5.1e5, 4.99e6), "EPSG:4978", None),
        (corners(10, 50, 10, 50), "EPSG:4326", None),
        (WILD, "EPSG:4326", None),
    ],
)
def test_control_points(
    tmp_path: Path, gcps: list[GroundControlPoint], crs: str, area: float | None
) -> None:
    row = read_unplaced(tmp_path, put(gcps=(gcps, CRS.from_string(crs))))
    assert row.footprint == (None if area is None else "gcps")
    if row.geometry is not None:
        assert shapely.from_wkb(row.geometry).area == pytest.approx(area, rel=0.01)


def test_where_control_points_are_too_few_coefficients_tell(tmp_path: Path) -> None:
    few = corners(10, 50, 11, 49)[:2], CRS.from_string("EPSG:4326")
    row = read_unplaced(tmp_path, put(gcps=few, rpcs=RPC(**COEFFICIENTS)))
    assert (row.gcp_count, row.footprint) == (2, "rpcs")


def points_on(raster: Grid, turn: float, number: int) -> list[GroundControlPoint]:
    """Return control points of a raster whose rows run to the side by this angle."""
    x0, a, _, y0, _, e = raster.transform
    c, s = math.cos(turn), math.sin(turn)
    places = [(0, 0), (0, raster.width), (raster.height, 0), (raster.height, raster.width)]
    return [
        GroundControlPoint(row, col, x0 + c * a * col - s * e * row, y0 + s * a * col + c * e * row)
        for row, col in places[:number]
    ]


def ring_by_pyproj(crs: str, points: list[GroundControlPoint]) -> Any:
    """Return the raster of the first three control points in degrees, as a ring round the Earth."""
    (x0, y0), (x1, y1), (x2, y2) = ((point.x, point.y) for point in points[:3])
    on = np.arange(50) / 50
    across, down = np.array(
        [[*on, *on * 0 + 1, *1 - on, *on * 0], [*on * 0, *on, *on * 0 + 1, *1 - on]]
    )
    lon, lat = transformers(crs)[0].transform(
        x0 + (x1 - x0) * across + (x2 - x0) * down, y0 + (y1 - y0) * across + (y2 - y0) * down
    )
    return np.array([np.degrees(np.unwrap(np.radians(lon))), lat])


def assert_is_ring(geometry: bytes | None, ring: Any) -> None:
    """Compare a footprint with a ring that may go on beyond 180 degrees."""
    assert geometry is not None
    known = polygon_of(*ring)
    assert known is not None
    known, found = shapely.from_wkb(known.geometry), shapely.from_wkb(geometry)
    assert shapely.symmetric_difference(found, known).area < 1e-3 * known.area


UTM_ZONES = [(zone, south) for zone in range(1, 61) for south in (False, True)]


@pytest.mark.campaign
def test_points_in_any_utm_zone_are_placed_there(tmp_path: Path) -> None:
    """Four of them or three, of rasters that are turned or not."""
    layouts = itertools.cycle([(0.0, 4), (0.3, 4), (-0.5, 3), (0.0, 3), (2.0, 4)])
    for (zone, south), (turn, number) in zip(UTM_ZONES, layouts, strict=False):
        crs = f"EPSG:{32700 + zone if south else 32600 + zone}"
        raster = box(334000 if zone % 2 else 166100, 6252000, 2000, 1500, 100, 100)
        gcps = points_on(raster, turn, number)
        row = read_unplaced(tmp_path, put(gcps=(gcps, CRS.from_string(crs))))
        assert row.footprint == "gcps"
        assert_is_ring(row.geometry, ring_by_pyproj(crs, gcps))


@pytest.mark.campaign
def test_rasters_in_any_utm_zone_are_placed_as_their_control_points(tmp_path: Path) -> None:
    for zone, south in UTM_ZONES:
        crs = f"EPSG:{32700 + zone if south else 32600 + zone}"
        raster = box(334000, 6252000, 2000, 1500, 100, 100)
        affine = Affine.from_gdal(*raster.transform)
        row = read_unplaced(tmp_path, put(crs=CRS.from_string(crs), transform=affine))
        assert row.footprint == "transform"
        assert_is_ring(row.geometry, ring_by_pyproj(crs, points_on(raster, 0.0, 3)))


@pytest.mark.campaign
def test_coefficients_give_degrees_whatever_the_crs_of_their_file(tmp_path: Path) -> None:
    for zone, south in UTM_ZONES:
        lon, lat = 6.0 * zone - 183.0, -34.0 if south else 61.0
        crs = CRS.from_epsg(32700 + zone if south else 32600 + zone)
        rpcs = RPC(**(COEFFICIENTS | {"long_off": lon, "lat_off": lat}))
        row = read_unplaced(tmp_path, put(crs=crs, rpcs=rpcs))
        assert row.footprint == "rpcs"
        assert row.bbox == pytest.approx((lon - 0.1, lat - 0.1, lon + 0.1, lat + 0.1), abs=0.002)


@pytest.mark.parametrize(
    ("crs", "raster"),
    [
        ("EPSG:2263", box(980000, 200000, 5000, 5000, 100, 100)),  # US survey feet
        ("EPSG:27700", box(530000, 180000, 5000, 5000, 100, 100)),
        ("EPSG:3031", box(-1e6, 2e6, 5e4, 5e4, 100, 100)),
        ("EPSG:4258", box(10, 50, 1, 1, 100, 100)),
        ("EPSG:4807", box(5, 50, 1, 1, 100, 100)),  # grads from Paris
        ("EPSG:4807", box(197.3, 50, 1, 1, 100, 100)),  # over the antimeridian
        ("EPSG:3857", box(MERCATOR - 6e3, 2e6, 1e4, 1e4, 100, 100)),
        ("EPSG:3832", box(3.3e6, -2e6, 1e5, 1e5, 100, 100)),
        ("EPSG:32601", box(200000, 8e5, 5e4, 5e4, 100, 100)),
        (UTM_IN_KM, box(334, 6252, 2, 2, 100, 100)),
        (ROTATED_POLE, box(-10, 5, 1, 1, 100, 100)),
    ],
)  # fmt: skip
def test_control_points_of_other_crss(tmp_path: Path, crs: str, raster: Grid) -> None:
    gcps = points_on(raster, 0.0, 4)
    row = read_unplaced(tmp_path, put(gcps=(gcps, CRS.from_string(crs))))
    assert row.footprint == "gcps"
    assert_is_ring(row.geometry, ring_by_pyproj(crs, gcps))


@pytest.mark.parametrize(("crs", "turn"), [("EPSG:4807", 400.0), ("EPSG:3857", 2 * MERCATOR)])
def test_control_points_on_both_sides_of_the_antimeridian(
    tmp_path: Path, crs: str, turn: float
) -> None:
    """They are those of a raster that goes on beyond it, each as its side has it."""
    half = turn / 2
    whole = points_on(box(half * 0.999, half / 10, half / 500, half / 500, 100, 100), 0.0, 4)
    gcps = [
        GroundControlPoint(one.row, one.col, one.x - turn * (one.x > half), one.y) for one in whole
    ]
    row = read_unplaced(tmp_path, put(gcps=(gcps, CRS.from_string(crs))))
    assert row.footprint == "gcps"
    assert_is_ring(row.geometry, ring_by_pyproj(crs, whole))


COEFFICIENTS: dict[str, Any] = {
    "height_off": 1000.0, "height_scale": 500.0, "lat_off": 45.0, "lat_scale": 0.1,
    "long_off": 7.0, "long_scale": 0.1, "line_off": 50.0, "line_scale": 50.0, "samp_off": 50.0,
    "samp_scale": 50.0, "line_num_coeff": [0.0, 0, -1] + [0.0] * 17,
    "line_den_coeff": [1.0] + [0.0] * 19, "samp_num_coeff": [0.0, 1, 0, 0.2] + [0.0] * 16,
    "samp_den_coeff": [1.0] + [0.0] * 19,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "known"), [({}, True), (NO_LINES, False), ({"lat_off": math.nan}, False)]
)
def test_rational_polynomials(tmp_path: Path, changes: dict[str, Any], known: bool) -> None:
    row = read_unplaced(tmp_path, put(rpcs=RPC(**(COEFFICIENTS | changes))))
    assert row.footprint == ("rpcs" if known else None)
    if row.bbox is not None:  # at the height that the coefficients are for
        assert row.bbox == pytest.approx((6.9, 44.9, 7.1, 45.1), abs=0.002)


def put(**values: Any) -> Callable[[Any], None]:
    """Return what gives a file these attributes."""

    def place(file: Any) -> None:
        for name, value in values.items():
            setattr(file, name, value)

    return place


def read_unplaced(folder: Path, place: Callable[[Any], None]) -> Record:
    """Return the row of a file that has no place but what is given to it."""
    path = folder / "a.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8"
        ) as file:
            place(file)
    row = read_record(path)
    assert (row.status, row.error_type, row.error_message) == ("success", None, None)
    return row


def test_shapely_is_imported_only_where_it_is_needed() -> None:
    code = (
        "import sys; from factory import record; "
        "from rastermeta_async.footprints.rows import rows_with_footprints; "
        "across = record(crs='EPSG:32601', transform=(215000, 100, 0, 5e6, 0, -100)); "
        "rows = rows_with_footprints([record(), across]); "
        "assert rows['footprint'].to_pylist() == ['transform'] * 2; "
        "assert 'shapely' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


@pytest.mark.parametrize("x", [-1e300, 1e19, 1e6])
def test_what_is_many_times_round_the_earth_has_no_footprint(x: float) -> None:
    """It would take as many turns to bring it back."""
    assert outlines_of("EPSG:4326", [Grid((x, 1.0, 0.0, 50.0, 0.0, -1.0), 10, 10)]) == [None]
    assert outline_of_points([x, x, x + 1, x + 1], [1, 0, 0, 1]) is None


@pytest.mark.parametrize("x", [-1e300, 1e19])
def test_what_is_nowhere_near_the_earth_has_no_footprint(x: float) -> None:
    """GDAL would not come back from transforming that."""
    good = Grid((0.0, 1e5, 0.0, 0.0, 0.0, -1e5), 10, 10)
    bad = good._replace(transform=(x, *good.transform[1:]))
    assert outlines_of("EPSG:3857", [bad, good]) == [None, *outlines_of("EPSG:3857", [good])]
