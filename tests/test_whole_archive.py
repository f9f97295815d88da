"""One archive with all that archives hold: packed scenes, folders, containers, texts, broken files.

The rows are known one by one, and each is what rasterio says of the name under which GDAL opens it.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import netCDF4
import pytest
import rasterio
import rasterio.shutil
from command import run, write_raster
from factory import records_of
from test_cf_times import netcdf_with_times
from test_reader import CONTAINERS, columns_of, differences

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.model.record import SCHEMA, Record
from rastermeta_async.stores.archive_names import name_inside

pytestmark = pytest.mark.filterwarnings("ignore:is_tiled will be removed:PendingDeprecationWarning")

SAFE = "S2A_MSIL2A_20200101T101010_N0213_R022_T32TNR_20200101T121212.SAFE"
OTHER_SAFE = SAFE.replace("S2A", "S2B")
BANDS = [f"GRANULE/L2A_T32TNR/IMG_DATA/R10m/T32TNR_20200101T101010_{band}_10m.jp2" for band in
         ("B02", "B03")]  # fmt: skip
LANDSAT = "LC08_L2SP_193027_20200101_20200823_02_T1"

Key = tuple[str, str | None, str | None]
"""Path below the archive, member, subdataset."""


def write_archive(top: Path, *, broken: bool) -> None:
    """Write the archive."""
    safe = top / SAFE
    for band in BANDS:
        (safe / band).parent.mkdir(parents=True, exist_ok=True)
        write_raster(safe / band, driver="JP2OpenJPEG", width=64, height=64)
    (safe / "MTD_MSIL2A.xml").write_text("<Level-2A_User_Product/>")
    with zipfile.ZipFile(top / f"{OTHER_SAFE}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(safe / "MTD_MSIL2A.xml", f"{OTHER_SAFE}/MTD_MSIL2A.xml")
        for band in BANDS:
            packed.write(safe / band, f"{OTHER_SAFE}/{band}")
    plain = write_raster(top / "plain.tif")
    with tarfile.open(top / f"{LANDSAT}.tar", "w") as tar:
        for band in ("B2", "B3"):
            tar.add(plain, f"{LANDSAT}_SR_{band}.TIF")
        (top / "metadata").write_text("GROUP = LANDSAT_METADATA_FILE\n")
        tar.add(top / "metadata", f"{LANDSAT}_MTL.txt")
        (top / "metadata").unlink()
    with zipfile.ZipFile(top / "scenes.zip", "w") as packed:
        packed.write(plain, "deep/stored.tif")
        packed.write(plain, "deep/deflated.tif", zipfile.ZIP_DEFLATED)
        packed.writestr("readme.txt", "a scene")
    with tarfile.open(top / "packed.tgz", "w:gz") as tar:
        tar.add(plain, "x.tif")
    for kind in ("nc", "h5", "gpkg"):
        CONTAINERS[kind](top / f"two.{kind}", ("va", "vb"))
    (netcdf_with_times(top, "NC4", "{0,1,2}", "days since 2020-01-01")).rename(top / "times.nc")
    write_groups(top / "groups.nc")
    (top / "source.tif").unlink()
    with rasterio.open(plain) as source:
        rasterio.shutil.copy(source, top / "weather.grib2", driver="GRIB")
        rasterio.shutil.copy(source, top / "store.zarr", driver="Zarr")
    for left in [*top.glob("*.aux.xml"), top / "parts.tif"]:  # GDAL and the containers' sources
        left.unlink(missing_ok=True)
    (top / "plain.tfw").write_text("2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n")
    (top / "readme.txt").write_text("read me")
    (top / "sums.md5").write_text("0 plain.tif\n")
    (top / "paper.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    if broken:
        (top / "broken.tif").write_bytes(b"II*\0garbage")
        (top / "broken.zip").write_bytes(b"PK\3\4garbage")
        (top / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\ngarbage")


def write_groups(path: Path) -> None:
    """Write a NetCDF file with variables in groups; one group has times of its own."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 5)
        file.createDimension("y", 4)
        _write_times(file, [0.0, 1.0, 2.0])
        for name in ("sea", "land/deep"):
            group = file.createGroup(name)
            if name == "sea":
                _write_times(group, [10.0, 11.0])
            group.createVariable("t2m", "f4", ("time", "y", "x"))[:] = 0


def _write_times(group: netCDF4.Dataset, days: list[float]) -> None:
    group.createDimension("time", len(days))
    times = group.createVariable("time", "f8", ("time",))
    times.units = "days since 2020-01-01"
    times[:] = days


def expected(top: Path, *, broken: bool) -> dict[Key, str]:
    """Return the rows that the archive is to have, with their statuses."""
    good: list[Key] = [(f"{SAFE}/{band}", None, None) for band in BANDS]
    good += [(f"{OTHER_SAFE}.zip", f"{OTHER_SAFE}/{band}", None) for band in BANDS]
    good += [(f"{LANDSAT}.tar", f"{LANDSAT}_SR_{band}.TIF", None) for band in ("B2", "B3")]
    good += [("scenes.zip", f"deep/{name}.tif", None) for name in ("stored", "deflated")]
    good += [("packed.tgz", "x.tif", None)]
    good += [
        (name, None, None) for name in ("plain.tif", "times.nc", "weather.grib2", "store.zarr")
    ]
    for name in ("two.nc", "two.h5", "two.gpkg", "groups.nc"):
        with warnings.catch_warnings(action="ignore"), rasterio.open(top / name) as dataset:
            good += [(name, None, part) for part in (None, *dataset.subdatasets)]
    bad = ["broken.tif", "broken.zip", "broken.nc"] if broken else []
    return dict.fromkeys(good, "success") | {(name, None, None): "error" for name in bad}


def key_of(row: Record, top: Path) -> Key:
    return os.path.relpath(row.filepath, top), row.member, row.subdataset


def said_of(row: Record) -> dict[str, Any]:
    """Return what rasterio says of the name under which GDAL opens a row's raster."""
    name = row.subdataset or (name_inside(row.filepath, row.member) if row.member else row.filepath)
    with warnings.catch_warnings(action="ignore"), rasterio.open(name) as dataset:
        columns = columns_of(dataset)
    if row.subdataset:
        columns.pop("tiled", None)  # only the bytes of a file's first image are looked at
    return columns


@pytest.mark.parametrize("broken", [False, True])
def test_an_archive_as_archives_are(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPL_VSIL_GZIP_WRITE_PROPERTIES", "NO")  # this test's own opens write none
    top, catalog = tmp_path / "archive", tmp_path / "catalog.parquet"
    top.mkdir()
    write_archive(top, broken=broken)
    before = {path: path.stat().st_mtime_ns for path in top.rglob("*")}
    command: list[str | Path] = ["extract", top, "-o", catalog, "--members", "all", "--subdatasets"]
    done = run(command)
    assert done.returncode == (3 if broken else 0), done.stderr
    rows = records_of(batches_of(str(catalog), SCHEMA.names))
    wanted = expected(top, broken=broken)
    found = {key_of(row, top): row.status for row in rows}
    assert len(found) == len(rows)
    assert {key: status.replace("no_georef", "success") for key, status in found.items()} == wanted
    days = {
        (os.path.basename(row.filepath), (row.subdataset or "").rpartition(":")[2]): (
            str(row.time_start)[:10], str(row.time_end)[:10],
        )
        for row in rows if row.time_start
    }  # fmt: skip
    assert days == {
        ("times.nc", ""): ("2020-01-01", "2020-01-03"),
        ("groups.nc", "/sea/t2m"): ("2020-01-11", "2020-01-12"),
        ("groups.nc", "/land/deep/t2m"): ("2020-01-01", "2020-01-03"),
    }
    for row in rows:
        if row.ok:
            assert (key_of(row, top), differences(row, said_of(row))) == (key_of(row, top), {})
    assert b": 5 files are no rasters: 1 sidecar, 4 others\n" in done.stderr
    again = run(command)
    assert b"0 files read" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in top.rglob("*")} == before
    shutil.rmtree(top)
