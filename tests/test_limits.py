"""Limits of many footprints together are those of each, merged on the circle of longitudes."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from factory import record
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.footprints.limits import Limits, west_to_east
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.record import BBox, to_batch

Scene = tuple[int, int]
"""West and width, degrees."""

SCENES = st.lists(st.tuples(st.integers(-180, 179), st.integers(1, 60)), min_size=1, max_size=8)
AROUND = (-180, 360)


def heights_of(scene: Scene) -> tuple[float, float]:
    """Return south and north, which are others for each west and width."""
    west, width = scene
    return -float(width % 89), 1.0 + abs(west) // 3


def south_and_north(scenes: list[Scene]) -> tuple[float, float]:
    souths, norths = zip(*map(heights_of, scenes), strict=True)
    return min(souths), max(norths)


def limits_of(scene: Scene) -> list[float]:
    west, width = scene
    south, north = heights_of(scene)
    east = west + width if west + width <= 180 else west + width - 360
    return [west, south, east, north]


def batch_of(scenes: list[Scene]) -> pa.RecordBatch:
    """Return rows as a catalog has them: with footprints that are cut at the antimeridian."""
    rows = []
    for number, scene in enumerate(scenes):
        (west, width), (south, north) = scene, heights_of(scene)
        place = (float(west), width / 10, 0.0, north, 0.0, (south - north) / 10)
        rows.append(record(b"/%d" % number, crs="EPSG:4326", width=10, height=10, transform=place))
    return rows_with_footprints(rows)


def known(scenes: list[Scene]) -> tuple[float, float]:
    """Return west and east of what is left without the widest run of degrees that no scene has."""
    covered = np.zeros(360, bool)
    for west, width in scenes:
        covered[(west + 180 + np.arange(width)) % 360] = True
    at = np.flatnonzero(covered)
    outer = 360 - (at[-1] + 1 - at[0])
    gaps = np.diff(at) - 1
    if len(gaps) and gaps.max() > outer:
        where = int(gaps.argmax())
        return at[where + 1] - 180, at[where] + 1 - 180
    return at[0] - 180, at[-1] + 1 - 180


@given(scenes=SCENES)
def test_they_lie_beside_the_widest_gap(scenes: list[Scene]) -> None:
    one_by_one = Limits()
    for scene in scenes:
        one_by_one.add(limits_of(scene))
    west, east = known(scenes)
    south, north = south_and_north(scenes)
    assert one_by_one.west_to_east() == [west, south, east, north]


@given(scenes=SCENES, cut=st.integers(0, 8))
def test_rows_give_the_same_whatever_comes_first(scenes: list[Scene], cut: int) -> None:
    rows = batch_of(scenes)
    together, backwards, later = Limits(), Limits(), Limits()
    together.add_rows(rows["bbox"], rows["geometry"])
    for part in (rows.slice(cut), rows.slice(0, cut)):
        backwards.add_rows(part["bbox"], part["geometry"])
        later.add_rows(part["bbox"])
    later.settle([rows.slice(0, cut), rows.slice(cut)])
    found = together.west_to_east()
    assert found == backwards.west_to_east() == later.west_to_east()
    (west, east), (south, north) = known(scenes), south_and_north(scenes)
    assert found == pytest.approx([west, south, east, north])


@given(scenes=SCENES)
def test_with_one_that_goes_round_the_earth_they_do(scenes: list[Scene]) -> None:
    rows = batch_of([*scenes, AROUND])
    limits = Limits()
    limits.add_rows(rows["bbox"], rows["geometry"])
    south, north = south_and_north([*scenes, AROUND])
    assert limits.west_to_east() == pytest.approx([-180, south, 180, north])


def test_a_cap_goes_round_the_earth() -> None:
    cap = record(b"/cap", crs="EPSG:3031", transform=(-1e6, 1e4, 0.0, 1e6, 0.0, -1e4), width=200,
                 height=200)  # fmt: skip
    (box,), (geometry,) = (
        rows_with_footprints([cap])[name].to_pylist() for name in ("bbox", "geometry")
    )
    assert west_to_east(box, geometry)[::2] == [-180, 180]


def test_footprints_are_not_read_again_where_they_tell_nothing() -> None:
    def never() -> Any:
        raise AssertionError
        yield

    for scenes in ([(10, 5), (-20, 5)], [AROUND]):
        rows, limits = batch_of(scenes), Limits()
        limits.add_rows(rows["bbox"], rows["geometry"])
        limits.settle(never())


def test_rows_without_footprint_do_not_count() -> None:
    box = BBox(1.0, 2.0, 3.0, 4.0)
    rows = to_batch(
        [record(bbox=None), record(bbox=box), record(bbox=box._replace(xmin=math.nan)),
         record(bbox=box._replace(ymax=math.inf))]
    )  # fmt: skip
    limits = Limits()
    assert limits.west_to_east() is None
    limits.add_rows(rows["bbox"], rows["geometry"])
    assert limits.west_to_east() == list(box)


@pytest.mark.parametrize("wkb", [None, b"", b"no geometry", shapely.MultiPolygon().wkb])
def test_without_a_shape_a_row_is_where_its_box_is(wkb: bytes | None) -> None:
    rows = to_batch([record(bbox=BBox(-180, -20, 180, 10), geometry=wkb)])
    limits = Limits()
    limits.add_rows(rows["bbox"], rows["geometry"])
    assert limits.west_to_east() == [-180, -20, 180, 10]


def test_little_is_kept_of_many() -> None:
    """Scenes that lie as if strewn leave no gaps that anyone would look for."""
    limits, random = Limits(), np.random.default_rng(0)
    places = random.uniform(-180, 179.9, 50_000).tolist()
    tracemalloc.start()
    for west in places:
        limits.add([west, 0.0, west + 1e-6, 1.0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # bytes, of all together three times as many
    found = limits.west_to_east()
    assert found is not None
    west, _, east, _ = found
    assert -180 <= west < -179.9 < 179.8 < east <= 180
