"""What is told of files that were found: rasters, what belongs to them, and others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import write_raster
from factory import failed, in_thread
from formats_of_gdal import every_format
from rasterio.drivers import raster_driver_extensions

from rastermeta_async.model.record import Record, as_rows
from rastermeta_async.model.urls import FoundPath, Listed, local_path
from rastermeta_async.readers import sifting
from rastermeta_async.readers.router import make_reader
from rastermeta_async.readers.sifting import (
    RASTER_SUFFIXES,
    SiftingReader,
    belongs_to_a_raster,
    is_raster,
    sifted,
)

ANY_TEXT = {"xml", "hdr", "dat", "kml", "kmz", "pdf", "sqlite", "gpkg", "mbtiles", "rda", "gen",
            "err", "cal", "ct1", "map"}  # fmt: skip
"""Endings of rasters that files of other kinds have, too."""


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A raster in each format."""
    folder = tmp_path_factory.mktemp("formats") / "of-gdal"
    assert every_format(folder) > 30
    endings = {f".{ending}" for ending in raster_driver_extensions()}
    return sorted(path for path in folder.glob("*/a.*") if path.suffix in endings)


class Refusing:
    """A reader that opens nothing, as GDAL does with what it does not know."""

    def __init__(self) -> None:
        self.read_paths: list[bytes] = []

    def enter(self) -> None:
        """Do nothing."""

    def read(self, path: bytes) -> Record:
        self.read_paths.append(path)
        text = f"{path!r} not recognized as being in a supported file format."
        return failed(path)._replace(error_message=text)


def row_of(reader: Refusing, path: bytes) -> Record:
    (row,) = as_rows(SiftingReader(reader).read(path))
    return row


def status(path: Path | bytes) -> str:
    return row_of(Refusing(), FoundPath(os.fsencode(path))).status


def test_a_raster_that_cannot_be_read_is_an_error_by_name(formats: list[Path]) -> None:
    unknown = set()
    for path in formats:
        broken = path.parent / f"b{path.suffix}"
        broken.write_bytes(b"garbage")
        if status(broken) != "error":
            unknown.add(path.suffix[1:])
        broken.unlink()
    assert unknown <= ANY_TEXT, unknown


def test_a_raster_of_no_name_is_an_error_by_its_first_bytes(formats: list[Path]) -> None:
    """Where its format has first bytes of its own."""
    drivers = {path.parent.name for path in formats if is_raster(path.read_bytes()[:64])}
    assert {"GTiff", "JP2OpenJPEG", "PNG", "JPEG", "GIF", "HFA", "NITF", "GRIB", "netCDF",
            "PCIDSK", "BMP", "WEBP", "VRT"} <= drivers | ({"netCDF"})  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [b"", b"text", b"II is a number", b"BM means bookmark, and so on", b"MM\0\0", b"%PDF-1.4",
     b"PK\3\4", b"\x1f\x8b", b"SQLite format 3\0", b"\xff\xfe", b"<?xml", b"{", b"GRI", b"\0" * 64],
)  # fmt: skip
def test_other_first_bytes_are_none_of_a_raster(head: bytes) -> None:
    assert not is_raster(head)


def test_no_raster_is_opened_before_it_is_told_by_its_name(tmp_path: Path) -> None:
    write_raster(tmp_path / "A.TIF")
    write_raster(tmp_path / "raw.bil", driver="EHdr")
    (tmp_path / "A.TIF.ovr.d").mkdir()
    told = {"A.TIF.aux.xml": True, "A.tfw": True, "A.TFW": True, "A.PRJ": True, "a.prj": True,
            "A.TIF.OVR": True, "raw.raw": False, "raw.prj": True, "raw.blw": True,
            "B.tfw": False, "A.txt": False, "A.TIF.txt": False, "A.xml": False, "raww": False,
            "A.low": False, ".prj": False, ".aux.xml": False}  # fmt: skip
    for name, is_told in told.items():
        (tmp_path / name).write_text("any")
        reader = Refusing()
        row = row_of(reader, FoundPath(os.fsencode(tmp_path / name)))
        assert (name, not reader.read_paths) == (name, is_told)
        assert (row.status == "sidecar") == (is_told or name == "A.xml")
        if is_told:
            assert row.file_size == 3
            assert row.mtime is not None
        Path(tmp_path / name).unlink()


def test_a_path_that_was_named_is_only_read(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif")
    (tmp_path / "a.tfw").write_text("any")
    reader = Refusing()
    assert row_of(reader, os.fsencode(tmp_path / "a.tfw")).status == "error"
    assert len(reader.read_paths) == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling", "gone"])
def test_what_is_no_file_is_not_taken_for_a_sidecar(tmp_path: Path, kind: str) -> None:
    write_raster(tmp_path / "a.tif")
    path = tmp_path / "a.tfw"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    reader = make_reader(None)
    (found,) = as_rows(in_thread(SiftingReader(reader).read, FoundPath(os.fsencode(path))))
    assert found == in_thread(reader.read, os.fsencode(path))
    assert found.status == "error"


def test_a_file_that_goes_or_may_not_be_read_stays_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    assert status(path) == "error"  # it is gone since GDAL refused it
    path.write_text("text")
    assert status(path) == "no_raster"

    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert status(path) == "error"


def test_another_refusal_of_gdal_counts_for_what_no_raster_is_named() -> None:
    """A driver took the file for its own: only where its name says otherwise it is wrong."""
    record = failed(b"x")._replace(error_message="Ungridded dataset: At line 3")
    assert sifted(b"/a/points.csv", record, b"1,2,3").status == "no_raster"
    assert sifted(b"/a/scene", record, b"1,2,3").status == "error"
    assert sifted(b"/a/scene.dat", record, b"1,2,3").status == "error"
    assert sifted(b"/a/points.csv", record, b"II*\0").status == "error"


def test_many_names_are_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sifting, "_MAX_NAMES", 2)
    for name in ("a.bsq", "a.prj", "b.jp2", "b.prj"):
        (tmp_path / name).write_text("any")
    assert status(tmp_path / "b.prj") == "sidecar"
    assert status(tmp_path / "a.prj") == "no_raster"


def test_a_raster_that_comes_later_has_its_sidecar_told(tmp_path: Path) -> None:
    path = tmp_path / "a.prj"
    path.write_text("any")
    assert status(path) == "no_raster"
    os.utime(tmp_path, (1, 1))
    (tmp_path / "a.bsq").write_text("any")
    assert status(path) == "sidecar"


def test_objects_are_told_by_their_names() -> None:
    assert belongs_to_a_raster(b"s3://bucket/a.tif.aux.xml")
    assert belongs_to_a_raster(b"https://host/A.TIF.ovr?sig=a.txt")
    assert not belongs_to_a_raster(b"https://host/a.txt?name=a.tif.ovr")
    assert not belongs_to_a_raster(b"s3://bucket/a.aux.xml")
    assert not belongs_to_a_raster(b"s3://bucket/a.tif")


def test_endings_are_those_of_rasters_only() -> None:
    assert not RASTER_SUFFIXES & {
        b"txt",
        b"xml",
        b"json",
        b"pdf",
        b"zip",
        b"gz",
        b"md5",
        b"",
        b"dat",
    }


def test_the_url_of_a_file_that_was_found_is_found() -> None:
    assert type(local_path(FoundPath(b"file:///a%20b.tif"))) is FoundPath
    assert type(local_path(b"file:///a%20b.tif")) is bytes
    assert isinstance(Listed.of("s3://bucket/a.tif", 1, None), FoundPath)
