"""Catalogs in a notebook, and the small map and the folders of a summary."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from factory import record
from test_difference import written

import rastermeta_async as rm
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.report.dots import COLUMNS, DotMap
from rastermeta_async.report.folders import FolderCounter


def boxes(*limits: tuple[float, float, float, float]) -> pa.Array:
    fields = ("xmin", "ymin", "xmax", "ymax")
    rows = [dict(zip(fields, one, strict=True)) for one in limits]
    return pa.array([*rows, None], SCHEMA.field("bbox").type)


def test_dots_are_where_files_are() -> None:
    places = DotMap()
    places.add(boxes((-180, 89, -179, 90), (179, -90, 180, -89), (-180, 0, 180, 1)))
    *lines, scale = places.lines()
    first, last = lines[0], lines[-1]
    assert first.startswith("  90° N │\u2801")
    assert last.endswith("\u2880│")
    assert {len(line) for line in lines} == {10 + COLUMNS}
    assert scale.split() == ["180°", "W", "0°", "180°", "E"]
    assert sum(character != "\u2800" for line in lines for character in line[9:-1]) == 4


def test_no_places_make_no_map() -> None:
    assert list(DotMap().lines()) == []


def test_boxes_across_the_antimeridian_are_at_both_ends() -> None:
    places = DotMap()
    places.add(pa.array([{"xmin": -180.0, "ymin": 10.0, "xmax": 180.0, "ymax": 12.0}]))
    row, _ = places.lines()
    cells = row.partition("│")[2].rstrip("│")
    assert [at for at, cell in enumerate(cells) if cell != "\u2800"] == [0, COLUMNS - 1]


def test_the_largest_folder_is_opened_while_there_is_room() -> None:
    counter = FolderCounter()
    paths = [f"/a/b/{n % 3}/x{n}.tif" for n in range(30)] + ["/a/c/y.tif"]
    counter.add(pa.array(paths), pa.array([2] * 31))
    found = counter.largest(8)
    assert [one[:2] for one in found] == [
        ("/a/b/0", 10),
        ("/a/b/1", 10),
        ("/a/b/2", 10),
        ("/a/c", 1),
    ]
    assert counter.largest(2) == [("/a/b", 30, 60.0), ("/a/c", 1, 2.0)]


def test_a_notebook_shows_a_summary(tmp_path: Path) -> None:
    path = written(
        tmp_path / "catalog.parquet", [record(b"/a/<img src=x onerror=alert(1)>/\x1b[31m.tif")]
    )
    for shown in (rm.summary(path), rm.open_catalog(path), rm.open_catalog(str(path)).summary()):
        text = shown._repr_html_()
        assert "1 row, " in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text
        assert "<img" not in text
        assert "\x1b" not in text
    assert repr(rm.open_catalog(path)) == f"open_catalog({str(path)!r})"
    assert next(rm.open_catalog(path).batches(["driver"])).to_pylist() == [{"driver": "GTiff"}]


def test_what_is_no_catalog_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(rm.RastermetaError, match="no finished catalog"):
        rm.open_catalog(tmp_path / "none.parquet")
