"""A finished catalog in the hands of others: GeoParquet readers, DuckDB, STAC tools, people."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import command
import duckdb
import geopandas
import jsonschema
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import stac_geoparquet.arrow
import stac_pydantic
from conftest import SHARED_CORPUS
from referencing import Registry, Resource

from rastermeta_async.dates import interval_of, rule_of
from rastermeta_async.record import COLUMNS

ANYTHING = {"$schema": "http://json-schema.org/draft-07/schema#"}
"""In place of schemas that a schema refers to, on the net."""

SPECS = SHARED_CORPUS.parent / "specs"
"""Published JSON schemas, where they are at hand."""


def check_by_schema(content: Any, name: str) -> None:
    if (SPECS / name).exists():
        schema = json.loads((SPECS / name).read_text())
        kind = jsonschema.validators.validator_for(schema)
        anything: Any = Registry(retrieve=lambda _: Resource.from_contents(ANYTHING))  # type: ignore[call-arg]  # attrs' alias
        errors = kind(schema, registry=anything).iter_errors(content)
        assert [error.message for error in errors] == []


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("catalog") / "catalog.parquet"
    command.run(["extract", sample_archive, "-o", output])
    return output


@pytest.fixture(scope="module")
def items(catalog: Path) -> list[dict[str, Any]]:
    output = catalog.parent / "items.ndjson"
    done = command.run(["export", "stac", catalog, "-o", output, "--collection", "sample",
                        "--base-url", "https://example.com/data/"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in output.read_text().splitlines()]


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


def test_items_are_valid(items: list[dict[str, Any]]) -> None:
    assert len(items) == 12
    for item in items:
        check_by_schema(item, "stac-projection-2.0.0.schema.json")
        check_by_schema(item, "stac-raster-2.0.0.schema.json")
        parsed = pystac.Item.from_dict(item)
        assert parsed.collection_id == "sample"
        stac_pydantic.Item.model_validate(item)
    assert len({item["id"] for item in items}) == len(items)


def test_an_item_says_what_the_row_says(items: list[dict[str, Any]], catalog: Path) -> None:
    rows = {row["filepath"]: row for row in command.rows_of(catalog)}
    for item in items:
        (path,) = [path for path in rows if item["assets"]["data"]["href"].endswith(path)]
        row = rows[path]
        assert item["assets"]["data"]["href"] == "https://example.com/data" + path
        assert item["properties"]["proj:code"] == row["crs"]
        assert item["properties"]["proj:shape"] == [row["height"], row["width"]]
        x, a, b, y, d, e = row["transform"]
        assert item["properties"]["proj:transform"] == [a, b, x, d, e, y]
        bands = item["assets"]["data"]["bands"]
        assert [band["data_type"] for band in bands] == [row["dtype"]] * row["count"]
        assert shapely.geometry.shape(item["geometry"]).bounds == tuple(item["bbox"])


def test_items_as_parquet_are_the_same(items: list[dict[str, Any]], catalog: Path) -> None:
    output = catalog.parent / "items.parquet"
    done = command.run(["export", "stac", catalog, "-o", output, "--collection", "sample",
                        "--base-url", "https://example.com/data/"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pq.read_table(output)
    found = {item["id"]: item for item in stac_geoparquet.arrow.stac_table_to_items(table)}
    for item in items:
        back = found[item["id"]]
        assert back["properties"]["proj:code"] == item["properties"]["proj:code"]
        assert back["bbox"] == pytest.approx(item["bbox"])
    assert len(geopandas.read_parquet(output)) == len(items)
    check_by_schema(
        json.loads(pq.read_metadata(output).metadata[b"geo"]), "geoparquet-1.1.0.schema.json"
    )


def test_what_makes_no_item_is_listed(items: list[dict[str, Any]], catalog: Path) -> None:
    lines = (catalog.parent / "items.ndjson.left-out.txt").read_text().splitlines()
    assert len(lines) + len(items) == 45
    reasons = {line.partition("\t")[2] for line in lines}
    assert reasons == {
        "nothing tells its date", "it could not be read", "it has no footprint"
    }  # fmt: skip


def test_a_bad_rule_is_wrong_usage(catalog: Path) -> None:
    for rule in ("(unclosed", "no%Qsuch"):
        done = command.run(["export", "stac", catalog, "-o", "x.ndjson", "--datetime", rule])
        assert done.returncode == 2, rule


def utc(*fields: int) -> dt.datetime:
    return dt.datetime(*fields, tzinfo=dt.UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2020-01-31T12:34:56Z", utc(2020, 1, 31, 12, 34, 56)),
        ("2020-01-31 12:34:56.789+02:00", utc(2020, 1, 31, 10, 34, 56, 789000)),
        ("2020:01:31 12:34:56", utc(2020, 1, 31, 12, 34, 56)),
        ("20200131T123456", utc(2020, 1, 31, 12, 34, 56)),
        ("2020/01/31", utc(2020, 1, 31)),
        ("20200131", utc(2020, 1, 31)),
        ("2020-02-31", None), ("yesterday", None), ("2020", None), ("2020-0131", None), ("", None),
        ("2020-01-31T25:00:00", None),
    ],
)  # fmt: skip
def test_dates_in_common_forms(text: str, start: dt.datetime | None) -> None:
    found = interval_of(text)
    assert (found and found.start) == start
    if found and len(text) < 12:
        assert found.end - found.start == dt.timedelta(days=1, microseconds=-1)


@pytest.mark.parametrize(
    ("rule", "path", "tags", "start"),
    [
        (None, "/a.tif", {"AcquisitionDateTime": "2021-05-06T07:08:09Z",
                          "TIFFTAG_DATETIME": "2022:01:01 00:00:00"}, utc(2021, 5, 6, 7, 8, 9)),
        (None, "/a_20200101.tif", {}, None),
        ("MY_DATE", "/a.tif", {"my_date": "2020-01-02"}, utc(2020, 1, 2)),
        ("%Y%m%d", "/9/scene_20200102_b4.tif", {}, utc(2020, 1, 2)),
        ("%Y%m%d", "/20190101/x.tif", {}, None),
        ("%Y%m%d", "/120200102.tif", {}, None),
        ("%Y%j", "/MOD.A2020032.tif", {}, utc(2020, 2, 1)),
        (r"/(\d{4})/(\d\d)/(\d\d)/", "/x/2020/03/04/a.tif", {}, utc(2020, 3, 4)),
    ],
)  # fmt: skip
def test_rules_for_dates(
    rule: str | None, path: str, tags: dict[str, str], start: dt.datetime | None
) -> None:
    found = rule_of(rule)(path, tags)
    assert (found and found.start) == start


def test_a_summary_counts_everything(catalog: Path) -> None:
    done = command.run(["summary", catalog, "--json"])
    found = json.loads(done.stdout)
    rows = command.rows_of(catalog)
    assert found["rows"] == len(rows) == 45
    assert found["bytes"] == sum(row["file_size"] or 0 for row in rows)
    assert {one["value"]: one["count"] for one in found["status"]} == {
        "success": 40, "error": 4, "no_georef": 1
    }  # fmt: skip
    boxes = [row["bbox"] for row in rows if row["bbox"]]
    assert found["bbox"][0] == min(box["xmin"] for box in boxes)
    assert found["bbox"][3] == max(box["ymax"] for box in boxes)
    assert found["dated"] == 12
    assert sum(error["count"] for error in found["errors"]) == 4
    assert all(error["example"] for error in found["errors"])


def test_a_summary_for_a_person(catalog: Path) -> None:
    text = command.run(["summary", catalog]).stdout.decode()
    assert text.startswith("45 rows, ")
    for words in ("88.9%  success", "EPSG:3857", "tiles and overviews (like a COG)", "e.g. "):
        assert words in text


@pytest.mark.parametrize("asked", [["summary"], ["export", "stac", "-o", "x.ndjson"]])
def test_a_catalog_that_is_not_there(tmp_path: Path, asked: list[str]) -> None:
    done = command.run([*asked, tmp_path / "none.parquet"])
    assert done.returncode == 1
    assert b"there is no finished catalog of this name" in done.stderr
