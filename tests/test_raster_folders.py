"""Folders that are one raster: one input each when they are walked or named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from command import run, write_raster

from rastermeta_async.model.raster_folders import ListedStores, may_be_store
from rastermeta_async.model.record import Record
from rastermeta_async.one_file import read_record

GRID: dict[str, Any] = {
    "width": 8, "height": 6, "dtype": "uint8", "crs": "EPSG:32633",
    "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
}  # fmt: skip


def write_zarr(path: Path, form: str = "ZARR_V2", count: int = 1) -> Path:
    options = {"driver": "Zarr", "count": count, "FORMAT": form, **GRID}
    with rasterio.open(path, "w", **options) as file:
        file.write(np.ones((count, 6, 8), "uint8"))
    return path


def read(path: Path) -> Record:
    return read_record(path)


@pytest.mark.parametrize("form", ["ZARR_V2", "ZARR_V3"])
@pytest.mark.parametrize("name", ["a.zarr", "store"])
def test_a_zarr_store_is_read_as_rasterio_reads_it(form: str, name: str, tmp_path: Path) -> None:
    path = write_zarr(tmp_path / name, form)
    record = read(path)
    with rasterio.open(path) as dataset:
        expected = dataset.width, dataset.height, dataset.count, tuple(dataset.get_transform())
    assert (record.width, record.height, record.count, record.transform) == expected
    assert (record.status, record.driver, record.reader) == ("success", "Zarr", "rasterio")
    assert record.file_size is None
    assert record.mtime is not None


@pytest.mark.parametrize("form", ["ZARR_V2", "ZARR_V3"])
def test_attributes_of_a_store_are_tags_as_rasterio_gives_them(form: str, tmp_path: Path) -> None:
    """Those of GeoZarr, too: no CRS is made of them."""
    path = write_zarr(tmp_path / "a.zarr", form)
    attributes = {"proj:code": "EPSG:3857", "spatial:dimensions": ["y", "x"], "note": "hi"}
    if form == "ZARR_V2":
        described = path / ".zmetadata"
        content = json.loads(described.read_text())
        content["metadata"]["a/.zattrs"] |= attributes
    else:
        described = path / "a" / "zarr.json"
        content = json.loads(described.read_text())
        content["attributes"] |= attributes
    described.write_text(json.dumps(content))
    record = read(path)
    with rasterio.open(path) as dataset:
        tags = dataset.tags()
    assert record.dataset_tags == tags
    assert (tags["note"], tags["proj"]) == ("hi", "code=EPSG:3857")  # it cuts names at a colon
    assert record.crs == "EPSG:32633"  # of `_CRS`, which GDAL knows


def test_of_a_walk_a_store_is_one_input(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "deep").mkdir(parents=True)
    rows = {
        write_zarr(archive / "a.zarr"), write_zarr(archive / "deep" / "store", "ZARR_V3"),
        write_raster(archive / "plain.tif"),
    }  # fmt: skip
    assert extracted(archive, tmp_path) == dict.fromkeys(map(str, rows), "success")


def extracted(given: Path, folder: Path, *options: str) -> dict[str, str]:
    """Return the status of each path of a catalog."""
    catalog = folder / "catalog.parquet"
    done = run(["extract", given, "-o", catalog, *options])
    assert done.returncode in (0, 3), done.stderr
    rows = pq.read_table(catalog, columns=["filepath", "status"]).to_pylist()
    return {row["filepath"]: row["status"] for row in rows}


@pytest.mark.parametrize("form", ["ZARR_V2", "ZARR_V3"])
def test_a_store_that_is_named_is_one_input(form: str, tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "store", form)
    assert extracted(store, tmp_path) == {str(store): "success"}


def test_a_store_in_a_list_is_one_input(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr")
    done = run(["extract", "-o", "-"], stdin=f"{store}\n".encode())
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1)


def test_endings_do_not_hide_a_store(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    store = write_zarr(archive / "a.zarr")
    write_raster(archive / "plain.tif")
    assert extracted(archive, tmp_path, "--suffix", ".zarr") == {str(store): "success"}


def test_a_broken_store_is_an_error_row(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    store = write_zarr(tmp_path / "archive" / "a.zarr")
    for metadata in store.rglob(".z*"):
        metadata.write_text("{")
    assert extracted(tmp_path / "archive", tmp_path) == {str(store): "error"}


def test_a_store_that_changed_is_read_again(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    store = write_zarr(archive / "a.zarr")
    catalog = tmp_path / "catalog.parquet"
    assert run(["extract", archive, "-o", catalog]).returncode == 0
    untouched = catalog.stat()
    assert run(["extract", archive, "-o", catalog, "--update"]).returncode == 0
    assert catalog.stat().st_mtime_ns == untouched.st_mtime_ns
    shutil.rmtree(store)
    write_zarr(store, count=3)
    assert run(["extract", archive, "-o", catalog, "--update"]).returncode == 0
    assert pq.read_table(catalog)["count"].to_pylist() == [3]


def test_a_geodatabase_is_one_input(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "a.gdb").mkdir(parents=True)
    for name in ("a00000001.gdbtable", "a00000001.gdbtablx", "gdb", "timestamps"):
        (archive / "a.gdb" / name).write_bytes(b"x")
    assert [*extracted(archive, tmp_path, "--strict")] == [str(archive / "a.gdb")]


def test_an_esri_grid_is_one_input_also_if_it_is_broken(tmp_path: Path) -> None:
    grid = tmp_path / "archive" / "grid"
    grid.mkdir(parents=True)
    for name in ("hdr.adf", "w001001.adf", "w001001x.adf", "dblbnd.adf"):
        (grid / name).write_bytes(b"GRID1.2\0")
    assert extracted(tmp_path / "archive", tmp_path) == {str(grid): "error"}


def test_a_mark_among_thousands_of_names_is_found_first(tmp_path: Path) -> None:
    """An array's chunks lie next to its metadata in Zarr v2."""
    store = write_zarr(tmp_path / "store")
    array = tmp_path / "archive" / "array"
    shutil.copytree(store / "store", array)
    for number in range(2500):
        (array / f"0.{number}").write_bytes(b"x")
    assert [*extracted(tmp_path / "archive", tmp_path)] == [str(array)]


@pytest.mark.parametrize("mark", [".zgroup", ".zarray", "zarr.json", "hdr.adf"])
def test_a_mark_next_to_rasters_hides_none(mark: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "deep").mkdir(parents=True)
    (archive / mark).write_text("{}")
    rasters = [write_raster(archive / "a.tif"), write_raster(archive / "deep" / "b.tif")]
    assert (
        extracted(archive, tmp_path).items() >= {str(path): "success" for path in rasters}.items()
    )


@pytest.mark.parametrize("name", ["a.zarr", "a.gdb"])
def test_rasters_in_a_folder_with_such_a_name_have_rows(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / name).mkdir(parents=True)
    rasters = [write_raster(archive / name / f"{number}.tif") for number in range(3)]
    found = extracted(archive, tmp_path)
    assert [found.get(str(path)) for path in rasters] == ["success"] * 3
    assert extracted(archive, tmp_path) == found  # the folder's row stays, too


def test_rasters_in_a_store_have_rows_beside_it(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    store = write_zarr(archive / "a.zarr")
    raster = write_raster(store / "preview.tif")
    for _ in range(2):
        found = extracted(archive, tmp_path)
        assert (found[str(store)], found[str(raster)]) == ("success", "success")


@pytest.mark.parametrize("options", [["--prune"], ["--update", "--prune"]])
def test_a_store_that_is_there_is_not_pruned(options: list[str], tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    store, raster = write_zarr(archive / "a.zarr"), write_raster(archive / "b.tif")
    extracted(archive, tmp_path)
    assert {*extracted(archive, tmp_path, *options)} == {str(store), str(raster)}
    shutil.rmtree(store)
    assert {*extracted(archive, tmp_path, *options)} == {str(raster)}


def test_stores_that_come_file_by_file_are_said(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr")
    names = b"\0".join(os.fsencode(path) for path in store.rglob("*") if path.is_file())
    done = run(["extract", "-0", "-o", tmp_path / "catalog.parquet"], stdin=names)
    assert done.returncode == 0
    assert b"4 files lie inside Zarr stores, which are one input each" in done.stderr


def test_a_plain_folder_is_none(tmp_path: Path) -> None:
    record = read(tmp_path)
    assert (record.status, record.error_type) == ("error", "NotAFile")


def test_globs_choose_stores_too(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    store = write_zarr(archive / "a.zarr")
    plain = write_raster(archive / "plain.tif")
    assert extracted(archive, tmp_path, "--glob", "*.zarr") == {str(store): "success"}
    (tmp_path / "other").mkdir()
    assert extracted(archive, tmp_path / "other", "--exclude", "*.zarr") == {str(plain): "success"}


@pytest.mark.parametrize(
    ("key", "store"),
    [
        ("a.tif", None),
        ("a.zarr", None),  # an object of this name
        (".zarr/x", None),
        ("p/a.zarr/x/c/0/0", "p/a.zarr"),
        ("p/A.ZARR/zarr.json", "p/A.ZARR"),
        ("p/a.zarr/deep/b.zarr/.zgroup", "p/a.zarr"),
        ("İİ/a.zarr/x/0", "İİ/a.zarr"),  # longer in lower case
        ("p\n/a.zarr/x/0", "p\n/a.zarr"),
        ("p/.zarr/x/0", None),
        ("p/a.zarr/odd.tif", None),
        (".zgroup", None),  # the bucket itself has no name
        ("p/v2/.zgroup", "p/v2"),
        ("p/v2/t2m/0.0", "p/v2"),
        ("p/v2/plain.TIF", None),
        ("p/v2/x/.zarray", "p/v2"),
        ("p/v20/0.0", None),
        ("p/v3/c/0/0", None),
        ("p/v3/zarr.json", None),  # too late: its data came before it
    ],
)
def test_the_store_that_a_key_lies_in(key: str, store: str | None) -> None:
    stores = ListedStores()
    for before in ("p/v2/.zattrs", "p/v2/.zgroup"):
        stores.store_of(before)
    assert stores.store_of(key) == store


def test_a_store_comes_once_in_a_listing() -> None:
    stores = ListedStores()
    assert [stores.is_next(store) for store in ("a", "a", "b", "b", "a")] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_which_urls_are_asked_for_as_stores() -> None:
    may_be = [b"s3://b/a.zarr", b"s3://b/A.ZARR", b"s3://b/v2", b"s3://b.c/v2"]
    is_none = [b"s3://b/a.tif", b"s3://b/a.zarr.zip", b"https://host/a.zarr?sig=1"]
    assert [may_be_store(url) for url in may_be + is_none] == [True] * 4 + [False] * 3
