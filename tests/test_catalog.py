"""A finished catalog in the hands of others: GeoParquet readers, DuckDB."""

from __future__ import annotations

import json
from pathlib import Path

import command
import duckdb
import geopandas
import pyarrow.parquet as pq
import pytest
from specs import check_by_schema

from rastermeta_async.record import COLUMNS


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("catalog") / "catalog.parquet"
    command.run(["extract", sample_archive, "-o", output])
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
    assert frame.crs.equals("OGC:CRS84") or frame.crs.equals("EPSG:4326", ignore_axis_order=True)
    known = frame[frame["status"] == "success"]
    assert known.geometry.notna().sum() == 39
    assert known.geometry.dropna().is_valid.all()
    some = geopandas.read_parquet(catalog, bbox=(13.0, 40.0, 18.0, 60.0))
    assert 0 < len(some) < len(frame)
    bounds = frame.geometry.bounds
    touching = bounds[(bounds.minx <= 18) & (bounds.maxx >= 13) & (bounds.miny <= 60)
                      & (bounds.maxy >= 40)]  # fmt: skip
    assert len(some) == len(touching)


def test_duckdb_reads_it(catalog: Path) -> None:
    question = (
        "select count(*) from read_parquet(?) "
        "where bbox.xmin < 18 and bbox.xmax > 13 and status = 'success'"
    )
    row = duckdb.execute(question, [str(catalog)]).fetchone()
    assert row is not None
    assert row[0] > 0
