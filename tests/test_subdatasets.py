"""Rows of subdatasets: each is what rasterio says of its name, below the row of its container."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sqlite3
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import rasterio
import rasterio.shutil
from command import killed_when, run
from factory import in_thread, record, records_of
from range_server import serving_apart
from test_cf_times import netcdf_with_times
from test_reader import CONTAINERS, columns_of, differences, write_numbers

from rastermeta_async import Settings, read_table
from rastermeta_async.catalog.completed import dicts_of
from rastermeta_async.cli.summary import summary_of
from rastermeta_async.model.file_state import record_time
from rastermeta_async.model.gdal_options import SAFE_DRIVERS, drivers_without
from rastermeta_async.model.record import Record, as_rows
from rastermeta_async.readers import part_rows as module
from rastermeta_async.readers.part_rows import PartsReader
from rastermeta_async.readers.router import make_reader
from rastermeta_async.readers.subdatasets import PartPath
from rastermeta_async.report.taken import FIRST_YEAR, months_of
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import export
from rastermeta_async.stac.links import Links
from rastermeta_async.stores.archive_names import subdataset_at

pytestmark = pytest.mark.filterwarnings("ignore:is_tiled will be removed:PendingDeprecationWarning")

WANTED = Settings(subdatasets=True)


def rows_of(*paths: Path | bytes | str, settings: Settings = WANTED) -> list[Record]:
    return records_of([read_table(paths, settings)])


def said_of(name: str) -> dict[str, Any]:
    """Return what rasterio says of a subdataset."""
    with warnings.catch_warnings(action="ignore"), rasterio.open(name) as dataset:
        columns = columns_of(dataset)
    if columns["driver"] == "GTiff":
        del columns["tiled"]  # only the bytes of a file's first image are looked at
    return columns


def assert_as_rasterio_says(rows: list[Record]) -> None:
    container, *parts = rows
    assert (container.member, container.subdataset) == (None, None)
    names = [part.subdataset for part in parts]
    assert names == sorted(container.subdatasets or ()) != []
    for row in parts:
        assert row.ok, row.error_message
        assert differences(row, said_of(row.subdataset or "")) == {}
        assert (row.filepath, row.file_size, row.mtime, row.reader) == (
            container.filepath, container.file_size, container.mtime, "rasterio",
        )  # fmt: skip


@pytest.fixture(params=CONTAINERS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def made(folder: Path, kind: str, name: str = "two") -> Path:
    path = folder / f"{name}.{kind}"
    CONTAINERS[kind](path, ("va", "vb"))
    return path


def test_each_subdataset_has_the_row_that_rasterio_gives_its_name(
    tmp_path: Path, kind: str
) -> None:
    rows = rows_of(made(tmp_path, kind))
    assert len(rows) == 3
    assert_as_rasterio_says(rows)


def test_without_the_option_there_is_one_row(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    (row,) = rows_of(path, settings=Settings())
    assert row == rows_of(path)[0]
    assert len(row.subdatasets or ()) == 2


@pytest.mark.parametrize("settings", [
    Settings(subdatasets=True, workers=1), Settings(subdatasets=True, reader="rasterio"),
    Settings(subdatasets=True, drivers=("HDF5", "netCDF", "GPKG", "GTiff")),
])  # fmt: skip
def test_rows_are_the_same_however_they_are_read(
    tmp_path: Path, settings: Settings, kind: str
) -> None:
    path = made(tmp_path, kind)
    assert rows_of(path, settings=settings) == rows_of(path)


@pytest.mark.parametrize("name", ["sp ace", "a:b", "é", "http:x", "NETCDF:x"])
def test_odd_names_of_files(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = made(tmp_path, kind, name)
    assert_as_rasterio_says(rows_of(path))
    assert_as_rasterio_says(rows_of(path.name))


def test_a_path_that_is_not_utf_8_names_no_subdatasets(tmp_path: Path, kind: str) -> None:
    path = bytes(tmp_path) + b"/\xff." + kind.encode()
    os.rename(made(tmp_path, kind), path)
    (container,) = rows_of(path)
    assert (container.filepath_bytes, container.subdatasets) == (path, [])
    assert "2 names left out" in (container.error_message or "")


@pytest.mark.parametrize("inner", ["h5", "gpkg", "tif"])
def test_a_container_in_an_archive(tmp_path: Path, inner: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(made(tmp_path, inner), f"in/two.{inner}")
        archive.write(write_numbers(tmp_path / "plain.tif", 1), "plain.tif")
    rows = rows_of(tmp_path / "a.zip")
    found = [row for row in rows if row.member == f"in/two.{inner}"]
    assert len(rows) == 4
    assert [row.subdataset for row in found] == [None, *sorted(found[0].subdatasets or ())]
    for row in found[1:]:
        assert differences(row, said_of(row.subdataset or "")) == {}
    assert len({(row.file_size, row.mtime) for row in rows}) == 1


def test_an_object_in_a_store(tmp_path: Path) -> None:
    with serving_apart(str(tmp_path)) as server:
        for kind in ("h5", "gpkg", "tif"):
            made(tmp_path, kind)
            urls = f"{server}/two.{kind}", f"{server}/two.{kind}?sig=hidden"
            for url in urls:
                rows = rows_of(url)
                assert [row.status in ("success", "no_georef") for row in rows] == [True] * 3, rows
                on_disk = rows_of(tmp_path / f"two.{kind}")
                for ours, theirs in zip(rows, on_disk, strict=True):
                    assert (ours.crs, ours.width, ours.band_tags, ours.bands) == (
                        theirs.crs, theirs.width, theirs.band_tags, theirs.bands
                    )  # fmt: skip
                    assert ours.etag == rows[0].etag
                assert "hidden" not in str(rows)


# Bounds


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_PARTS", 1, "there are more than 1"),
        ("MAX_PARTS_BYTES", 10, "the tags of those before have 0 MiB"),
    ],
)
def test_no_more_rows_than_a_limit_and_the_container_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    path = made(tmp_path, "gpkg")
    monkeypatch.setattr(module, limit, value)
    container, part = rows_of(path)
    assert (container.status, container.error_type) == ("success", "PartlyRead")
    assert container.error_message == f"subdatasets: 1 row left out, as {message}"
    assert part.subdataset == (container.subdatasets or [])[0]


def test_no_more_time_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUTS", 0)
    (container,) = rows_of(made(tmp_path, "gpkg"))
    assert container.error_message == (
        "subdatasets: 2 rows left out, as those before took more than 0 s"
    )


def test_a_timeout_holds_for_each_subdataset(tmp_path: Path) -> None:
    """Ten that take half a timeout each are all read."""
    names = [f"part{number}" for number in range(10)]
    container = record(bytes(tmp_path / "x"), subdatasets=names)

    class Slow:
        def enter(self) -> None: ...

        def read(self, path: bytes) -> Record:
            if isinstance(path, PartPath):
                threading.Event().wait(0.05)
                return record(path, width=7)
            status = os.stat(path)
            return container._replace(file_size=status.st_size, mtime=record_time(status))

    (tmp_path / "x").touch()
    rows = as_rows(in_thread(PartsReader(Slow(), Slow().read, 0.1).read, bytes(tmp_path / "x")))
    assert [row.subdataset for row in rows] == [None, *names]


# Bad ones


def test_a_subdataset_that_does_not_open_is_an_error_row_and_the_others_stay(
    tmp_path: Path,
) -> None:
    path = made(tmp_path, "gpkg")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_tile_matrix SET tile_width = 0 WHERE table_name = 'vb'")
    database.close()
    container, good, bad = rows_of(path)
    assert (container.status, good.status) == ("success", "success")
    assert (bad.status, bad.error_type) == ("error", "RasterioIOError")
    assert bad.subdataset == f"GPKG:{path}:vb"
    assert (bad.file_size, bad.mtime) == (container.file_size, container.mtime)


def test_a_file_that_names_others_as_its_own_gets_none_of_their_rows(tmp_path: Path) -> None:
    other, path = write_numbers(tmp_path / "other.tif", 1), tmp_path / "a.tif"
    write_numbers(path, 2)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(
            ns="SUBDATASETS", SUBDATASET_1_NAME=str(other), SUBDATASET_1_DESC="x",
            SUBDATASET_2_NAME=f"GTIFF_DIR:1:{path}", SUBDATASET_2_DESC="y",
        )  # fmt: skip
    rows = {row.subdataset: row for row in rows_of(path)}
    assert set(rows) == {None, str(other), f"GTIFF_DIR:1:{path}"}
    assert rows[str(other)].error_type == "NotAPart"
    assert rows[f"GTIFF_DIR:1:{path}"].status == "success"


def test_a_file_that_changes_meanwhile_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    reads: list[bytes] = []

    class Files:
        def enter(self) -> None: ...

        def read(self, name: bytes) -> Record:
            reads.append(name)
            if isinstance(name, PartPath):
                if len(reads) == 2:
                    path.write_bytes(b"other")
                return record(name)
            status = os.stat(name)
            return record(name, subdatasets=["a"], file_size=status.st_size,
                          mtime=record_time(status))  # fmt: skip

    rows = as_rows(in_thread(PartsReader(Files(), Files().read, 60).read, bytes(path)))
    assert len(reads) == 4
    assert {row.file_size for row in rows} == {5}

    class Always(Files):
        def read(self, name: bytes) -> Record:
            found = super().read(name)
            with path.open("ab") as file:
                file.write(b"x")
            return found

    (row,) = as_rows(in_thread(PartsReader(Always(), Always().read, 60).read, bytes(path)))
    assert (row.status, row.error_type) == ("fatal", "Changed")


# Runs and views


def archive_of(folder: Path, count: int) -> list[Path]:
    paths = []
    first = {kind: made(folder, kind, "first") for kind in ("nc", "gpkg", "tif")}
    for number in range(count):
        for kind, path in first.items():
            copy = folder / f"{number:03}.{kind}"
            shutil.copy(path, copy)
            paths.append(copy)
        paths.append(write_numbers(folder / f"plain{number}.tif", 1))
    for path in first.values():
        path.unlink()
    (folder / "parts.tif").unlink()
    return paths


def test_a_killed_run_resumes_with_all_rows_of_each_container(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    paths = archive_of(tmp_path / "archive", 8)
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    common: list[str | Path] = ["extract", tmp_path / "archive", "--subdatasets"]
    common += ["--batch-size", "4", "--workers"]
    assert run([*common, "1", "-o", whole]).returncode == 0
    parts = tmp_path / "cut.parquet.parts"
    assert killed_when(
        lambda: parts.is_dir() and len(list(parts.glob("*.parquet"))) >= 3,
        [*common, "1", "-o", cut],
    )
    assert run([*common, "0", "-o", cut]).returncode == 0
    columns = ["filepath", "subdataset", "crs", "width", "band_tags"]
    rows = list(dicts_of(str(cut), columns))
    assert rows == list(dicts_of(str(whole), columns))
    assert len(rows) == 8 * (3 * 3 + 1)
    assert {row["filepath"] for row in rows} == {str(path) for path in paths}


def test_summary_and_items_tell_subdatasets_apart(tmp_path: Path) -> None:
    catalog = tmp_path / "c.parquet"
    path = made(tmp_path, "gpkg", "20240102")
    done = run(["extract", path, "--subdatasets", "-o", catalog])
    assert done.returncode == 0, done.stderr
    found = summary_of(str(catalog))
    assert (found.rows, found.bytes) == (3, path.stat().st_size)
    output = tmp_path / "items.ndjson"
    assert export(str(catalog), str(output), Rules(["%Y%m%d"])).items == 2
    items = [json.loads(line) for line in output.read_text().splitlines()]
    assert len({item["id"] for item in items}) == 2
    assert {item["assets"]["data"]["href"] for item in items} == {
        f"GPKG:{path}:va", f"GPKG:{path}:vb",
    }  # fmt: skip


def test_tile_indexes_name_the_subdataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "nc")
    assert run(["extract", "two.nc", "--subdatasets", "-o", "c.parquet"]).returncode == 0
    done = run(["export", "gti", "c.parquet", "-o", "gis"])
    assert done.returncode == 0, done.stderr
    (index,) = (tmp_path / "gis").iterdir()
    monkeypatch.chdir("/")
    with rasterio.open(index) as mosaic:
        assert (mosaic.driver, mosaic.read(1).max()) == ("GTI", 2)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("netcdf:a.nc:v", "a.nc", "netcdf:/w/a.nc:v"),
        ('HDF5:"./a:b.h5"://v', "a:b.h5", 'HDF5:"/w/a:b.h5"://v'),
        ("GTIFF_DIR:2:a.tif", "a.tif", "GTIFF_DIR:2:/w/a.tif"),
        ("netcdf:n:n", "n", "netcdf:/w/n:n"),
        ('HDF5:"/vsizip/{a.zip}/x.h5"://v', "a.zip", 'HDF5:"/vsizip/{/w/a.zip}/x.h5"://v'),
        ("other.tif", "a.tif", "other.tif"),
    ],
)
def test_the_name_of_a_subdataset_at_another_place(name: str, path: str, expected: str) -> None:
    assert subdataset_at(name, path, f"/w/{path}") == expected


def test_links_to_subdatasets_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Links().subdataset(b"a.nc", "netcdf:a.nc:v") == f"netcdf:{tmp_path}/a.nc:v"
    assert Links("file:///mnt").subdataset(b"/a.nc", "netcdf:/a.nc:v") == "netcdf:/mnt/a.nc:v"
    url = 'HDF5:"/vsis3/b/k.h5"://v'
    assert Links().subdataset(b"s3://b/k.h5", url) == url


def test_a_driver_may_be_left_out(tmp_path: Path) -> None:
    path = made(tmp_path, "gpkg")
    assert "GRIB" in SAFE_DRIVERS
    assert {*SAFE_DRIVERS} - {*drivers_without(["grib", "netCDF"])} == {"GRIB", "netCDF"}
    assert run(["show", path, "--drivers", "-GRIB,-netCDF"]).returncode == 0
    assert run(["show", path, "--drivers", "-gpkg"]).returncode == 3
    for wrong in ("-GRIB,GTiff", "-NoSuch"):
        done = run(["show", path, "--drivers", wrong])
        assert done.returncode == 2
        assert b"--drivers" in done.stderr


# Times, and how they are used


def test_a_netcdf_container_is_open_while_its_variables_are_read(tmp_path: Path) -> None:
    def is_open() -> bool:
        files = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return str(path) in [os.readlink(file) for file in files if os.path.lexists(file)]

    path = made(tmp_path, "nc")
    reader = make_reader(None)
    with reader.environment():
        for driver, held in (("netCDF", True), ("GPKG", False)):
            with reader.holding(bytes(path), driver):
                assert is_open() is held
            assert not is_open()
        with reader.holding(bytes(tmp_path / "gone.nc"), "netCDF"):  # its rows say so
            pass


def test_a_time_coordinate_dates_items_summaries_and_reports(tmp_path: Path) -> None:
    for name, values in (("a", "{0,1,2}"), ("b", "{31,31,31}")):
        (tmp_path / name).mkdir()
        made_by = netcdf_with_times(tmp_path / name, "NC4", values, "days since 2020-01-01")
        made_by.rename(tmp_path / f"{name}.nc")
    catalog = tmp_path / "c.parquet"
    files = [tmp_path / "a.nc", tmp_path / "b.nc"]
    assert run(["extract", *files, "-o", catalog]).returncode == 0
    assert summary_of(str(catalog)).dated == 2
    assert [end.isoformat()[:10] for end in summary_of(str(catalog)).time or ()] == [
        "2020-01-01", "2020-02-01",
    ]  # fmt: skip
    output = tmp_path / "items.ndjson"
    assert export(str(catalog), str(output), Rules([])).items == 2
    first, second = (json.loads(line)["properties"] for line in output.read_text().splitlines())
    assert (first["start_datetime"], first["end_datetime"]) == (
        "2020-01-01T00:00:00.000000Z", "2020-01-03T00:00:00.000000Z",
    )  # fmt: skip
    assert second["datetime"] == "2020-02-01T00:00:00.000000Z"
    rows = read_table(files)
    tags, imagery = (rows[name].combine_chunks() for name in ("dataset_tags", "imagery_tags"))
    times = rows["time_start"].combine_chunks()
    january = (2020 - FIRST_YEAR) * 12
    assert months_of(tags, imagery, times).tolist() == [january, january + 1]
    unknown = pa.array([None, dt.datetime(1500, 1, 1, tzinfo=dt.UTC)], times.type)
    assert months_of(tags, imagery, unknown).tolist() == months_of(tags, imagery).tolist()
