"""Catalogs as STAC items: valid by the schemas and libraries of others, true to the rows."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import command
import duckdb
import geopandas
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import rasterio
import rustac
import shapely
import stac_pydantic
from factory import band, failed, record
from items import check_item, read_items, write_catalog
from rio_cogeo.cogeo import cog_validate
from specs import check_by_schema
from typer.testing import CliRunner

from rastermeta_async.catalog import completed
from rastermeta_async.catalog.temporary import Temporary
from rastermeta_async.cli.app import app
from rastermeta_async.cli.summary import summary_of
from rastermeta_async.model.errors import (
    ForeignOutputError,
    OutputError,
    OutputLockedError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.record import BBox, Record, tags_of
from rastermeta_async.stac import export as exporting
from rastermeta_async.stac import table
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import Export, export
from rastermeta_async.stac.items import RASTER
from rastermeta_async.stac.links import Links

DATED = {"ACQUISITIONDATETIME": "2020-01-31T12:34:56Z"}
WKT1 = (
    'PROJCS["mine",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["central_meridian",14.5],PARAMETER["scale_factor",1],PARAMETER["false_easting",0],'
    'UNIT["foot",0.3048]]'
)


pytestmark = pytest.mark.usefixtures("nothing_stays_open")


SOMEWHERE = shapely.to_wkb(shapely.box(0, 0, 1, 1), byte_order=1)
NOWHERE = shapely.to_wkb(shapely.Polygon(), byte_order=1)


def dated(path: bytes = b"/archive/a.tif", **fields: Any) -> Record:
    return record(path, **({"dataset_tags": DATED} | fields))


def made(
    folder: Path, records: Sequence[Record], name: str = "items.ndjson", **how: Any
) -> tuple[list[dict[str, Any]], Export]:
    """Return the items of records, each held against every schema, and what was said of all."""
    catalog = write_catalog(folder / "catalog.parquet", records)
    output = folder / name
    done = export(str(catalog), str(output), how.pop("rules", Rules()), **how)
    items = read_items(output)
    assert len(items) == done.items
    assert sum(done.left_out.values()) + done.items == len(records)
    for item in items:
        check_item(item)
    assert leftovers(folder) == []
    return items, done


def bands_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    bands: list[dict[str, Any]] = item["assets"]["data"]["bands"]
    return bands


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("catalog") / "catalog.parquet"
    command.run(["extract", sample_archive, "--strict", "-o", output])
    return output


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["items.ndjson", "items.jsonl", "items.parquet"])
def test_the_command_says_what_the_rows_say(catalog: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    done = command.run(["export", "stac", catalog, "-o", output, "--collection", "sample",
                        "--base-url", "https://example.com/data/"])  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{output}: 12 items\n"
    assert b"27 rows were left out: nothing tells its date; name what does" in done.stderr
    rows = {row["filepath"]: row for row in command.rows_of(catalog)}
    items = read_items(output)
    assert len({item["id"] for item in items}) == len(items) == 12
    for item in items:
        check_item(item)
        assert item["collection"] == "sample"
        (path,) = [path for path in rows if item["assets"]["data"]["href"].endswith(path)]
        row = rows[path]
        assert item["assets"]["data"]["href"] == "https://example.com/data" + path
        is_cog, *_ = cog_validate(path, quiet=True)
        assert item["assets"]["data"]["type"].endswith("profile=cloud-optimized") == is_cog
        assert item["properties"]["proj:code"] == row["crs"]
        assert item["properties"]["proj:shape"] == [row["height"], row["width"]]
        x, a, b, y, d, e = row["transform"]
        assert item["properties"]["proj:transform"] == [a, b, x, d, e, y]
        assert item["properties"]["proj:bbox"] == list(row["bounds"].values())
        assert [one["data_type"] for one in bands_of(item)] == [row["dtype"]] * row["count"]
        assert bands_of(item)[0]["raster:spatial_resolution"] == 0.2
        assert shapely.geometry.shape(item["geometry"]).bounds == tuple(item["bbox"])
        when = tags_of(row["dataset_tags"])["TIFFTAG_DATETIME"].replace(":", "-", 2)
        assert item["properties"]["datetime"][:19] == when.replace(" ", "T")
    lines = Path(f"{output}.left-out.txt").read_text().splitlines()
    assert len({item["assets"]["data"]["type"] for item in items}) == 2
    assert {line.partition("\t")[2] for line in lines} == {
        "nothing tells its date", "it could not be read", "nothing tells its place",
        "its place on Earth is not known",
    }  # fmt: skip
    assert sorted(line.partition("\t")[0] for line in lines) == sorted(
        set(rows) - {item["assets"]["data"]["href"][len("https://example.com/data") :]
                     for item in items}
    )  # fmt: skip


def test_the_collection_is_valid_and_holds_its_items(catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "items.parquet"
    export(str(catalog), str(output), Rules(), "sample")
    items = read_items(output)
    (link,) = items[0]["links"]
    content = json.loads((tmp_path / link["href"]).read_text())
    pystac.validation.validate_dict(content)
    stac_pydantic.Collection.model_validate(content)
    found = pystac.Collection.from_dict(content)
    assert found.id == items[0]["collection"] == "sample"
    west, south, east, north = found.extent.spatial.bboxes[0]
    for item in items:
        assert west <= item["bbox"][0] <= item["bbox"][2] <= east
        assert south <= item["bbox"][1] <= item["bbox"][3] <= north
    about = json.loads(pq.read_metadata(output).metadata[b"stac-geoparquet"])
    check_by_schema(about, "stac-geoparquet-metadata.schema.json")
    assert about == {"version": "1.0.0", "collections": {"sample": content}}


def test_others_read_the_parquet_file(catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "items.parquet"
    export(str(catalog), str(output), Rules())
    geo = json.loads(pq.read_metadata(output).metadata[b"geo"])
    check_by_schema(geo, "geoparquet-1.1.0.schema.json")
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert len(geopandas.read_parquet(output)) == 12
    assert len(geopandas.read_parquet(output, bbox=(1, 49, 3, 52))) < 12
    row = duckdb.execute(
        "select count(*), min(datetime) from read_parquet(?) where \"proj:code\" = 'EPSG:32631'",
        [str(output)],
    ).fetchone()
    assert row is not None
    assert row[0] == 3
    by_rust = rustac.read_sync(str(output))["features"]
    assert [_plain(item) for item in by_rust] == [_plain(item) for item in read_items(output)]


def _plain(item: dict[str, Any]) -> Any:
    """Return an item without what readers write each in their way: zeros after the comma."""
    text = json.dumps(item, sort_keys=True).replace(".000000Z", "Z")
    return _numbers(json.loads(text))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return float(value) if isinstance(value, int | float) else value


def test_all_kinds_of_rows_are_one_parquet_file(tmp_path: Path) -> None:
    records = [
        dated(b"/1.tif", bands=[band(nodata=float("nan"), dtype="float32")], dtype="float32"),
        dated(b"/2.tif", bands=[band(nodata=1.5, unit="m", scale=2.0)]),
        dated(b"/3.tif", bands=[band(nodata=float("-inf"), description="x"), band(nodata=None)],
              count=2),
        dated(b"/4.tif", dataset_tags={"DATE_ACQUIRED": "2020-01-31"}),
        dated(b"/5.tif", crs=WKT1, proj_code=None, crs_wkt=WKT1),
    ]  # fmt: skip
    lines, _ = made(tmp_path, records)
    rows, _ = made(tmp_path, records, "items.parquet")
    assert [_plain(item) for item in rows] == [_plain(item) for item in lines]
    assert [one.get("nodata") for item in lines for one in bands_of(item)][:4] == [
        "nan", 1.5, "-inf", None
    ]  # fmt: skip
    assert lines[3]["properties"]["datetime"] is None
    assert lines[3]["properties"]["start_datetime"] == "2020-01-31T00:00:00.000000Z"
    assert lines[3]["properties"]["end_datetime"] == "2020-01-31T23:59:59.999999Z"


@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
@pytest.mark.parametrize("year", [750, 1750, 2750])
def test_years_of_old_maps(tmp_path: Path, year: int, name: str) -> None:
    """A pattern takes years that would not be sure in a tag."""
    row = dated(b"/map_%04d.tif" % year)
    (item,), _ = made(tmp_path, [row], name, rules=Rules(["map_%Y"]), collection="maps")
    span = [f"{year:04}-01-01T00:00:00.000000Z", f"{year:04}-12-31T23:59:59.999999Z"]
    found = [item["properties"][field] for field in ("start_datetime", "end_datetime")]
    assert found == span
    content = json.loads((tmp_path / f"{name}.collection.json").read_text())
    assert content["extent"]["temporal"]["interval"] == [span]


def test_a_field_that_comes_late_is_in_parquet_too(tmp_path: Path) -> None:
    """Its name may be that of another field elsewhere in the item: an item has a type, too."""
    records = [
        dated(b"/1.xyz", driver="none"),
        dated(b"/2.tif"),
    ]
    lines, _ = made(tmp_path, records)
    rows, _ = made(tmp_path, records, "items.parquet")
    assert [_plain(item) for item in rows] == [_plain(item) for item in lines]
    assert ["type" in item["assets"]["data"] for item in lines] == [False, True]


def test_a_crs_without_code_is_told_in_wkt2(tmp_path: Path) -> None:
    (item,), _ = made(tmp_path, [dated(crs=WKT1, proj_code=None, crs_wkt=WKT1)])
    assert item["properties"]["proj:code"] is None
    assert item["properties"]["proj:wkt2"].startswith('PROJCRS["mine"')
    assert bands_of(item)[0]["raster:spatial_resolution"] == pytest.approx(
        0.3048 * math.sqrt(10.5 * 21)
    )


def test_degrees_are_no_metres(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "crs": "EPSG:4326",
        "proj_code": "EPSG:4326",
        "width": 10,
        "height": 10,
    }
    (item,), _ = made(tmp_path, [dated(transform=(10, 0.1, 0, 50, 0, -0.1), area_or_point=None,
                                       **fields)])  # fmt: skip
    assert "raster:spatial_resolution" not in bands_of(item)[0]
    assert "gsd" not in item["properties"]
    assert RASTER not in item["stac_extensions"]
    assert item["bbox"] == [10, 49, 11, 50]


@pytest.mark.parametrize(
    ("transform", "bounds"),
    [
        ((300000.0, 3.0, 4.0, 5000000.0, 4.0, -3.0), [300000.0, 4999400.0, 301100.0, 5000400.0]),
        ((300000.0, 3.0, -4.0, 5000000.0, -4.0, -3.0), [299200.0, 4999000.0, 300300.0, 5000000.0]),
    ],
)
def test_a_rotated_raster(
    tmp_path: Path, transform: tuple[float, ...], bounds: list[float]
) -> None:
    (item,), _ = made(tmp_path, [dated(transform=transform, width=100, height=200)])
    properties = item["properties"]
    x, a, b, y, d, e = transform
    assert properties["proj:transform"] == [a, b, x, d, e, y]
    assert properties["proj:bbox"] == bounds
    assert bands_of(item)[0]["raster:spatial_resolution"] == 5.0


def test_approximate_footprints_have_no_transform(tmp_path: Path) -> None:
    outline = shapely.box(10, 50, 11, 51)
    fields = {
        "crs": None, "proj_code": None, "transform": (0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "geometry": shapely.to_wkb(outline, byte_order=1), "footprint": "rpcs",
    }  # fmt: skip
    (item,), _ = made(tmp_path, [dated(bbox=BBox(10, 50, 11, 51), has_rpcs=True, **fields)])
    assert item["properties"] == {
        "datetime": "2020-01-31T12:34:56.000000Z", "proj:code": None, "proj:shape": [1, 1]
    }  # fmt: skip


def test_across_the_antimeridian(tmp_path: Path) -> None:
    """The bounding box goes from west to east there (RFC 7946, section 5.2)."""
    there = dated(crs="EPSG:4326", transform=(179.0, 0.1, 0.0, -10.0, 0.0, -0.1), width=30,
                  height=10)  # fmt: skip
    (item,), _ = made(tmp_path, [there], collection="x")
    assert item["geometry"]["type"] == "MultiPolygon"
    assert item["bbox"] == pytest.approx([179, -11, -178, -10])
    around = there._replace(transform=(-180.0, 1.0, 0.0, 90.0, 0.0, -1.0), width=360, height=180)
    (item,), _ = made(tmp_path, [around])
    assert item["bbox"] == [-180, -90, 180, 90]
    (item,), _ = made(tmp_path, [there], "items.parquet")
    assert item["bbox"] == pytest.approx([-180, -11, 180, -10]), "a covering is planar"


def extent_of(folder: Path, name: str) -> list[float]:
    """Return the extent that a collection has; the metadata of a Parquet file tell the same."""
    content = json.loads((folder / f"{name}.collection.json").read_text())
    pystac.validation.validate_dict(content)
    (extent,) = content["extent"]["spatial"]["bbox"]
    if name.endswith(".parquet"):
        geo = json.loads(pq.read_metadata(folder / name).metadata[b"geo"])
        check_by_schema(geo, "geoparquet-1.1.0.schema.json")
        assert geo["columns"]["geometry"]["bbox"] == extent
    return list(extent)


def test_a_collection_lasts_from_its_first_item_to_its_last(tmp_path: Path) -> None:
    days = ["2020-03-01T00:00:00.000000Z", "2024-05-06T00:00:00.000000Z",
            "2019-01-02T00:00:00.000000Z", "2021-01-01T00:00:00.000000Z"]  # fmt: skip
    rows = [dated(b"/%d.tif" % at, dataset_tags={"ACQUISITIONDATETIME": day})
            for at, day in enumerate(days)]  # fmt: skip
    items, _ = made(tmp_path, rows, "my items.ndjson", collection="all")
    href = unquote_to_bytes(urlsplit(items[0]["links"][0]["href"]).path).decode()
    assert " " not in items[0]["links"][0]["href"]
    content = json.loads((tmp_path / href).read_text())
    assert content["extent"]["temporal"]["interval"] == [[days[2], days[1]]]


def test_names_of_files_that_are_no_utf_8(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated()])
    odd = catalog.rename(tmp_path / os.fsdecode(b"\xff.parquet"))
    output = tmp_path / os.fsdecode(b"\xfe.ndjson")
    export(str(odd), str(output), Rules(), collection="all")
    (item,) = read_items(output)
    href = unquote_to_bytes(item["links"][0]["href"])
    content = json.loads((tmp_path / os.fsdecode(href)).read_text())
    assert (content["id"], content["description"]) == ("all", "Rasters of \\xff.parquet")


@pytest.mark.parametrize("output", ["items.ndjson", "items.parquet"])
def test_the_extent_of_a_collection_crosses_the_antimeridian_as_its_items_do(
    tmp_path: Path, output: str
) -> None:
    fiji = dated(crs="EPSG:4326", transform=(178.1, 0.1, 0.0, -16.0, 0.0, -0.1), width=22,
                 height=20)  # fmt: skip
    made(tmp_path, [fiji], output, collection="x")
    assert extent_of(tmp_path, output) == pytest.approx([178.1, -18, -179.7, -16])
    others = [fiji._replace(filepath=f"/{west}", transform=(west, 0.1, 0.0, -30.0, 0.0, -0.1))
              for west in (170.0, -150.0)]  # fmt: skip
    made(tmp_path, [fiji, *others], output, collection="x")
    assert extent_of(tmp_path, output) == pytest.approx([170, -32, -147.8, -16])
    around = fiji._replace(filepath="/all", transform=(-180.0, 1.0, 0.0, 90.0, 0.0, -1.0),
                           width=360, height=30)  # fmt: skip
    made(tmp_path, [fiji, around], output, collection="x")
    assert extent_of(tmp_path, output) == pytest.approx([-180, -18, 180, 90])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (failed(), "it could not be read"),
        (dated(status="no_georef", crs=None, proj_code=None), "nothing tells its place"),
        (dated(count=0, bands=[], subdatasets=["a"]), "it is a container without bands of its own"),
        (dated(crs=None, proj_code=None), "its place on Earth is not known"),
        (dated(transform=(math.nan,) * 6), "its place on Earth is not known"),
        (record(), "nothing tells its date"),
        (
            dated(bbox=BBox(0.0, 0.0, 1.0, 1.0), geometry=NOWHERE, footprint="gcps"),
            "its place on Earth is not known",
        ),
        (
            dated(bbox=None, geometry=SOMEWHERE, footprint="gcps"),
            "its place on Earth is not known",
        ),
        (dated(dataset_tags=None), "nothing tells its date"),
        (dated(dataset_tags={"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}), "nothing tells its date"),
    ],
)
def test_what_makes_no_item(tmp_path: Path, row: Record, reason: str) -> None:
    items, done = made(tmp_path, [row])
    assert (items, done.left_out) == ([], {reason: 1})
    assert (tmp_path / "items.ndjson.left-out.txt").read_text() == f"{row.filepath}\t{reason}\n"
    made(tmp_path, [dated()])
    assert not (tmp_path / "items.ndjson.left-out.txt").exists(), "it is of the earlier export"


def test_a_geotransform_that_is_no_number_is_not_told(tmp_path: Path) -> None:
    odd = dated(transform=(0.0, math.inf, 0.0, 0.0, 0.0, math.nan), bbox=BBox(0.0, 0.0, 1.0, 1.0),
                geometry=SOMEWHERE, footprint="transform")  # fmt: skip
    (item,), _ = made(tmp_path, [odd])
    assert "proj:transform" not in item["properties"]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    odd = band(scale=math.nan, offset=math.inf, nodata=math.inf)
    (item,), _ = made(tmp_path, [dated(bands=[odd])])
    assert bands_of(item)[0].keys() & {"raster:scale", "raster:offset"} == set()
    assert bands_of(item)[0]["nodata"] == "inf"


def test_what_is_told_of_a_band_besides_its_numbers(tmp_path: Path) -> None:
    """Only the words that the extension knows tell how a pixel is meant."""
    told = band(unit="m", description="Height")
    rows = [dated(b"/%d.tif" % at, bands=[told], area_or_point=word)
            for at, word in enumerate(["Point", "Area", "Unknown", None])]  # fmt: skip
    items, _ = made(tmp_path, rows)
    of_bands = [bands_of(item)[0] for item in items]
    assert {(one["unit"], one["description"]) for one in of_bands} == {("m", "Height")}
    assert [one.get("raster:sampling") for one in of_bands] == ["point", "area", None, None]


@pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**53 + 1, -(2**63)])
def test_nodata_of_64_bits_is_an_exact_number_and_in_parquet_the_nearest_double(
    tmp_path: Path, value: int
) -> None:
    wide = band(nodata=float(value), nodata_text=str(value))
    (item,), _ = made(tmp_path, [dated(bands=[wide])])
    assert bands_of(item)[0]["nodata"] == value
    assert f'"nodata":{value},' in (tmp_path / "items.ndjson").read_text()
    (item,), _ = made(tmp_path, [dated(bands=[wide])], "items.parquet")
    assert bands_of(item)[0]["nodata"] == float(value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("complex_int16", "cint16"), ("complex64", "cfloat32"), ("complex128", "cfloat64"),
     ("int8", "int8"), ("uint64", "uint64"), ("strange", "other")],
)  # fmt: skip
def test_data_types(tmp_path: Path, kind: str, told: str) -> None:
    (item,), _ = made(tmp_path, [dated(dtype=kind, bands=[band(dtype=kind)])])
    assert bands_of(item)[0]["data_type"] == told


@pytest.mark.parametrize(
    ("most_rows", "most_bytes", "groups"), [(3, 10**6, [3, 3, 1]), (100, 9000, [2, 2, 2, 1])]
)
def test_row_groups_of_items_end_by_rows_and_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_rows: int, most_bytes: int,
    groups: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(table, "_GROUP_ROWS", most_rows)
    monkeypatch.setattr(table, "_GROUP_BYTES", most_bytes)
    long = band(description="x" * 3000)
    made(tmp_path, [dated(b"/%d.tif" % at, bands=[long]) for at in range(7)], "items.parquet")
    meta = pq.read_metadata(tmp_path / "items.parquet")
    assert [meta.row_group(at).num_rows for at in range(meta.num_row_groups)] == groups


def test_times_of_items_sort_as_text(tmp_path: Path) -> None:
    """Programs compare them as text: "56.5Z" comes before "56Z"."""
    given = ["2020-01-31T12:34:55.999999Z", "2020-01-31T12:34:56Z", "2020-01-31T12:34:56.5Z",
             "2020-01-31T12:34:57Z"]  # fmt: skip
    rows = [dated(b"/%d.tif" % at, dataset_tags={"ACQUISITIONDATETIME": text})
            for at, text in enumerate(given)]  # fmt: skip
    items, _ = made(tmp_path, rows)
    told = [item["properties"]["datetime"] for item in items]
    assert told == sorted(told)
    assert [dt.datetime.fromisoformat(text) for text in told] == [
        dt.datetime.fromisoformat(text) for text in given
    ]


@pytest.mark.parametrize(
    "text", ["C:\\x\\temp", 'a\\\\b\\"c"\\', "\\u0000", "\\n\n\t\x1b\x7f", "\u2028\ufffe\U0001f600"]
)
def test_backslashes_in_lines_are_never_doubled(tmp_path: Path, text: str) -> None:
    """pypgstac halves double backslashes before it parses a line."""
    (item,), _ = made(tmp_path, [dated(bands=[band(description=text)])])
    assert bands_of(item)[0]["description"] == text
    assert "\\\\" not in (tmp_path / "items.ndjson").read_text()


@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
def test_a_null_character_is_replaced(tmp_path: Path, name: str) -> None:
    """PostgreSQL refuses it in text."""
    (item,), _ = made(tmp_path, [dated(bands=[band(description="a\0\\0", unit="\0")])], name)
    assert bands_of(item)[0]["description"] == "a\ufffd\\0"
    assert bands_of(item)[0]["unit"] == "\ufffd"


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
def test_thousands_of_bands(tmp_path: Path, name: str) -> None:
    (item, _), _ = made(
        tmp_path, [dated(count=5000, bands=[band()] * 5000), dated(b"/b.tif")], name
    )
    assert len({one["name"] for one in bands_of(item)}) == 5000


PATHS = [
    b"/data/a.tif", b"/data/a b#1?.tif", b"/data/new\nline\t.tif", b"/data/\xff\xfe.tif",
    "/data/żółć 地図.tif".encode(), b"/data/\\xff\\xfe.tif", b"relative/c:d.tif", b"c:d.tif",
    b"/other/a.tif", b"/data/100%25.tif", b"/data/.tif", b"//twice/a.tif", b"/data/a\x1b[31m.tif",
    "/data/\u2028.tif".encode(), "/data/地図.tif".encode(),
]  # fmt: skip


def test_paths_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items, done = made(tmp_path, [dated(path) for path in PATHS])
    assert (done.relative_links, done.encoded_links) == (2, 8)
    assert len({item["id"] for item in items}) == len(PATHS)
    for item, path in zip(items, PATHS, strict=True):
        href = item["assets"]["data"]["href"]
        assert href.isprintable()
        assert not set(href) & set(" \n\t?#\x1b\\")
        scheme = "file" if path.startswith(b"/") else ""
        assert urlsplit(href)._replace(path="")[:] == (scheme, "", "", "", "")
        assert unquote_to_bytes(urlsplit(href).path) == path.replace(b"//", b"/")
        assert item["id"].isascii()
        assert item["id"] == pystac.Item.from_dict(item).id
    again, _ = made(tmp_path, [dated(path) for path in PATHS[::-1]])
    assert [item["id"] for item in again] == [item["id"] for item in items][::-1]
    assert items[0]["id"].startswith("a-")


def test_what_is_left_out_of_another_s_catalog_gives_no_secret_away(tmp_path: Path) -> None:
    made(tmp_path, [record()._replace(filepath="https://me:hidden@h/a.tif?sig=hidden")])
    listed = (tmp_path / "items.ndjson.left-out.txt").read_text()
    assert listed.startswith("https://h/a.tif\t")


def test_paths_of_any_kind_are_listed_on_a_line_each(tmp_path: Path) -> None:
    made(tmp_path, [record(path) for path in PATHS])
    lines = (tmp_path / "items.ndjson.left-out.txt").read_text().split("\n")
    assert len(lines) == len(PATHS) + 1
    assert all(line.count("\t") == 1 for line in lines[:-1])
    assert lines[2] == "/data/new\\nline\\t.tif\tnothing tells its date"
    assert lines[4].startswith("/data/żółć 地図.tif\t")


@pytest.mark.parametrize(
    ("base", "path", "href"),
    [
        ("https://h/data/", b"/a b/c.tif", "https://h/data/a%20b/c.tif"),
        ("https://h", b"./a/../c.tif", "https://h/c.tif"),
        ("https://h", b"../../c.tif", "https://h/c.tif"),
        ("https://h", b"\xff:%.tif", "https://h/%FF%3A%25.tif"),
        ("s3://bucket/x", b"/a:b.tif", "s3://bucket/x/a:b.tif"),
        ("https://h", b"s3://bucket/a b.tif", "s3://bucket/a%20b.tif"),
        ("https://h", b"https://o/a%20b.tif?x=1", "https://o/a%20b.tif?x=1"),
        ("file:///mnt", b"/a.tif", "file:///mnt/a.tif"),
        ("file:///", b"/a b.tif", "file:///a%20b.tif"),
        ("FILE:/mnt/", b"a.tif", "file:///mnt/a.tif"),
        ("file://host/share", b"/a.tif", "file://host/share/a.tif"),
        (None, b"/a b.tif", "file:///a%20b.tif"),
        (None, b"a b.tif", "a%20b.tif"),
        (None, b"./x/../a.tif", "a.tif"),
        (None, b"gs://bucket/k=1/a.tif", "gs://bucket/k=1/a.tif"),
    ],
)
def test_links(base: str | None, path: bytes, href: str) -> None:
    assert Links(base).of(path) == href


@pytest.mark.parametrize("base", ["", "example.com", "/data", "https://h?x=1", "https://h/a b",
                                  "https://h/a#b", "https://me:hidden@h/a"])  # fmt: skip
def test_a_base_that_is_no_url(base: str) -> None:
    with pytest.raises(SettingsError, match="--base-url"):
        Links(base)


@pytest.mark.parametrize("ending", [".parquet", ".ndjson", ".jsonl", ".json"])
def test_every_form_of_a_catalog_gives_the_same_items(tmp_path: Path, ending: str) -> None:
    bands = [band(nodata=math.nan, nodata_text="nan")]
    records = [dated(bands=bands), dated(b"/\xff.tif"), failed()]
    expected, _ = made(tmp_path, records)
    catalog = write_catalog(tmp_path / f"other{ending}", records)
    export(str(catalog), str(tmp_path / "o.ndjson"), Rules())
    assert read_items(tmp_path / "o.ndjson") == expected
    assert len(expected) == 2


@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
@pytest.mark.parametrize("ending", [".parquet", ".ndjson", ".json"])
def test_an_empty_catalog(tmp_path: Path, ending: str, name: str) -> None:
    catalog = write_catalog(tmp_path / f"empty{ending}", [])
    done = export(str(catalog), str(tmp_path / name), Rules(), "none")
    assert done.items == 0
    assert read_items(tmp_path / name) == []
    assert sorted(os.listdir(tmp_path)) == sorted([f"empty{ending}", name])
    if name.endswith("parquet"):
        assert len(geopandas.read_parquet(tmp_path / name)) == 0


@pytest.mark.campaign
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Of twice as many rows, the peak is the same."""
    script = (
        "import sys; from rastermeta_async.stac.export import export; "
        "from rastermeta_async.stac.evidence import Rules; "
        "export(*sys.argv[1:3], Rules()); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    peaks = []
    for count in (8_000, 16_000):
        rows = [dated(b"/%06d.tif" % at) for at in range(count)]
        catalog = write_catalog(tmp_path / f"{count}.parquet", rows)
        done = command.run([script, catalog, tmp_path / f"{count}.items.parquet"],
                           command=[*command.COMMAND[:1], "-c"])  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 30, peaks


# What goes wrong


def test_an_older_file_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated(), failed()])
    output = tmp_path / "items.parquet"
    output.write_bytes(b"older")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"items\.parquet: writing failed: No space left"):
        export(str(catalog), str(output), Rules(), "x", overwrite=True)
    assert output.read_bytes() == b"older"
    assert sorted(os.listdir(tmp_path)) == ["catalog.parquet", "items.parquet"]


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated()])
    output = str(tmp_path / "items.ndjson")
    with Temporary(output), pytest.raises(OutputLockedError):
        export(str(catalog), output, Rules())


def test_leftovers_of_a_killed_export_are_taken_over(tmp_path: Path) -> None:
    for name in ("items.ndjson", "items.ndjson.left-out.txt"):
        (tmp_path / f"{name}.0123456789abcdef.tmp").write_text("half a li")
    items, _ = made(tmp_path, [dated()])
    assert len(items) == 1


@pytest.mark.parametrize("before", [None, b"", b"mine"])
@pytest.mark.parametrize("name", ["", ".left-out.txt", ".collection.json"])
def test_what_takes_a_name_in_mid_run_is_left_alone(
    tmp_path: Path, name: str, before: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated(), failed()])
    output, at = tmp_path / "items.ndjson", tmp_path / f"items.ndjson{name}"
    if before is not None:
        at.write_bytes(before)

    def late(*args: Any) -> Iterator[dict[str, Any]]:
        yield from completed.dicts_of(*args)
        at.unlink(missing_ok=True)
        at.write_bytes(b"theirs")

    with monkeypatch.context() as patch, pytest.raises(ForeignOutputError) as caught:
        patch.setattr("rastermeta_async.stac.export.dicts_of", late)
        export(str(catalog), str(output), Rules(), "x", overwrite=before is not None)
    assert str(caught.value).startswith(f"{at} was put there or changed by another program")
    assert at.read_bytes() == b"theirs"
    assert leftovers(tmp_path) == []
    at.unlink()
    export(str(catalog), str(output), Rules(), "x", overwrite=True)
    assert len(read_items(output)) == 1


def test_a_list_that_is_no_longer_needed_goes_only_if_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, listed = tmp_path / "items.ndjson", tmp_path / "items.ndjson.left-out.txt"
    for theirs in (False, True):
        catalog = write_catalog(tmp_path / "catalog.parquet", [dated(), failed()])
        export(str(catalog), str(output), Rules())
        catalog.unlink()
        catalog = write_catalog(catalog, [dated()])
        assert listed.exists()
        with monkeypatch.context() as patch:
            if theirs:

                def late(*args: Any) -> Iterator[dict[str, Any]]:
                    listed.write_bytes(b"theirs")
                    return completed.dicts_of(*args)

                patch.setattr("rastermeta_async.stac.export.dicts_of", late)
            export(str(catalog), str(output), Rules())
        catalog.unlink()
        assert listed.exists() == theirs


def test_names_like_those_of_temporaries_lead_to_nothing_of_others(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated(), failed()])
    output, theirs = tmp_path / "items.parquet", tmp_path / "theirs"
    theirs.write_bytes(b"mine")
    for name in ("items.parquet", "items.parquet.left-out.txt", "items.parquet.table"):
        os.symlink(theirs, tmp_path / f"{name}.tmp")
        os.symlink(theirs, tmp_path / f"{name}.0123456789abcdef.tmp")
        (tmp_path / f"{name}.notes.tmp").write_bytes(b"mine")
    before = set(os.listdir(tmp_path))
    export(str(catalog), str(output), Rules())
    assert theirs.read_bytes() == b"mine"
    assert set(os.listdir(tmp_path)) - before == {"items.parquet", "items.parquet.left-out.txt"}
    assert before <= set(os.listdir(tmp_path))


def test_items_that_only_their_owner_may_read_stay_so(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated(), failed()])
    names = ["items.parquet", "items.parquet.left-out.txt", "items.parquet.collection.json"]
    for mode in (0o600, 0o640):
        export(str(catalog), str(tmp_path / names[0]), Rules(), "x")
        for name in names:
            os.chmod(tmp_path / name, mode)
        export(str(catalog), str(tmp_path / names[0]), Rules(), "x")
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in names} == {mode}


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    catalog = str(write_catalog(tmp_path / "catalog.parquet", [dated()]))
    before = Path(catalog).read_bytes()
    for output, error, reason in (
        (catalog, OutputError, "is a catalog"),
        (str(tmp_path / "items.csv"), SettingsError, "must end in one of .parquet"),
        ("s3://bucket/items.parquet", SettingsError, "a local file"),
        (str(tmp_path / "none" / "items.parquet"), WriteError, "No such file or directory"),
    ):
        with pytest.raises(error, match=reason):
            export(catalog, output, Rules())
    for name in ("a b", "a/b", "a\n", "a\x7f", ""):
        with pytest.raises(SettingsError, match="is no id"):
            export(catalog, str(tmp_path / "x.ndjson"), Rules(), name)
    assert Path(catalog).read_bytes() == before
    assert os.listdir(tmp_path) == ["catalog.parquet"]


TAKEN = {
    "items.ndjson": [b"mine", b'{"type": "Feature"}\n', b"[1]\n", b"[" * 100_000, b"\xff\n"],
    "items.parquet": [b"mine", b"", b"PAR1"],
    "items.ndjson.collection.json": [
        b"",
        b'{"type": "Catalog", "stac_version": "1.1.0"}',
        b'{"type": "Collection"}',
    ],
    "items.ndjson.left-out.txt": [b"", b"my notes\n", b"my\ttable of\tthree columns\n"],
}


@pytest.mark.parametrize(("name", "content"), [(k, v) for k, all_ in TAKEN.items() for v in all_])
def test_files_of_others_are_not_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    catalog = str(write_catalog(tmp_path / "catalog.parquet", [dated(), failed()]))
    output = str(tmp_path / re.sub(r"(?<=ndjson)\..*", "", name))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ForeignOutputError, match=r"; give --overwrite or another -o$"):
        export(catalog, output, Rules(), "x")
    assert (tmp_path / name).read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["catalog.parquet", name]
    if name.endswith(".collection.json"):  # without a collection it is not in the way
        export(catalog, output, Rules())
        assert (tmp_path / name).read_bytes() == content
    export(catalog, output, Rules(), "x", overwrite=True)
    export(catalog, output, Rules(), "x")  # all three are its own now
    assert len(read_items(Path(output))) == 1


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    catalog = str(write_catalog(tmp_path / "catalog.parquet", [dated()]))
    os.mkfifo(tmp_path / "items.ndjson")
    (tmp_path / "items.parquet").mkdir()
    for name, reason in (("items.ndjson", "is a named pipe"), ("items.parquet", "is a folder")):
        for overwrite in (False, True):
            with pytest.raises(ForeignOutputError, match=reason):
                export(catalog, str(tmp_path / name), Rules(), overwrite=overwrite)


def test_no_more_of_a_file_is_looked_at_than_an_export_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, output = write_catalog(tmp_path / "catalog.parquet", [dated()]), tmp_path / "x.ndjson"
    export(str(catalog), str(output), Rules(), "all")
    described = tmp_path / "x.ndjson.collection.json"
    sizes = [at.stat().st_size for at in (output, described)]
    for most, refused in ((min(sizes) - 2, True), (max(sizes), False)):
        monkeypatch.setattr(exporting, "_MOST_BYTES", most)
        for check, at in ((exporting.check_items, output), (exporting.check_collection, described)):
            with pytest.raises(ForeignOutputError) if refused else contextlib.nullcontext():
                check(str(at))


def test_a_catalog_is_not_replaced_whatever_leave_is_given(tmp_path: Path) -> None:
    """Also one that is not finished yet."""
    catalog = str(write_catalog(tmp_path / "catalog.parquet", [dated()]))
    for name in ("other.parquet", "other.ndjson"):
        (tmp_path / f"{name}.checkpoint").touch()
        with pytest.raises(OutputError, match="is a catalog: give the output another name"):
            export(catalog, str(tmp_path / name), Rules(), overwrite=True)
        assert not (tmp_path / name).exists()


def test_a_catalog_without_its_log_is_not_replaced(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated()])
    other = write_catalog(tmp_path / "other.parquet", [dated()])
    asked = ["export", "stac", str(catalog), "-o", str(other)]
    done = command.run(asked)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"rastermeta: {other} exists and holds no STAC items; give --overwrite or another -o\n"
    )
    assert other.read_bytes() == catalog.read_bytes()
    assert command.run([*asked, "--overwrite"]).returncode == 0


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "content", "status", "reason"),
    [
        ("none.parquet", None, 1, "there is no finished catalog of this name"),
        ("odd.csv", b"x", 2, "the name of a catalog ends in one of"),
        ("odd.parquet", b"PAR1 no", 1, "cannot be read"),
        ("odd.ndjson", b'{"filepath": 1}\n', 1, "line 1 is no row of a catalog"),
        ("odd.json", b"[\nnone\n]\n", 1, "line 2 is no row of a catalog"),
        ("odd.jsonl", b"\xff\n", 1, "is no row"),
    ],
)
@pytest.mark.parametrize("asked", [["summary"], ["export", "stac", "-o", "x.ndjson"]])
def test_catalogs_that_are_none(
    tmp_path: Path, asked: list[str], name: str, content: bytes | None, status: int, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = command.run([*asked, tmp_path / name])
    assert done.returncode == status
    assert reason in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1, "a sentence, no traceback"
    assert leftovers(tmp_path) == []


def test_a_catalog_of_others_and_one_in_the_making(tmp_path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(
        tmp_path / "foreign.parquet"
    )
    done = command.run(["summary", tmp_path / "foreign.parquet"])
    assert (done.returncode, b"was not made by rastermeta" in done.stderr) == (1, True)
    (tmp_path / "new.parquet.checkpoint").touch()
    done = command.run(["summary", tmp_path / "new.parquet"])
    assert b"rastermeta status" in done.stderr


# Dates, from the files on.

IMD = """version = "R";
BEGIN_GROUP = IMAGE_1
\tsatId = "WV02";
\tcloudCover = 0.05;
\tfirstLineTime = 2020-01-31T12:34:56.789012Z;
END_GROUP = IMAGE_1
END;
"""
MTL = """GROUP = L1_METADATA_FILE
  GROUP = PRODUCT_METADATA
    SPACECRAFT_ID = "LANDSAT_8"
    DATE_ACQUIRED = 2020-01-31
    {}
  END_GROUP = PRODUCT_METADATA
END_GROUP = L1_METADATA_FILE
END
"""
DIMAP = """<?xml version="1.0"?>
<Dimap_Document><Metadata_Identification/><Dataset_Sources><Source_Identification><Strip_Source>
<MISSION>PHR</MISSION><MISSION_INDEX>1A</MISSION_INDEX><IMAGING_DATE>2020-01-31</IMAGING_DATE>
<IMAGING_TIME>12:34:56.7Z</IMAGING_TIME>
</Strip_Source></Source_Identification></Dataset_Sources></Dimap_Document>
"""
GEO_EYE = """==========
Source Image Metadata
Sensor: IKONOS-2
Acquisition Date/Time: 2020-01-31 12:34 GMT
Percent Cloud Cover: 3
"""
RAPID_EYE = """<?xml version="1.0"?>
<re:EarthObservation><gml:using><eop:EarthObservationEquipment>
<eop:acquisitionParameters><re:Acquisition>
<re:acquisitionDateTime>2020-01-31T12:34:56.789012Z</re:acquisitionDateTime>
</re:Acquisition></eop:acquisitionParameters>
</eop:EarthObservationEquipment></gml:using></re:EarthObservation>
"""
WRITTEN = "2022:02:02 02:02:02"
SCENES = {
    "dg/a.tif": ("a.IMD", IMD, "2020-01-31T12:34:56.000000Z"),
    "landsat/LE07_B1.TIF": (
        "LE07_MTL.txt",
        MTL.format("SCENE_CENTER_TIME = 12:34:56.1234567Z"),
        "2020-01-31T12:34:56.000000Z",
    ),
    "landsat-day/LE07_B1.TIF": ("LE07_MTL.txt", MTL.format(""), "2020-01-31T00:00:00.000000Z"),
    # GDAL takes no quotes, and says 1970-01-01 then.
    "landsat-8/LC08_B1.TIF": (
        "LC08_MTL.txt",
        MTL.format('SCENE_CENTER_TIME = "12:34:56Z"'),
        "2022-02-02T02:02:02.000000Z",
    ),
    "pleiades/IMG_PHR1A_P_001_R1C1.TIF": (
        "DIM_PHR1A_P_001.XML",
        DIMAP,
        "2020-01-31T12:34:56.000000Z",
    ),
    "geoeye/po_1_pan_0000000.tif": ("po_1_metadata.txt", GEO_EYE, "2020-01-31T12:34:00.000000Z"),
    "rapideye/x_RE1.tif": ("x_RE1_metadata.xml", RAPID_EYE, "2020-01-31T12:34:56.000000Z"),
}  # fmt: skip
"""A scene, its file of metadata, what that says, and the date that it tells."""


def test_a_scene_is_of_the_time_that_its_product_tells(tmp_path: Path) -> None:
    """Not of the time when its file was written; as GDAL reads product metadata beside it."""
    for name, (beside, text, _) in SCENES.items():
        path = tmp_path / "scenes" / name
        path.parent.mkdir(parents=True)
        command.write_raster(path)
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(TIFFTAG_DATETIME=WRITTEN)
        (path.parent / beside).write_text(text)
    catalog, output = tmp_path / "catalog.parquet", tmp_path / "items.ndjson"
    command.run(["extract", tmp_path / "scenes", "--suffix", ".tif", "-o", catalog])
    for row in command.rows_of(catalog):
        with rasterio.open(row["filepath"]) as dataset:
            assert tags_of(row["imagery_tags"]) == dataset.tags(ns="IMAGERY") != {}
    export(str(catalog), str(output), Rules())
    items = {
        item["assets"]["data"]["href"].partition("/scenes/")[2]: item["properties"]
        for item in read_items(output)
    }
    starts = {name: time["datetime"] or time["start_datetime"] for name, time in items.items()}
    assert starts == {name: date for name, (_, _, date) in SCENES.items()}
    assert items["landsat-day/LE07_B1.TIF"]["end_datetime"] == "2020-01-31T23:59:59.999999Z"
    found = summary_of(str(catalog))
    assert (found.dated, found.time and str(found.time.start)) == (
        len(SCENES), "2020-01-31 00:00:00+00:00",
    )  # fmt: skip


def exported(folder: Path, records: Sequence[Record], *rules: str) -> tuple[int, int, str]:
    """Return the exit status of an export by rules, the number of items, and what it says."""
    catalog = write_catalog(folder / "catalog.parquet", records)
    given = [part for rule in rules for part in ("--datetime", rule)]
    output = str(folder / "items.ndjson")
    done = CliRunner().invoke(app, ["export", "stac", str(catalog), "-o", output, *given])
    return done.exit_code, len(read_items(Path(output))), done.stderr


def test_several_rules_are_tried_in_order(tmp_path: Path) -> None:
    mine = dated(b"/1.tif", dataset_tags={"MINE": "2020-01-01"})
    rows = [mine, dated(b"/2_20200102.tif", dataset_tags={}), dated(b"/3.tif")]
    assert exported(tmp_path, rows, "MINE", "%Y%m%d", "auto") == (0, 3, "")
    status, items, said = exported(tmp_path, rows, "MINE", "%Y%m%d")
    assert (status, items) == (0, 2), "auto is to be asked for"
    assert "1 row was left out: nothing tells its date; name what does with --datetime\n" in said


def test_a_collection_of_an_earlier_export_is_said_to_stay(tmp_path: Path) -> None:
    (tmp_path / "items.ndjson.collection.json").write_text("{}")
    *_, said = exported(tmp_path, [dated()])
    assert "items.ndjson.collection.json is of an earlier export and stays as it was\n" in said


def test_a_rule_that_dates_nothing_is_said(tmp_path: Path) -> None:
    status, items, said = exported(tmp_path, [dated(), failed()], "NOTAG")
    assert (status, items) == (3, 0)
    tag = "--datetime NOTAG dates none of the rows that it was asked about: is it spelt as in"
    assert tag in said
    status, items, said = exported(tmp_path, [dated()], "NOTAG", "no-%Y", "auto")
    assert (status, items) == (3, 1)
    assert tag in said
    assert "--datetime no-%Y dates none of the rows that it was asked about: does it fit" in said


def test_a_rule_that_is_not_needed_is_not_missed(tmp_path: Path) -> None:
    assert exported(tmp_path, [dated()], "auto", "NOTAG") == (0, 1, "")
    assert exported(tmp_path, [], "NOTAG") == (0, 0, "")
    status, items, said = exported(tmp_path, [record()])
    assert (status, items) == (3, 0), "no item is made of any row"
    assert "with --datetime" in said


@pytest.mark.campaign
@pytest.mark.parametrize("rule", ["(unclosed", "no%Qsuch", "A/B/C"])
def test_a_bad_rule_is_wrong_usage(catalog: Path, rule: str) -> None:
    done = command.run(["export", "stac", catalog, "-o", "x.ndjson", "--datetime", rule])
    assert done.returncode == 2
    assert b"--datetime" in done.stderr


def test_without_the_extra_a_message_says_what_to_install(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [dated()])
    (tmp_path / "stac_geoparquet").mkdir()
    (tmp_path / "stac_geoparquet" / "__init__.py").write_text("raise ImportError")
    for name, status, message in (
        ("items.parquet", 1, "pip install '.[stac]'"), ("items.ndjson", 0, ""),
    ):  # fmt: skip
        done = command.run(["export", "stac", catalog, "-o", tmp_path / name],
                           PYTHONPATH=str(tmp_path))  # fmt: skip
        assert done.returncode == status, done.stderr
        assert message in done.stderr.decode()
    assert not (tmp_path / "items.parquet").exists()
