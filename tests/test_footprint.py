"""Footprints hold every pixel of their raster and nothing far from it, in every kind of CRS."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import shapely
from factory import record
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp

from rastermeta_async.footprint import TOLERANCE, Outline, outlines_of, rows_of
from rastermeta_async.outskirts import Grid
from rastermeta_async.record import from_batch

MODIS = "+proj=sinu +R=6371007.181 +units=m"
GEOS = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84 +sweep=y"
TILE = 1111950.5196666666


def grid(left: float, top: float, size: float, pixels: int = 100, turn: float = 0.0) -> Grid:
    step = size / pixels
    c, s = math.cos(turn) * step, math.sin(turn) * step
    return Grid((left, c, s, top, s, -c), pixels, pixels)


def outline(crs: str, raster: Grid) -> Outline | None:
    name = crs if ":" in crs else CRS.from_string(crs).to_string()
    (found,) = outlines_of(name, [raster])
    return found


def geometry(crs: str, raster: Grid) -> Any:
    found = outline(crs, raster)
    assert found is not None
    shape = shapely.from_wkb(found.geometry)
    assert shape.is_valid
    assert shape.geom_type in ("Polygon", "MultiPolygon")
    assert tuple(found.bbox) == shape.bounds
    assert -180 <= found.bbox.xmin <= found.bbox.xmax <= 180
    assert -90 <= found.bbox.ymin <= found.bbox.ymax <= 90
    assert all(part.exterior.is_ccw for part in shapely.get_parts(shape))
    return shape


def points(crs: str, column: Any, row: Any, raster: Grid) -> Any:
    """Return where pixels lie, shape (points, 2); those that have no place are left out."""
    x0, a, b, y0, d, e = raster.transform
    x, y = x0 + a * column + b * row, y0 + d * column + e * row
    source, found = CRS.from_string(crs), []
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        try:
            (lon,), (lat,) = warp(source, CRS.from_epsg(4326), [px], [py])
            (bx,), (by,) = warp(CRS.from_epsg(4326), source, [lon], [lat])
        except Exception:  # noqa: BLE001  # GDAL's own, for points beyond the domain
            continue
        if math.isfinite(lon) and abs(bx - px) + abs(by - py) < 1:
            found.append(((lon + 180) % 360 - 180, lat))
    return np.array(found)


def assert_covers(crs: str, raster: Grid, shape: Any, tolerance: float) -> None:
    across = np.linspace(0.001, 0.999, 13)
    column, row = (values.ravel() for values in np.meshgrid(across, across))
    inside = points(crs, column * raster.width, row * raster.height, raster)
    assert len(inside)
    away = shapely.distance(shape, shapely.points(inside))
    assert away.max() <= tolerance


def assert_no_more(crs: str, raster: Grid, shape: Any, tolerance: float) -> None:
    """Whatever lies well inside the footprint is a pixel of the raster."""
    x0, a, b, y0, d, e = raster.transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    smaller = shape.buffer(-tolerance)
    for part in shapely.get_parts(smaller):
        xmin, ymin, xmax, ymax = part.bounds
        for u, v in itertools.product(np.linspace(0.02, 0.98, 9), repeat=2):
            lon, lat = xmin + u * (xmax - xmin), ymin + v * (ymax - ymin)
            if not part.contains(shapely.Point(lon, lat)) or abs(lat) > 89.9:
                continue
            (x,), (y,) = warp(CRS.from_epsg(4326), CRS.from_string(crs), [lon], [lat])
            column, row = inverse @ (x - x0, y - y0)
            slack = 0.02 * raster.width
            assert -slack <= column <= raster.width + slack
            assert -slack <= row <= raster.height + slack


def check(crs: str, raster: Grid, tolerance: float = 2 * TOLERANCE) -> Any:
    shape = geometry(crs, raster)
    assert_covers(crs, raster, shape, tolerance)
    assert_no_more(crs, raster, shape, max(tolerance, 0.01 * math.sqrt(shape.area)))
    return shape


@pytest.mark.parametrize("zone", range(1, 61))
@pytest.mark.parametrize("south", [False, True])
def test_every_utm_zone(zone: int, south: bool) -> None:
    crs = f"EPSG:{32700 + zone if south else 32600 + zone}"
    check(crs, grid(399960, 5000040, 109800, 10980))
    check(crs, grid(150000, 1000000, 5000, 500, turn=0.4))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.floats(1e5, 8e5), st.floats(5e4, 9e6), st.floats(10, 4e5),
    st.floats(-3, 3),
)  # fmt: skip
def test_anywhere_in_utm(zone: int, x: float, y: float, size: float, turn: float) -> None:
    raster = grid(x, y, size, 200, turn)
    check(f"EPSG:{32600 + zone}", raster, max(2 * TOLERANCE, size / 111e3 / 200 * 8))


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413", "EPSG:3995"])
def test_a_raster_round_a_pole(crs: str) -> None:
    shape = check(crs, grid(-2e6, 2e6, 4e6, 1000), tolerance=0.05)
    assert shape.bounds[0] == pytest.approx(-180)
    assert shape.bounds[2] == pytest.approx(180)
    assert 90 in (abs(shape.bounds[1]), abs(shape.bounds[3]))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["EPSG:3031", "EPSG:3413"]), st.floats(-3e6, 3e6), st.floats(-3e6, 3e6),
       st.floats(1e3, 5e5))  # fmt: skip
def test_anywhere_near_a_pole(crs: str, x: float, y: float, size: float) -> None:
    if math.hypot(x + size / 2, y - size / 2) < size:  # the pole itself is tested above
        return
    raster = grid(x, y, size, 200)
    shape = geometry(crs, raster)
    distance = math.hypot(x + size / 2, y - size / 2)
    assert_covers(crs, raster, shape, 0.05 + 60 * size / 200 / max(distance, 1))


@pytest.mark.parametrize(("h", "v"), list(itertools.product(range(0, 36, 5), range(0, 18, 2))))
def test_modis_tiles(h: int, v: int) -> None:
    raster = grid(-20015109.354 + h * TILE, 10007554.677 - v * TILE, TILE, 1200)
    found = outline(MODIS, raster)
    column, row = np.random.default_rng(0).uniform(0, 1200, (2, 60))
    some = points(MODIS, column, row, raster)
    if not len(some):
        return
    assert found is not None
    shape = geometry(MODIS, raster)
    away = shapely.distance(shape, shapely.points(some))
    assert away.max() <= 0.2
    assert shape.area < 1200  # ten degrees of latitude; never the whole world


def test_the_full_disk_of_a_geostationary_satellite() -> None:
    shape = geometry(GEOS, grid(-5570248, 5570248, 2 * 5570248, 3712))
    assert shape.geom_type == "Polygon"
    assert shape.contains(shapely.Point(0, 0))
    assert shape.contains(shapely.Point(60, 40))
    assert not shape.contains(shapely.Point(100, 0))
    assert 70 < shape.bounds[2] < 82


def test_degrees_from_0_to_360() -> None:
    shape = geometry("EPSG:4326", Grid((0.0, 0.25, 0.0, 90.0, 0.0, -0.25), 1440, 720))
    assert shape.area == pytest.approx(360 * 180)
    half = geometry("EPSG:4326", Grid((180.0, 0.25, 0.0, 10.0, 0.0, -0.25), 40, 40))
    assert half.bounds == (-180, 0, -170, 10)


def test_the_whole_world_with_a_pixels_half_beyond() -> None:
    shape = geometry("EPSG:4326", Grid((-180.125, 0.25, 0.0, 90.125, 0.0, -0.25), 1441, 721))
    assert shape.area == pytest.approx(360 * 180, rel=0.01)


def test_across_the_antimeridian() -> None:
    shape = check("EPSG:32601", grid(215000, 5e6, 1e5, 1000))
    assert shape.geom_type == "MultiPolygon"
    assert shape.area < 2
    degrees = geometry("EPSG:4326", Grid((179.5, 0.01, 0.0, 1.0, 0.0, -0.01), 100, 100))
    assert degrees.area == pytest.approx(1)


def test_web_mercator() -> None:
    edge = 20037508.342789244
    world = geometry("EPSG:3857", grid(-edge, edge, 2 * edge, 256))
    assert world.bounds == pytest.approx((-180, -85.0511, 180, 85.0511), abs=1e-3)
    check("EPSG:3857", grid(1e6, 6e6, 1e4, 1000))


ENGINEERING = (
    'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
    'LENGTHUNIT["metre",1]]'
)


@pytest.mark.parametrize(
    "crs", ['LOCAL_CS["site",UNIT["metre",1]]', ENGINEERING, "+proj=longlat +R=1737400 +no_defs"]
)
def test_what_is_not_on_earth_has_no_footprint(crs: str) -> None:
    assert outlines_of(crs, [grid(0, 0, 10)]) == [None]


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.0])
def test_odd_geotransforms_have_no_footprint(broken: float) -> None:
    raster = Grid((0.0, broken, 0.0, 5e6, 0.0, broken), 10, 10)
    assert outlines_of("EPSG:32633", [raster]) == [None]


def test_beyond_the_domain_costs_only_its_own_row() -> None:
    good, bad = grid(5e5, 5e6, 1e4), grid(5e9, 5e9, 1e4)
    found = outlines_of("EPSG:32633", [good, bad, good])
    assert [one is None for one in found] == [False, True, False]
    assert found[0] == found[2] == outlines_of("EPSG:32633", [good])[0]


def test_a_rows_footprint_depends_on_the_row_alone() -> None:
    rows = [
        record(f"/{n}.tif".encode(), crs=crs, transform=(x, 10.0, 0.0, 5e6, 0.0, -10.0),
               width=1000, height=900)
        for n, (crs, x) in enumerate([("EPSG:32633", 5e5), ("EPSG:32601", 1e5), (None, 0.0),
                                      ("EPSG:32633", 6e5)])
    ]  # fmt: skip
    together = list(from_batch(rows_of(rows)))
    assert together == [next(from_batch(rows_of([row]))) for row in rows]
    assert [row.footprint for row in together] == ["transform", "transform", None, "transform"]
