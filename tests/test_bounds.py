"""Whatever is remembered is bounded, and whatever is opened is closed."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import pkgutil
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.transform import from_origin
from tiff_variants import NODATA_TAG, edited, text_value

import rastermeta_async
from rastermeta_async.footprints.crs import crs_strings
from rastermeta_async.model.settings import READERS, Access
from rastermeta_async.readers.base import load_reader
from rastermeta_async.readers.geotiff.gdal_metadata import MAX_REMEMBERED
from rastermeta_async.readers.geotiff.header import read_header
from rastermeta_async.readers.sidecars import Folders
from rastermeta_async.stores.clients import MAX_STORES, Stores


def write(path: Path, **profile: Any) -> Path:
    kind = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "float32"}
    place = from_origin(500_000, 5_000_000, 10, 10)
    with (
        rasterio.Env(),
        rasterio.open(path, "w", crs="EPSG:32631", transform=place, **kind | profile),
    ):
        pass
    return path


# What is remembered.


def caches() -> Iterator[tuple[str, Any]]:
    """Yield the functions of the package that remember what they said, by module and name."""
    for module in pkgutil.walk_packages(rastermeta_async.__path__, "rastermeta_async."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if hasattr(value, "cache_parameters") and inspect.signature(value).parameters:
                    yield f"{module.name}.{name}", value


def test_no_function_remembers_without_bound() -> None:
    found = dict(caches())
    assert found
    endless = [name for name, one in found.items() if one.cache_parameters()["maxsize"] is None]
    assert endless == []


def test_of_very_many_buckets_the_latest_are_remembered() -> None:
    stores = Stores(Access())

    def store(number: int) -> Any:
        return stores.locate(f"https://host{number}/a.tif").store

    first = store(0)
    for number in range(1, MAX_STORES + 1):
        assert store(number) is store(number)
        assert store(0) is first  # as it is in use
    for number in range(1, MAX_STORES + 1):
        store(number)
    assert store(0) is not first


def objects_after(work: Callable[[int], object], numbers: range) -> int:
    """Return how many objects there are after some work, each time with another number."""
    for number in numbers:
        work(number)
    gc.collect()
    return len(gc.get_objects())


def test_of_very_many_folders_some_are_remembered() -> None:
    folders = Folders()

    def ask(number: int) -> None:
        folders.neighbours(b"/none/%d/a.tif" % number)

    some = objects_after(ask, range(10_000))
    assert objects_after(ask, range(10_000, 30_000)) < some + 1000


def test_of_very_many_crss_of_files_some_are_identified_once() -> None:
    """An archive may have a CRS of its own in each file, and some are long."""

    class Crs:
        def __init__(self, wkt: str) -> None:
            self.wkt = wkt

        def to_authority(self, confidence_threshold: int) -> None:
            assert confidence_threshold == 100

        def to_string(self) -> str:
            return self.wkt

        to_wkt = to_string

    made: list[weakref.ref[Crs]] = []
    for number in range(1000):
        for length in (10, 100_000):
            crs = Crs(f"{number} ".ljust(length, "x"))
            made.append(weakref.ref(crs))
            assert crs_strings(crs).wkt == crs.wkt
    del crs
    left = [len(one.wkt) for ref in made if (one := ref())]
    assert left
    assert len(left) < 500
    assert max(left) == 10


@pytest.mark.campaign
def test_of_very_many_kinds_of_headers_some_are_remembered(tmp_path: Path) -> None:
    """A folder may hold files that have nothing in common."""
    profile = {"tiled": True, "width": 600, "height": 600, "sparse_ok": True}
    path = write(tmp_path / "a.tif", nodata=100000, **profile)
    with rasterio.Env(), rasterio.open(path, "r+") as dataset:
        dataset.update_tags(n100000="v")
        dataset.build_overviews([2])
    content = path.read_bytes()

    def decode(number: int) -> None:
        other = content.replace(b"100000", b"%d" % (100000 + number))
        header = read_header(other, len(other), lambda at, size: other[at : at + size])
        assert f"n{100000 + number}" in header.metadata.dataset

    some = objects_after(decode, range(MAX_REMEMBERED + 100))
    more = range(MAX_REMEMBERED + 100, 3 * MAX_REMEMBERED // 2 + 100)
    assert objects_after(decode, more) < some + 1000


# What is opened.


def with_a_sidecar(path: Path) -> None:
    write(path, nodata=0.0)
    band = '<PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand>'
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")


def with_nan(path: Path) -> None:
    path.write_bytes(edited(write(path, nodata=5.0).read_bytes(), {NODATA_TAG: text_value("-nan")}))


def as_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table a (b)")
        database.commit()


FILES: dict[str, Callable[[Path], Any]] = {
    "plain": write,
    "compressed oddly": lambda path: write(path, compress="webp", count=3, dtype="uint8"),
    "with a sidecar": with_a_sidecar,
    "with NaN": with_nan,
    "of 64 bits": lambda path: write(path, dtype="int64", nodata=2**60 + 1),
    "database": as_database,
    "cut short": lambda path: path.write_bytes(write(path).read_bytes()[:100]),
    "broken": lambda path: path.write_bytes(b"II*\0" + b"x" * 1020),
    "empty": Path.touch,
    "folder": Path.mkdir,
    "missing": lambda _: None,
    "pipe": os.mkfifo,
}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("reader", READERS)
def test_no_file_that_is_read_stays_open(tmp_path: Path, reader: str) -> None:
    paths = []
    for number, make in enumerate(FILES.values()):
        (tmp_path / f"{number}").mkdir()  # what is next to one is nothing to the others
        paths.append(tmp_path / f"{number}" / "a.tif")
        make(paths[-1])
    made: Any = load_reader(READERS[reader], None, Access())
    with made.environment():
        for path in paths:  # GDAL and PROJ keep files of their own open
            made.read(bytes(path))
        before = descriptors()
        after = {}
        for name, path in zip(FILES, paths, strict=True):
            for _ in range(3):
                made.read(bytes(path))
            after[name] = descriptors()
    assert after == dict.fromkeys(FILES, before)
