"""A finished catalog in the hands of others: GeoParquet readers, DuckDB."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import command
import duckdb
import geopandas
import lonboard
import pandas
import polars
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from factory import exact, record, table
from specs import check_by_schema

from rastermeta_async.catalog.formats import Extent
from rastermeta_async.footprints.rows import Outline, outline_of_points
from rastermeta_async.model.record import COLUMNS

BOX = outline_of_points([1, 2, 2, 1], [2, 2, 3, 3])
ACROSS = outline_of_points([179, 181, 181, 179], [0, 0, 1, 1])


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("catalog") / "catalog.parquet"
    command.run(["extract", sample_archive, "--strict", "-o", output])
    return output


def test_the_metadata_are_geoparquets(catalog: Path) -> None:
    geo = json.loads(pq.read_metadata(catalog).metadata[b"geo"])
    check_by_schema(geo, "geoparquet-1.1.0.schema.json")
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]


def test_columns_carry_their_meaning(catalog: Path) -> None:
    schema = pq.read_schema(catalog)
    found = {field.name: (field.metadata or {}).get(b"description") for field in schema}
    assert found == {name: column.meaning.encode() for name, column in COLUMNS.items()}


def test_geopandas_reads_it(catalog: Path) -> None:
    frame = geopandas.read_parquet(catalog)
    assert frame.crs == "EPSG:4326"
    assert frame.crs.to_epsg() == 4326, "the SRID that to_postgis writes"
    known = frame[frame["status"] == "success"]
    assert known.geometry.notna().sum() == 39
    assert known.geometry.dropna().is_valid.all()
    some = geopandas.read_parquet(catalog, bbox=(13.0, 40.0, 18.0, 60.0))
    assert 0 < len(some) < len(frame)
    bounds = frame.geometry.bounds
    touching = bounds[(bounds.minx <= 18) & (bounds.maxx >= 13) & (bounds.miny <= 60)
                      & (bounds.maxy >= 40)]  # fmt: skip
    assert len(some) == len(touching)


PLACE = (13.0, 40.0, 18.0, 60.0)


@pytest.fixture(scope="module")
def some(catalog: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(catalog, bbox=PLACE)


def test_geopandas_writes_geoparquet_of_a_part(
    some: geopandas.GeoDataFrame, catalog: Path, tmp_path: Path
) -> None:
    some.to_parquet(tmp_path / "some.parquet")
    rows = {row["filepath"]: row for row in pq.read_table(catalog).to_pylist()}
    found = pq.read_table(tmp_path / "some.parquet").to_pylist()
    assert len(found) == len(some) > 0
    for name in ("dataset_tags", "band_tags", "imagery_tags", "bands", "geometry"):
        assert exact([row[name] for row in found]) == exact(
            [rows[row["filepath"]][name] for row in found]
        )
    assert any(row["band_tags"] for row in found)


def test_geopandas_writes_flatgeobuf_of_a_part(
    some: geopandas.GeoDataFrame, tmp_path: Path
) -> None:
    some.to_file(tmp_path / "some.fgb", driver="FlatGeobuf")
    found = geopandas.read_file(tmp_path / "some.fgb")
    assert found.crs == "EPSG:4326"
    shapes = dict(zip(found["filepath"], found.geometry, strict=True))
    assert shapes == dict(zip(some["filepath"], some.geometry, strict=True))
    assert min(shape.bounds[1] for shape in shapes.values()) > 18, "longitude comes first"


def test_geopandas_writes_geojson_of_a_part(some: geopandas.GeoDataFrame) -> None:
    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    features = json.loads(some.to_json(default=plain))["features"]
    found = {one["properties"]["filepath"]: one["properties"]["band_tags"] for one in features}
    assert found == {
        path: list(tags) for path, tags in zip(some["filepath"], some["band_tags"], strict=True)
    }
    assert {"band", "key", "value"} == {*chain.from_iterable(chain.from_iterable(found.values()))}


@pytest.mark.filterwarnings("ignore:The .* keyword in DataFrame.convert_dtypes")  # lonboard's call
def test_lonboard_shows_a_part(some: geopandas.GeoDataFrame) -> None:
    layer = lonboard.PolygonLayer.from_geopandas(some[some.geometry.notna()])
    assert layer.table.num_rows == some.geometry.notna().sum()
    assert "band_tags" in layer.table.schema.names


def test_pandas_has_lists_of_dicts(catalog: Path) -> None:
    frame = pandas.read_parquet(catalog)
    rows = pq.read_table(catalog, columns=["dataset_tags", "band_tags"])
    for name in rows.column_names:
        assert [tags is not None and list(tags) for tags in frame[name]] == [
            tags is not None and tags for tags in rows[name].to_pylist()
        ]


def test_duckdb_reads_it(catalog: Path) -> None:
    question = (
        "select count(*) from read_parquet(?) "
        "where bbox.xmin < 18 and bbox.xmax > 13 and status = 'success'"
    )
    row = duckdb.execute(question, [str(catalog)]).fetchone()
    assert row is not None
    assert row[0] > 0


def test_polars_and_pyarrow_read_it(catalog: Path) -> None:
    rows = pq.read_table(catalog)
    frame = polars.read_parquet(catalog)
    assert frame["geometry"].to_list() == rows["geometry"].to_pylist()
    assert frame["bbox"].struct.field("xmin").to_list() == [
        box and box["xmin"] for box in rows["bbox"].to_pylist()
    ]


def test_gdal_reads_it_where_it_can(catalog: Path) -> None:
    if "Parquet" in pyogrio.list_drivers():  # PyPI's wheels lack it
        info = pyogrio.read_info(catalog)
        assert info["features"] == 45
        assert info["crs"] == "EPSG:4326"


def test_limits_in_columns_and_metadata_are_the_geometries(catalog: Path) -> None:
    rows = pq.read_table(catalog)
    geo = json.loads(pq.read_metadata(catalog).metadata[b"geo"])["columns"]["geometry"]
    shapes = [shapely.from_wkb(value) for value in rows["geometry"].to_pylist() if value]
    boxes = [tuple(box.values()) for box in rows["bbox"].to_pylist() if box]
    assert boxes == [shape.bounds for shape in shapes]
    assert tuple(geo["bbox"]) == shapely.GeometryCollection(shapes).bounds
    assert set(geo["geometry_types"]) == {shape.geom_type for shape in shapes}
    known = [kind is not None for kind in rows["footprint"].to_pylist()]
    assert known == rows["geometry"].is_valid().to_pylist() == rows["bbox"].is_valid().to_pylist()


@pytest.mark.parametrize("shapes", [[], [None], [BOX, None], [BOX, ACROSS], [ACROSS]])
def test_metadata_of_any_footprints(shapes: list[Outline | None]) -> None:
    rows = [
        record(f"/{at}".encode(), geometry=shape and shape.geometry, bbox=shape and shape.bbox)
        for at, shape in enumerate(shapes)
    ]
    extent = Extent()
    for row in rows:
        extent.add(table([row]))
    geo = json.loads(extent.metadata())
    check_by_schema(geo, "geoparquet-1.1.0.schema.json")
    kinds = {"Polygon" if shape == BOX else "MultiPolygon" for shape in shapes if shape}
    assert set(geo["columns"]["geometry"]["geometry_types"]) == kinds
    if BOX in shapes and ACROSS in shapes:
        assert geo["columns"]["geometry"]["bbox"] == [1, 0, -179, 3], "the widest gap is west of 1"
    assert ("bbox" in geo["columns"]["geometry"]) == any(shapes)
