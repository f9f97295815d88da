"""STAC items in pgstac: the real PostgreSQL, PostGIS and pypgstac take an export and search it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import command
import geopandas
import psycopg
import pytest
import sqlalchemy
from factory import band, failed
from items import write_catalog
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods
from test_readme import marked
from test_remote import free_port
from test_stac import PATHS, WKT1, dated

from rastermeta_async.cli.sample import write_sample
from rastermeta_async.model.record import Record
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import export

PYPGSTAC = Path(sys.executable).parent / "pypgstac"


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL that has PostGIS; Debian has it off the PATH."""
    found = Path("/usr/share/postgresql").glob("*/extension/postgis.control")
    versions = sorted((at.parts[4] for at in found), key=int)
    return Path("/usr/lib/postgresql", versions[-1], "bin") if versions else None


POSTGRES = programs()
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        not POSTGRES,
        reason="there is no PostgreSQL with PostGIS (apt-get install postgresql-postgis)",
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A server with the database pgstac, which is migrated and empty; the environment names it."""
    # Not below the tests' own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PG")]:
            patch.delenv(name)
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(free_port()), "PGUSER": "postgres",
                 "PGOPTIONS": "-c search_path=pgstac,public"}  # fmt: skip
        for name, value in where.items():
            patch.setenv(name, value)
        with running(Path(folder), where["PGPORT"]):
            with psycopg.connect(dbname="postgres", autocommit=True) as connection:
                connection.execute("create database pgstac")
            run("pgstac", [PYPGSTAC, "migrate"])
            yield


@contextmanager
def running(folder: Path, port: str) -> Iterator[None]:
    """Run PostgreSQL on the loopback only, not as root, which it refuses."""
    assert POSTGRES
    user: dict[str, Any] = {}
    if not os.geteuid():
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres")
    data = folder / "data"
    made: list[str | Path] = [
        POSTGRES / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
        "--no-locale", "--no-sync",
    ]  # fmt: skip
    subprocess.run(made, cwd=folder, check=True, stdout=subprocess.DEVNULL, **user)
    started: list[str | Path] = [
        POSTGRES / "postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "", "-F",
    ]  # fmt: skip
    process = subprocess.Popen(started, cwd=folder, stderr=subprocess.DEVNULL, **user)
    try:
        wait_for(process)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)  # at once, and no shared memory is left
        process.wait(command.PATIENCE)


def wait_for(process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + command.PATIENCE
    while True:
        try:
            psycopg.connect(dbname="postgres").close()
        except psycopg.OperationalError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@contextmanager
def made_from(template: str, name: str) -> Iterator[str]:
    """Have a database of that name while it is needed."""
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(
            SQL("create database {} template {}").format(Identifier(name), Identifier(template))
        )
        try:
            yield name
        finally:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


@pytest.fixture
def database(server: None) -> Iterator[str]:
    """A database that is migrated and empty."""
    with made_from("pgstac", "work") as name:
        yield name


def run(database: str, arguments: Sequence[str | Path]) -> None:
    environment = os.environ | {"PGDATABASE": database}
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr)


def load(
    database: str, folder: Path, records: Sequence[Record], method: Methods = Methods.upsert
) -> dict[str, Any]:
    """Export records and load them; return the items of the file by id."""
    catalog, output = folder / "catalog.parquet", folder / "items.ndjson"
    write_catalog(catalog, records)
    done = export(str(catalog), str(output), Rules(), "archive")
    assert done.items == len(records)
    with PgstacDB(f"dbname={database}") as connected:  # as the command does, which takes a second
        loader = Loader(connected)
        loader.load_collections(f"{output}.collection.json", Methods.upsert)
        loader.load_items(str(output), method)
    items = map(json.loads, output.read_text().split("\n")[:-1])
    return {item["id"]: item for item in items}


def ask(database: str, question: str, *values: Any) -> Any:
    """Return the rows that answer a question."""
    with psycopg.connect(dbname=database) as connection:
        return connection.execute(question, values).fetchall()


def test_geopandas_writes_a_catalog_into_postgis(database: str, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    write_catalog(catalog, [*PLACES, tagged("tagged", DATE_ACQUIRED="2021-06"), failed()])
    rasters = geopandas.read_parquet(catalog)
    plain = rasters[["filepath", "status", "width", "mtime", "geometry"]]
    engine = sqlalchemy.create_engine(f"postgresql+psycopg:///{database}")
    plain.to_postgis("rasters", engine, schema="public")
    srids = "select distinct st_srid(geometry) from public.rasters where geometry is not null"
    assert ask(database, srids) == [(4326,)]
    table = "select * from public.rasters"
    found = geopandas.read_postgis(table, engine, geom_col="geometry")
    assert found.crs.to_epsg() == 4326
    assert sorted(found["filepath"]) == sorted(plain["filepath"])
    assert found.geometry.geom_equals(plain.geometry).sum() == plain.geometry.notna().sum()
    engine.dispose()


def search(database: str, **query: Any) -> list[dict[str, Any]]:
    """Return the items that a search finds."""
    asked = Jsonb({"limit": 1000, "filter-lang": "cql2-json"} | query)
    ((found,),) = ask(database, "select search(%s)", asked)
    features: list[dict[str, Any]] = found["features"]
    return features


def names(items: Sequence[dict[str, Any]]) -> str:
    """Return the names of the items' files, sorted, without their suffix."""
    return " ".join(sorted(item["id"].rpartition("-")[0] for item in items))


def placed(name: str, west: float, south: float = -11.0, **fields: Any) -> Record:
    """Return the record of a raster of 3 by 1 degrees."""
    return dated(
        f"/data/{name}.tif".encode(), crs="EPSG:4326", proj_code="EPSG:4326", width=30, height=10,
        transform=(west, 0.1, 0.0, south + 1, 0.0, -0.1), **fields,
    )  # fmt: skip


def tagged(name: str, **tags: str) -> Record:
    return placed(name, 10.0, 50.0, dataset_tags=tags)


PLACES = [placed("over", 179.0), placed("west", 172.0), placed("east", -175.0), placed("zero", 0.0)]
TIMES = [
    tagged("second", ACQUISITIONDATETIME="2021-06-01T12:00:00Z"),
    tagged("half", ACQUISITIONDATETIME="2021-06-01T12:00:00.5Z"),
    tagged("month", DATE_ACQUIRED="2021-06"),
    tagged("years", TIME_COVERAGE_START="1999-01-01", TIME_COVERAGE_END="2021-06-15"),
]
BANDS = [
    band(nodata=math.nan), band(nodata=math.inf), band(nodata=-math.inf),
    band(nodata=-1.7976931348623157e308), band(nodata=-3.4028234663852886e38),
    band(nodata=5e-324, scale=0.1, offset=-1e-300),
    band(nodata=2.0**64, nodata_text=str(2**64 - 1), dtype="uint64"),
    band(description="C:\\x\\temp \"q\\\" \\u0041 \n\t\x1b\x7f\u2028\x85\ufffe", unit="µm 地図 😀"),
    band(description="a\0b", unit="𒍟※"),
]  # fmt: skip
OTHERS = [
    dated(b"/data/bands.tif", bands=BANDS, count=len(BANDS)),
    dated(b"/data/mine.tif", crs=WKT1, proj_code=None, crs_wkt=WKT1),
    *map(dated, PATHS),
]


@pytest.fixture(scope="module")
def loaded(
    server: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A database with items of many kinds, for searches only, and the items as exported."""
    with made_from("pgstac", "loaded") as name:
        folder = tmp_path_factory.mktemp("loaded")
        yield name, load(name, folder, [*PLACES, *TIMES, *OTHERS])


Loaded = tuple[str, dict[str, Any]]


@pytest.mark.timeout(300)  # pypgstac takes seconds to start
def test_the_lines_of_the_help_load_a_catalog(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the items are loaded once more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{PYPGSTAC.parent}{os.pathsep}{os.environ['PATH']}")
    write_sample("archive")
    command.run(["extract", "archive", "-o", "catalog.parquet"])
    lines = marked("pgstac").splitlines()
    for line in [*lines, lines[-1]]:
        run(database, ["bash", "-c", line])
    items = [json.loads(line) for line in Path("items.ndjson").read_text().splitlines()]
    found = search(database, collections=["archive"])
    assert len(found) == len(items) == 12
    assert {item["id"] for item in found} == {item["id"] for item in items}


def test_items_come_back_as_they_were_exported(loaded: Loaded) -> None:
    """But for null fields, which pgstac leaves out."""
    database, items = loaded
    found = {item["id"]: item for item in search(database)}
    assert found.keys() == items.keys()
    for name, item in items.items():
        given = {field: value for field, value in item["properties"].items() if value is not None}
        assert found[name] == {**item, "properties": given}


def test_a_search_by_place_finds_items_on_both_sides_of_the_antimeridian(loaded: Loaded) -> None:
    database, _ = loaded
    halves = [[170, -20, 180, 0], [-180, -20, -170, 0]]
    assert names(search(database, bbox=halves[0])) == "over west"
    assert names(search(database, bbox=halves[1])) == "east over"
    both = {"type": "MultiPolygon", "coordinates": [
        [[[w, s], [e, s], [e, n], [w, n], [w, s]]] for w, s, e, n in halves
    ]}  # fmt: skip
    assert names(search(database, intersects=both)) == "east over west"
    crossing = {"op": "s_intersects", "args": [{"property": "geometry"}, both]}
    assert names(search(database, filter=crossing)) == "east over west"


def test_a_bbox_across_the_antimeridian_is_the_wrong_half_in_pgstac(loaded: Loaded) -> None:
    """As the help says; once it is the right one, the help can do without."""
    database, _ = loaded
    assert names(search(database, bbox=[170, -20, -170, 0])) == "zero"


@pytest.mark.parametrize(
    ("time", "found"),
    [
        ("2021-06-01T12:00:00Z", "month second years"),
        ("2021-06-01T12:00:00.25Z/2021-06-01T12:00:01Z", "half month years"),
        ("2021-06-30T23:59:59.5Z/..", "month"),
        ("../1999-06-01T00:00:00Z", "years"),
        ("../1998-12-31T23:59:59Z", ""),
    ],
)
def test_a_search_by_time(loaded: Loaded, time: str, found: str) -> None:
    database, _ = loaded
    assert names(search(database, datetime=time)) == found


def equal(name: str, value: Any) -> dict[str, Any]:
    return {"op": "=", "args": [{"property": name}, value]}


def test_a_search_by_cql2(loaded: Loaded) -> None:
    database, _ = loaded
    places = "east half month over second west years zero"
    assert names(search(database, filter=equal("proj:code", "EPSG:4326"))) == places
    assert names(search(database, filter=equal("proj:shape", [10, 30]))) == places
    west = {"op": "<", "args": [{"property": "datetime"}, {"timestamp": "2020-01-01T00:00:00Z"}]}
    assert names(search(database, filter={"op": "and", "args": [
        equal("assets.data.type", "image/tiff; application=geotiff; profile=cloud-optimized"), west,
    ]})) == "years"  # fmt: skip
    like = {"op": "like", "args": [{"property": "proj:wkt2"}, 'PROJCRS["mine"%']}
    assert names(search(database, filter=like)) == "mine"


def test_fields_of_bands_are_found_by_sql(loaded: Loaded) -> None:
    """By the question that the help has; CQL2 does not reach into a list."""
    database, _ = loaded
    assert search(database, filter=equal("assets.data.bands.0.data_type", "uint64")) == []
    question = marked("bands").replace("uint16", "uint64")
    assert [name.rpartition("-")[0] for (name,) in ask(database, question)] == ["bands"]
    question = marked("bands").replace("data_type", "raster:scale").replace('"uint16"', "0.1")
    assert [name.rpartition("-")[0] for (name,) in ask(database, question)] == ["bands"]


def extent(database: str) -> tuple[list[float], list[str]]:
    ((found,),) = ask(database, "select content->'extent' from collections where id = 'archive'")
    return found["spatial"]["bbox"][0], found["temporal"]["interval"][0]


def test_a_second_export_changes_what_has_changed(database: str, tmp_path: Path) -> None:
    same = placed("same", 0.0)
    first = load(database, tmp_path, [same, tagged("moves", DATE_ACQUIRED="2020-01-31"),
                                      placed("goes", 5.0)])  # fmt: skip
    later = [same, tagged("moves", DATE_ACQUIRED="2022-05-06"), placed("new", 20.0, -31.0)]
    second = load(database, tmp_path, later)
    found = {item["id"]: item for item in search(database)}
    assert names(list(found.values())) == "goes moves new same"
    assert len(first.keys() & second.keys()) == 2
    assert {name: found[name]["bbox"] for name in second} == {
        name: item["bbox"] for name, item in second.items()
    }
    assert names(search(database, datetime="2022-05-06T00:00:00Z/..")) == "moves"
    assert names(search(database, datetime="2020-01-31T20:00:00Z/2020-02-01T00:00:00Z")) == ""
    place, time = extent(database)
    assert place == pytest.approx([0, -31, 23, 51])
    assert time == ["2020-01-31T12:34:56.000000Z", "2022-05-06T23:59:59.999999Z"]
    with psycopg.connect(dbname=database) as connection:
        connection.execute(marked("pgstac-delete"))
    assert search(database) == []
    load(database, tmp_path, later)
    assert names(search(database)) == "moves new same"


def test_an_item_moves_between_partitions_once_it_is_deleted_first(
    database: str, tmp_path: Path
) -> None:
    """With upsert, pypgstac adds it a second time; the help says which method to take."""
    load(database, tmp_path, [tagged("a", DATE_ACQUIRED="2020-01-31")])
    with psycopg.connect(dbname=database) as connection:
        connection.execute("update collections set partition_trunc = 'year'")
    load(database, tmp_path, [tagged("a", DATE_ACQUIRED="2021-01-31")], Methods.delsert)
    (item,) = search(database)
    assert item["properties"]["start_datetime"][:4] == "2021"


def test_collections_are_found_on_both_sides_once_pgstac_has_made_their_extents(
    database: str, tmp_path: Path
) -> None:
    """A bounding box from west to east is the wrong half in pgstac."""
    load(database, tmp_path, PLACES[:3])
    question = "select collection_search(%s)->'collections'"
    near = Jsonb({"bbox": [-179, -20, -178, 0]})
    assert ask(database, question, near) == [([],)]
    with psycopg.connect(dbname=database) as connection:
        connection.execute("select update_collection_extents()")
    (((found,),),) = ask(database, question, near)
    assert found["id"] == "archive"
