"""A row is of one state of its file, and what is learned of a kind is of the bytes decoded."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rastermeta_async.model.file_state import TICK_SECONDS
from rastermeta_async.model.record import TIFF_HEADER, Record
from rastermeta_async.model.settings import READERS, Access
from rastermeta_async.readers.base import load_reader
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sidecars import Folders


def write(path: Path, zone: int = 31, width: int = 8, height: int = 8) -> Path:
    """Write a raster in a UTM zone; those of one size and zone differ in nothing."""
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8"}
    place = from_origin(500_000, 5_000_000, 10, 10)
    with (
        rasterio.Env(),
        rasterio.open(path, "w", crs=f"EPSG:{32600 + zone}", transform=place, **profile),
    ):
        pass
    return path


def overwritten(path: Path, by: Path) -> None:
    """Give a file other content of the same size, in place, and its times back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(by.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class Meddler(RasterioReader):
    """rasterio, before and after each open of a file, something is done to that."""

    def __init__(self, before: Callable[[bytes], object], after: Callable[[bytes], object]) -> None:
        super().__init__(None, Folders())
        self._before = before
        self._after = after

    def _open(self, path: bytes, size: int) -> Record:
        self._before(path)
        try:
            return super()._open(path, size)
        finally:
            self._after(path)


def test_what_is_learned_is_of_the_bytes_that_were_decoded(tmp_path: Path) -> None:
    """Also where rasterio would find another file under the path of the first of a kind."""
    first, other = write(tmp_path / "first.tif", 31), write(tmp_path / "other.tif", 32)
    same = [write(tmp_path / f"{at}.tif", 31) for at in range(5)]

    def replace(path: bytes) -> None:
        if path == bytes(first):
            overwritten(first, other)

    reader = Router(Meddler(replace, lambda _: None), Folders())
    with reader.environment():
        reader.read(bytes(first))
        records = [reader.read(bytes(path)) for path in same]
    assert [(record.crs, record.reader) for record in records] == [("EPSG:32631", TIFF_HEADER)] * 5


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_that_changes_while_rasterio_reads_it_is_read_again(
    tmp_path: Path, how: str
) -> None:
    path, other = write(tmp_path / "a.tif", 31), write(tmp_path / "b.tif", 32)
    opened: list[int] = []

    def change(_: bytes) -> None:
        opened.append(1)
        if len(opened) > 1:
            return
        if how == "in place":
            overwritten(path, other)
        else:
            shutil.copy(other, tmp_path / "new.tif")
            os.replace(tmp_path / "new.tif", path)

    reader = Meddler(lambda _: None, change)
    with reader.environment():
        record = reader.read(bytes(path))
    assert (len(opened), record.crs) == (2, "EPSG:32632")


def test_a_file_that_never_stays_is_a_row_that_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    reader = Meddler(lambda _: None, lambda _: os.utime(path))
    with reader.environment():
        record = reader.read(bytes(path))
    assert (record.status, record.error_type) == ("fatal", "Changed")
    assert "it was changed each time that it was read" in (record.error_message or "")


def test_a_file_that_changes_between_two_reads_of_its_header_is_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its IFD is at the end, so it takes two reads."""
    pixels = np.random.default_rng(1).integers(0, 255, (300, 300), np.uint8)
    paths = []
    for zone in (31, 32):
        paths.append(write(tmp_path / f"{zone}.tif", width=300, height=300))
        with rasterio.Env(), rasterio.open(paths[-1], "r+") as dataset:
            dataset.write(pixels, 1)
            dataset.crs = f"EPSG:{32600 + zone}"
            dataset.update_tags(ZONE=str(zone))
    path, other = paths
    assert path.stat().st_size == other.stat().st_size
    pread = os.pread
    done: list[int] = []

    def meddling(file: int, size: int, offset: int) -> bytes:
        content = pread(file, size, offset)
        if not done and os.fstat(file).st_ino == path.stat().st_ino:
            done.append(1)
            overwritten(path, other)
        return content

    monkeypatch.setattr(os, "pread", meddling)
    reader = Router(RasterioReader(None, Folders()), Folders())
    with reader.environment():
        record = reader.read(bytes(path))
    assert done
    assert (record.crs, (record.dataset_tags or {})["ZONE"]) == ("EPSG:32632", "32")


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_has_just_changed_is_left_to_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """A further change in the same tick of the file system's clock would leave no trace."""
    path = write(tmp_path / "a.tif")
    ages: list[float] = []

    def noted(ask: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any) -> Any:
            ages.append(time.time() - os.stat(path).st_ctime)
            return ask(*args)

        return noting

    monkeypatch.setattr(os, "pread", noted(os.pread))
    monkeypatch.setattr(RasterioReader, "_open", noted(RasterioReader._open))
    made: Any = load_reader(READERS[reader], None, Access())
    with made.environment():
        for _ in range(3):
            os.utime(path)
            assert made.read(bytes(path)).ok
    assert ages
    assert min(ages) >= TICK_SECONDS / 2
