"""Catalogs as CSV, GeoJSON, FlatGeobuf and GeoPackage, as other libraries read them."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from factory import MODIFIED, band, failed, record

from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.json_rows import encoder, to_lines
from rastermeta_async.cli.exports import TABLES
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.gis import tables
from rastermeta_async.gis.conditions import Condition
from rastermeta_async.gis.tables import FORMS, Table, export_table
from rastermeta_async.model.errors import (
    ForeignOutputError,
    OutputError,
    OutputLockedError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.record import SCHEMA, BBox, Record
from rastermeta_async.model.settings import JsonTags

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

ENDINGS = {
    "csv": "csv",
    "ndjson": "ndjson",
    "geojson": "geojson",
    "flatgeobuf": "fgb",
    "gpkg": "gpkg",
}
ACROSS = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
EVIL = 'quote " comma, line\nbreak \x1b[31m ; \x01 ä 漢 \U0001f600'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_rows() -> list[Record]:
    return [
        record(b"/a.tif", dataset_tags={"TITLE": EVIL, "EMPTY": ""}),
        record(b"/b.tif", bands=[band(nodata=math.inf), band(description=EVIL)], count=2),
        failed(b"/bad \xff\xfe.tif"),
        record(b"/no.png", status="no_georef", crs=None, proj_code=None, mtime=None, etag=""),
        record(EVIL.encode()),
    ]


def write_catalog(records: Sequence[Record], name: str = "catalog.parquet") -> str:
    batch = rows_with_footprints(records)
    with open(name, "wb") as file:
        format_of(name).write(file, [pa.Table.from_batches([batch])] if records else [])
    return name


def rows_in(records: Sequence[Record]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows_with_footprints(records).to_pylist()
    return found


def exported(
    form: str, records: Sequence[Record], columns: Sequence[str] | None = None, **how: Any
) -> str:
    output = f"table.{ENDINGS[form]}"
    tags = how.pop("json_tags", JsonTags.MAP)
    table = Table(form, write_catalog(records), columns, how.pop("where", None), tags)
    done = export_table(table, output, **how)
    assert done.rows + done.unplaced == table.rows
    assert sorted(os.listdir()) == ["catalog.parquet", output]
    return output


as_json = encoder(pa.struct(list(SCHEMA)))
"""Returns the JSON form of a row."""


def test_every_form_has_a_command() -> None:
    assert set(TABLES) == set(FORMS) == set(ENDINGS)


def test_json_lines_are_those_of_a_catalog() -> None:
    records = [*some_rows(), record(b"/nan.tif", nodata=math.nan)]
    with open(exported("ndjson", records), encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines == list(to_lines(rows_with_footprints(records)))


@pytest.mark.parametrize("form", ["ndjson", "geojson"])
def test_tags_are_lists_of_keys_and_values_on_request(form: str) -> None:
    tags = {"TITLE": EVIL, "title": "b"}
    records = [
        record(b"/a.tif", dataset_tags=tags, band_tags={2: {"K": "1"}, 3: tags}),
        failed(b"/b.tif"),
    ]
    columns = ["dataset_tags", "band_tags", "imagery_tags"]
    with open(exported(form, records, columns, json_tags=JsonTags.LIST), encoding="utf-8") as file:
        text = file.read()
    if form == "geojson":
        found = [feature["properties"] for feature in json.loads(text)["features"]]
    else:
        found = list(map(json.loads, text.splitlines()))
    assert found == [{name: row[name] for name in columns} for row in rows_in(records)]
    assert found[0]["band_tags"][0] == {"band": 2, "key": "K", "value": "1"}


def test_csv_has_every_value() -> None:
    records = [*some_rows(), record(b"/nan.tif", nodata=math.nan)]
    rows = rows_in(records)
    with open(exported("csv", records), encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == SCHEMA.names
    assert len(found) == len(rows)
    for row, texts in zip(rows, found, strict=True):
        told = as_json(row)
        for name, value in row.items():
            kind, text = SCHEMA.field(name).type, texts[name]
            if value is None:
                assert text == ""
            elif name == "geometry":
                assert shapely.from_wkt(text).equals_exact(shapely.from_wkb(value), 0)
            elif pa.types.is_nested(kind):
                assert json.loads(text, parse_constant=pytest.fail) == told[name]
            elif pa.types.is_floating(kind):
                assert repr(float(text)) == repr(value)
            elif pa.types.is_timestamp(kind):
                assert dt.datetime.fromisoformat(text) == value
            elif pa.types.is_boolean(kind):
                assert text == str(value).lower()
            else:
                assert text == str(told[name])
    assert found[0]["mtime"] == "2024-02-29T12:30:15.123456Z"
    assert (found[2]["filepath"], found[2]["filepath_bytes"]) == (
        r"/bad \xff\xfe.tif", "L2JhZCD//i50aWY=",
    )  # fmt: skip


def test_csv_is_read_by_duckdb() -> None:
    name = exported("csv", some_rows())
    asked = f"select filepath, mtime, etag, bands->>'$[0].dtype', geometry from read_csv('{name}')"
    answers = duckdb.execute(asked).fetchall()
    assert [row[0] for row in answers] == [row["filepath"] for row in rows_in(some_rows())]
    assert answers[0][1].astimezone(dt.UTC) == MODIFIED
    assert (answers[0][3], answers[2][3]) == ("uint8", None)


def test_geojson_is_strict_and_whole() -> None:
    rows = rows_in(some_rows())
    text = Path(exported("geojson", some_rows())).read_bytes()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["type"] == "FeatureCollection"
    for row, feature in zip(rows, found["features"], strict=True):
        assert feature["type"] == "Feature"
        shape = row["geometry"]
        if shape is None:
            assert feature["geometry"] is None
        else:
            made = shapely.geometry.shape(feature["geometry"])
            assert made.equals_exact(shapely.from_wkb(shape), 0)
            assert made.exterior.is_ccw
        told = as_json(row)
        told.pop("geometry")
        assert feature["properties"] == told


@pytest.mark.parametrize("form", ["geojson", "flatgeobuf", "gpkg"])
def test_geopandas_reads_what_the_rows_say(form: str) -> None:
    rows = rows_in(some_rows())
    if form == "flatgeobuf":
        rows = [row for row in rows if row["geometry"]]
    found = geopandas.read_file(exported(form, some_rows()))
    assert found.crs in ("OGC:CRS84", "EPSG:4326")
    by_path = {row.filepath: row for row in found.itertuples()}
    assert len(by_path) == len(found) == len(rows)
    for row in rows:
        got = by_path[row["filepath"]]
        if row["geometry"]:
            assert got.geometry.equals_exact(shapely.from_wkb(row["geometry"]), 0)
        else:
            assert got.geometry is None
        assert got.status == row["status"]
        for name in ("bands", "transform", "bbox", "dataset_tags", "band_tags"):
            value = getattr(got, name)
            value = json.loads(value) if isinstance(value, str) else value
            value = value.tolist() if isinstance(value, np.ndarray) else value
            assert value == as_json(row)[name] or (row[name] is None and value != value)


@pytest.mark.parametrize("form", ["flatgeobuf", "gpkg"])
def test_layers_have_types_and_an_index(form: str) -> None:
    name = exported(form, some_rows())
    info = pyogrio.read_info(name)
    types = dict(zip(info["fields"], info["dtypes"], strict=True))
    assert types["count"] == "int32"
    assert types["file_size"] == "int64"
    assert types["nodata"] == "float64"
    assert types["tiled"] == "bool"
    assert types["mtime"].startswith("datetime64")
    assert info["capabilities"]["fast_spatial_filter"]
    found = pyogrio.read_dataframe(name, where="filepath = '/a.tif'")
    assert found.mtime[0].astimezone(dt.UTC) == MODIFIED.replace(microsecond=123000)
    raw = pyogrio.raw.read_arrow(name)[1].to_pylist()
    paths = {row["filepath"]: row["filepath_bytes"] for row in raw}
    assert paths["/a.tif"] is None
    if form == "gpkg":
        assert paths[r"/bad \xff\xfe.tif"] == b"/bad \xff\xfe.tif"


def test_a_footprint_across_the_antimeridian_stays_in_two_parts() -> None:
    box = BBox(-180.0, 0.0, 180.0, 1.0)
    row = record()._replace(geometry=shapely.to_wkb(ACROSS, byte_order=1), bbox=box,
                            footprint="transform")  # fmt: skip
    from factory import table as rows_of

    for form in ("geojson", "flatgeobuf", "gpkg"):
        with open("catalog.parquet", "wb") as file:
            format_of("catalog.parquet").write(file, [rows_of([row])])
        output = f"across.{ENDINGS[form]}"
        export_table(Table(form, "catalog.parquet", ["filepath"], None), output)
        assert geopandas.read_file(output).geometry[0].equals_exact(ACROSS, 0)


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_chosen(form: str) -> None:
    name = exported(form, some_rows(), ["crs", "filepath", "crs"])
    if form == "csv":
        assert Path(name).read_text().splitlines()[0] == '"crs","filepath"'
    elif form == "ndjson":
        lines = Path(name).read_text().splitlines()
        assert {tuple(json.loads(line)) for line in lines} == {("crs", "filepath")}
    else:
        assert list(geopandas.read_file(name).columns) == ["crs", "filepath", "geometry"]


@pytest.mark.parametrize("form", FORMS)
def test_a_catalog_without_rows(form: str) -> None:
    name = exported(form, [], ["filepath"])
    if form == "csv":
        assert Path(name).read_text() == '"filepath"\n'
    elif form == "ndjson":
        assert Path(name).read_text() == ""
    elif form == "geojson":
        assert json.loads(Path(name).read_text()) == {"type": "FeatureCollection", "features": []}
    else:
        assert pyogrio.read_info(name, force_feature_count=True)["features"] == 0


@pytest.mark.parametrize("name", ["catalog.ndjson", "catalog.json"])
def test_catalogs_as_json_are_exported_too(name: str) -> None:
    catalog = write_catalog(some_rows(), name)
    assert export_table(Table("flatgeobuf", catalog, None, None), "table.fgb") == (3, 2)


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("status = 'error'", [r"/bad \xff\xfe.tif"]),
        ("STATUS <> 'error' AND count = 2 -- a comment", ["/b.tif"]),
        ("bands[2].description like 'quote%'", ["/b.tif"]),
        ("bbox.xmin < 180 and mtime >= '2024-02-29 12:30:15.123456' and count = 1",
         ["/a.tif", EVIL]),
        ("crs is null or geometry is null", [r"/bad \xff\xfe.tif", "/no.png"]),
        ("nodata = 255 and filepath < '/b'", ["/a.tif"]),
        ("null", []),
    ],
)  # fmt: skip
def test_rows_are_chosen(where: str, paths: list[str]) -> None:
    table = Table("csv", write_catalog(some_rows()), ["filepath"], where)
    found = [row["filepath"] for batch in table.batches() for row in batch.to_pylist()]
    assert found == paths
    assert table.rows == len(paths)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("crss = 'x'", 'column "crss" not found'),
        ("crs =", "syntax error"),
        ("true) union all (select 4", "syntax error"),
        ("true) limit (3", "syntax error"),
        ('driver = "GTiff"', "texts stand in single quotes"),
        ("count(*) > 1", "cannot contain aggregates"),
        ("cast(filepath as int) = 1", "Could not convert"),
        ("filepath in (select content from read_text('/etc/passwd'))", "Permission Error"),
        ("filepath in (select * from 'https://example.com/a.parquet')", "Permission Error"),
        ("exists (select 1 from table_of_mine)", "does not exist"),
        ("1=1); set enable_external_access = true; select (1", "syntax error"),
        (" ", "the expression is empty"),
        ("\0", "--where"),
    ],
)
def test_a_wrong_condition_is_named_and_nothing_written(where: str, message: str) -> None:
    table = Table("csv", write_catalog(some_rows()), ["filepath"], where)
    with pytest.raises(SettingsError, match="--where: ") as caught:
        export_table(table, "table.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir() == ["catalog.parquet"]


def test_a_condition_closes_its_database() -> None:
    with Condition("count = 1") as condition:
        assert condition.columns == ["count"]
    with pytest.raises(SettingsError, match="closed"):
        condition.kept(rows_with_footprints([record()]))


@pytest.mark.parametrize(
    ("form", "output", "error", "message"),
    [
        ("csv", "s3://bucket/table.csv", SettingsError, "local file"),
        ("gpkg", "table.fgb", SettingsError, "must end in .gpkg"),
        ("geojson", "table.txt", SettingsError, "must end in .geojson or .json"),
        ("geojson", "catalog.json", OutputError, "is a catalog"),
        ("csv", "table.csv", ForeignOutputError, "exists; give --overwrite"),
        ("csv", "link.csv", ForeignOutputError, "is a link"),
        ("csv", "nowhere/table.csv", WriteError, "writing failed: No such file"),
        ("gpkg", "nowhere/table.gpkg", WriteError, "writing failed: No such file"),
    ],
)
def test_outputs_that_cannot_be(
    here: Path, form: str, output: str, error: type[Exception], message: str
) -> None:
    catalog = write_catalog([record()], "catalog.json")
    (here / "table.csv").write_text("mine")
    (here / "link.csv").symlink_to("table.csv")
    with pytest.raises(error, match=message):
        export_table(Table(form, catalog, None, None), output)
    assert sorted(os.listdir()) == ["catalog.json", "link.csv", "table.csv"]
    assert (here / "table.csv").read_text() == "mine"


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_replaced_on_request_and_keeps_its_rights(here: Path, form: str) -> None:
    output = here / f"table.{ENDINGS[form]}"
    output.write_text("mine")
    output.chmod(0o640)
    exported(form, some_rows(), ["filepath"], overwrite=True)
    assert output.stat().st_mode & 0o777 == 0o640
    assert output.stat().st_size > 100


@pytest.mark.parametrize("form", FORMS)
def test_a_catalog_that_is_damaged_leaves_the_earlier_file(here: Path, form: str) -> None:
    lines = Path(write_catalog(some_rows(), "catalog.ndjson")).read_text().splitlines()
    Path("catalog.ndjson").write_text("\n".join([*lines * 100, "{}"]))
    output = here / f"table.{ENDINGS[form]}"
    output.write_text("mine")
    with pytest.raises(OutputError, match="line 501 is no row of a catalog"):
        export_table(Table(form, "catalog.ndjson", None, None), str(output), overwrite=True)
    assert output.read_text() == "mine"
    assert sorted(os.listdir()) == ["catalog.ndjson", output.name]


def test_two_exports_do_not_mix() -> None:
    from rastermeta_async.catalog.temporary import TemporaryFolder

    table = Table("gpkg", write_catalog([record()]), None, None)
    with TemporaryFolder("table.gpkg"), pytest.raises(OutputLockedError):
        export_table(table, "table.gpkg")


def test_a_large_flatgeobuf_has_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_INDEXED", 4)
    name = exported("flatgeobuf", some_rows())
    assert not pyogrio.read_info(name)["capabilities"]["fast_spatial_filter"]
    assert len(geopandas.read_file(name)) == 3


@pytest.mark.parametrize("form", ["csv", "ndjson", "geojson"])
def test_the_command_writes_to_standard_output(form: str) -> None:
    catalog = write_catalog(some_rows())
    piped = command.run(["export", form, catalog, "-o", "-"], PYTHONIOENCODING="latin-1")
    assert (piped.returncode, piped.stderr) == (0, b"")
    written = command.run(["export", form, catalog, "-o", f"table.{form}"])
    assert written.stdout == f"table.{form}: 5 rows\n".encode()
    assert piped.stdout == Path(f"table.{form}").read_bytes()


def test_the_command_refuses_what_cannot_be_streamed() -> None:
    done = command.run(["export", "gpkg", write_catalog([record()]), "-o", "-"])
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"give -o FILE.gpkg, or export csv, ndjson or geojson" in done.stderr
    done = command.run(["export", "csv", "catalog.parquet", "-o", "-", "--columns", "filepath,x"])
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--columns: a catalog has no column x; `rastermeta schema` lists" in done.stderr


def test_a_reader_that_goes_ends_it_quietly() -> None:
    write_catalog([record(b"/%06d.tif" % number) for number in range(3000)])
    done = command.in_shell('{ "$@"; echo $? >&2; } | head -n 1', "export", "csv",
                            "catalog.parquet", "-o", "-")  # fmt: skip
    assert done.stderr == b"141\n"
    assert done.stdout.startswith(b'"filepath",')


def test_the_rows_without_a_place_are_counted() -> None:
    done = command.run(["export", "flatgeobuf", write_catalog(some_rows()), "-o", "t.fgb"])
    assert done.stdout == b"t.fgb: 3 rows\n"
    assert b"2 rows were left out: a FlatGeobuf has rows with a place only" in done.stderr


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98])
def test_a_full_disk_leaves_nothing(form: str, share: float) -> None:
    records = [record(b"/%06d.tif" % number) for number in range(600)]
    name = exported(form, records, ["filepath"])
    size = Path(name).stat().st_size
    Path(name).unlink()
    table = Table(form, "catalog.parquet", ["filepath"], None)
    with command.no_file_above(int(size * share)), pytest.raises(WriteError) as caught:
        export_table(table, name)
    assert "What stood there before is as it was" in str(caught.value)
    assert os.listdir() == ["catalog.parquet"]
