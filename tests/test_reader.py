"""The reader against an oracle: what plain ``rasterio.open`` says of the same file."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import math
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import rasterio
import rasterio._env
import rasterio.shutil
from command import write_pages
from factory import exact, path_bytes
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from tiff_variants import NODATA_TAG, edited, text_value

from rastermeta_async.model.file_state import (
    MAX_FIELDS,
    TICK_SECONDS,
    likely_mistake,
    record_time,
)
from rastermeta_async.model.gdal_options import SAFE_DRIVERS, unknown_drivers
from rastermeta_async.model.record import MAX_MESSAGE, Record
from rastermeta_async.one_file import compare_readers, read_record
from rastermeta_async.readers.geotiff.structure import has_more_images
from rastermeta_async.readers.rasterio_reader import MAX_TAG_BYTES, RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sidecars import (
    GDAL_MAX_NAMES,
    MAX_AGE,
    MAX_KEPT,
    MAX_NAMES,
    Folders,
    Listing,
    Neighbours,
)
from rastermeta_async.readers.subdatasets import MAX_PARTS, MAX_TRIED, subdatasets_of
from rastermeta_async.readers.undecodable import ReadableDataset

# rasterio is about to rename it; test_warnings_made_errors_cost_nothing looks at this alone.
pytestmark = pytest.mark.filterwarnings("ignore:is_tiled will be removed:PendingDeprecationWarning")

SIZE = 64
NORTH_UP = from_origin(500_000, 5_000_000, 0.3, 0.3)
IDENTITY = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
WORLD_FILE = "2.0\n0.0\n0.0\n-2.0\n600001.0\n5000001.0\n"
PLACED_BY_WORLD_FILE = (600000.0, 2.0, 0.0, 5000002.0, 0.0, -2.0)
RPCS = RPC(
    height_off=150.0,
    height_scale=200.0,
    lat_off=41.5,
    lat_scale=0.1,
    line_off=32.0,
    line_scale=32.0,
    long_off=-70.1,
    long_scale=0.2,
    samp_off=32.0,
    samp_scale=32.0,
    line_num_coeff=[0.001 * i for i in range(20)],
    line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.002 * i for i in range(20)],
    samp_den_coeff=[1.0] + [0.0] * 19,
    err_bias=0.5,
    err_rand=0.25,
)
POINTS = [
    GroundControlPoint(row, col, 10 + col / 640, 50 - row / 640)
    for row, col in [(0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE)]
]


# What rasterio says.


def oracle(path: str) -> dict[str, Any]:
    """Return the columns of a file that plain rasterio can open, from `crs` to the last."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rasterio.open(path) as dataset:
            columns = columns_of(dataset)
    unplaced = any(warning.category is NotGeoreferencedWarning for warning in caught)
    columns["status"] = "no_georef" if unplaced and columns["count"] else "success"
    if columns["bands"] is None:  # no answer to compare with
        for name in ("bands", "error_type", "error_message"):
            del columns[name]
    if columns["driver"] == "PNM":  # rasterio answers with uninitialised memory
        edges = {"left": 0.0, "bottom": columns["height"], "right": columns["width"], "top": 0.0}
        columns |= {"status": "no_georef", "transform": IDENTITY, "res": (1.0, 1.0)}
        columns["bounds"] = tuple(float(edge) for edge in edges.values())
    if columns["driver"] == "GTiff" and not columns["tiled"]:
        del columns["tiled"]  # rasterio compares widths; see test_cog
    status = os.stat(path)
    columns["file_size"] = status.st_size
    columns["mtime"] = dt.datetime.fromtimestamp(status.st_mtime_ns // 10**9, dt.UTC) + (
        dt.timedelta(microseconds=status.st_mtime_ns % 10**9 // 1000)
    )
    return columns


def compression_of(dataset: Any) -> str | None:
    try:
        return word(dataset.compression)
    except ValueError:  # rasterio before 1.4.4 has no name for some
        value: str = dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"]
        return value.lower()


def columns_of(dataset: Any) -> dict[str, Any]:
    crs = dataset.crs.to_string() if dataset.crs else None
    authority = dataset.crs.to_authority(confidence_threshold=100) if dataset.crs else None
    code = ":".join(authority) if authority else None
    return {
        "error_type": None,
        "error_message": None,
        "crs": crs,
        "bounds": tuple(dataset.bounds),
        "res": dataset.res,
        "count": dataset.count,
        "dtype": dataset.dtypes[0] if dataset.count else None,
        "nodata": dataset.nodata if dataset.count else None,
        "nodata_text": nodata_text(dataset.nodata) if dataset.count else None,
        "transform": dataset.transform.to_gdal(),
        "dataset_tags": dataset.tags(),
        "band_tags": {index: tags for index in dataset.indexes if (tags := dataset.tags(index))},
        "imagery_tags": dataset.tags(ns="IMAGERY"),
        "driver": dataset.driver,
        "width": dataset.width,
        "height": dataset.height,
        "bands": bands_of(dataset),
        "compression": compression_of(dataset),
        "interleave": word(dataset.interleaving),
        "photometric": word(dataset.photometric),
        "tiled": dataset.is_tiled if dataset.count else None,
        "area_or_point": dataset.tags().get("AREA_OR_POINT"),
        "gcp_count": len(dataset.get_gcps()[0]),
        "has_rpcs": dataset.rpcs is not None,
        "subdatasets": list(dataset.subdatasets),
        "proj_code": code,
        "crs_wkt": dataset.crs.to_wkt() if crs and not code else None,
    }


def bands_of(dataset: Any) -> list[tuple[Any, ...]] | None:
    """Return None where rasterio raises: sources of a VRT may be missing."""
    try:
        return [band_of(dataset, index) for index in dataset.indexes]
    except CPLE_BaseError:
        return None


def nodata_text(value: float | None) -> str | None:
    return None if value is None or math.isfinite(value) else str(value)


def band_of(dataset: Any, index: int) -> tuple[Any, ...]:
    at = index - 1
    return (
        dataset.dtypes[at],
        dataset.nodatavals[at],
        nodata_text(dataset.nodatavals[at]),
        dataset.descriptions[at],
        dataset.colorinterp[at].name,
        dataset.scales[at],
        dataset.offsets[at],
        dataset.units[at] or None,
        *dataset.block_shapes[at],
        [flag.name for flag in dataset.mask_flag_enums[at]],
        dataset.overviews(index),
    )


def word(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value)).lower()


# What the package says, in a form to compare.


def plain(value: Any) -> Any:
    """Turn named tuples into tuples; compare them with `exact`."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return tuple(plain(item) for item in value) if isinstance(value, tuple) else value


def differences(record: Record, expected: dict[str, Any]) -> dict[str, Any]:
    ours = {name: exact(plain(value)) for name, value in record._asdict().items()}
    return {
        name: (ours[name], exact(value))
        for name, value in expected.items()
        if ours[name] != exact(value)
    }


def read_with_folders(path: Path | bytes) -> Record:
    """Read one file as a run does: sidecars are looked for only where there may be some."""
    reader = RasterioReader(folders=Folders())
    with reader.environment():
        return reader.read(os.fsencode(path))


READ_AS: dict[str, Callable[[Path], Record]] = {"alone": read_record, "in_a_run": read_with_folders}


@pytest.fixture(params=READ_AS)
def read(request: pytest.FixtureRequest) -> Callable[[Path], Record]:
    return READ_AS[request.param]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def disagreements(folder: Path, read: Callable[[Path], Record]) -> dict[str, Any]:
    """Return where reader and oracle differ, by file and column."""
    found = {}
    for path in files_below(folder):
        record = read(path)
        try:
            expected = oracle(str(path))
        except rasterio.errors.RasterioError as error:
            kind = type(error).__name__
            expected = {"status": "error", "error_type": kind, "error_message": str(error)}
        if differing := differences(record, expected):
            found[str(path.relative_to(folder))] = differing
    return found


def test_corpus(corpus: Path, read: Callable[[Path], Record]) -> None:
    assert disagreements(corpus, read) == {}


def test_sample_archive(sample_archive: Path, read: Callable[[Path], Record]) -> None:
    assert disagreements(sample_archive, read) == {}


@pytest.mark.campaign
def test_the_corpora_have_files_of_every_status(corpus: Path, sample_archive: Path) -> None:
    paths = [*files_below(corpus), *files_below(sample_archive)]
    assert {read_record(path).status for path in paths} == {"success", "no_georef", "error"}


# Files made for the purpose.


def write(path: Path, then: Callable[[Any], None] | None = None, **kind: Any) -> Path:
    """Write a small raster, a GeoTIFF in a UTM zone unless `kind` says otherwise."""
    profile = {
        "driver": "GTiff", "width": SIZE, "height": SIZE, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": NORTH_UP,
    } | kind  # fmt: skip
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", **profile) as dataset:
        if then:
            then(dataset)
        pixel = "int16" if profile["dtype"] == "complex_int16" else profile["dtype"]
        dataset.write(np.ones((profile["count"], SIZE, SIZE), pixel))
    return path


UTM: dict[str, Any] = {
    "driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8", "crs": "EPSG:32633",
    "transform": NORTH_UP,
}  # fmt: skip
UNPLACED: dict[str, Any] = {"crs": None, "transform": None}


def many_bands(folder: Path) -> Path:
    def finish(dataset: Any) -> None:
        dataset.scales, dataset.offsets = (0.1, 1.0, 1e-300), (-273.15, 0.0, 5e-324)
        dataset.units = ("K", "", "m s-1")
        dataset.descriptions = ("temperature", None, "wind — Föhn")
        dataset.colorinterp = (ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha)
        dataset.update_tags(TITLE="several\nbands", EMPTY="")
        dataset.update_tags(2, STATISTICS_MEAN="0.1")
        dataset.build_overviews([2, 4], Resampling.nearest)

    return write(
        folder / "bands.tif", finish, count=3, dtype="int16", tiled=True, blockxsize=32,
        blockysize=16, compress="zstd", interleave="pixel", nodata=-32768,
    )  # fmt: skip


def internal_mask(folder: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        return write(
            folder / "mask.tif", lambda dataset: dataset.write_mask(np.eye(SIZE, dtype=bool))
        )


def aux_xml(folder: Path) -> Path:
    path = write(folder / "aux.tif", **UNPLACED)
    (folder / "aux.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3035</SRS><GeoTransform>4e6, 0.1, 0, 3e6, 0, -0.1</GeoTransform>"
        "<Metadata><MDI key='ORIGIN'>beside</MDI></Metadata><PAMRasterBand band='1'>"
        "<Description>outside</Description><NoDataValue>7</NoDataValue><Scale>0.5</Scale>"
        "</PAMRasterBand></PAMDataset>"
    )
    return path


def world_file(folder: Path) -> Path:
    path = write(folder / "world.tif", **UNPLACED)
    (folder / "world.tfw").write_text(WORLD_FILE)
    return path


def outside_overviews(folder: Path) -> Path:
    path = write(folder / "overviews.tif")
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path) as dataset:
        assert dataset.overviews(1) == []
    write(folder / "half.tif", width=SIZE, height=SIZE).rename(folder / "overviews.tif.ovr")
    return path


def outside_mask(folder: Path) -> Path:
    path = write(folder / "masked.tif")
    tags = {"INTERNAL_MASK_FLAGS_1": str(MaskFlags.per_dataset.value)}
    mask = write(folder / "m.tif", lambda dataset: dataset.update_tags(**tags), **UNPLACED)
    mask.rename(folder / "masked.tif.msk")
    return path


def rpc_text(folder: Path) -> Path:
    path = write(folder / "scene.tif", **UNPLACED)
    lines = [f"{key}: {value}" for key, value in RPCS.to_gdal().items() if "COEFF" not in key]
    for key in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN"):
        lines += [f"{key}_COEFF_{at}: {float(at == 1)}" for at in range(1, 21)]
    (folder / "scene_RPC.TXT").write_text("\n".join(lines) + "\n")
    return path


def netcdf_container(folder: Path) -> Path:
    rasterio.shutil.copy(
        str(write(folder / "two.tif", count=2)), str(folder / "container.nc"), driver="netCDF"
    )
    return folder / "container.nc"


def tiff_container(folder: Path) -> Path:
    path = write(folder / "pages.tif")
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as first:
        profile = {**first.profile, "APPEND_SUBDATASET": "YES"}
    return write(path, **profile)


def virtual(folder: Path) -> Path:
    write(folder / "source.tif", count=1, nodata=3)
    path = folder / "virtual.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:3857</SRS>'
        "<GeoTransform>0.1, 0.2, 0, 0.3, 0, -0.4</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">source.tif</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


def custom_crs(folder: Path) -> Path:
    return write(folder / "laea.tif", crs="+proj=laea +lat_0=12.3 +lon_0=4.5 +datum=WGS84 +units=m")


Maker = Callable[[Path], Path]


def of_kind(name: str, **kind: Any) -> Maker:
    return lambda folder: write(folder / name, **kind)


MADE: dict[str, Maker] = {
    "many bands": many_bands,
    "GCPs only": of_kind("gcps.tif", crs="EPSG:4326", gcps=POINTS, transform=None),
    "RPCs only": of_kind("rpcs.tif", rpcs=RPCS, **UNPLACED),
    "nodata NaN": of_kind("nan.tif", dtype="float32", nodata=float("nan")),
    "nodata inf": of_kind("inf.tif", dtype="float64", nodata=float("inf")),
    "nodata no short decimal": of_kind("tenth.tif", dtype="float32", nodata=0.1),
    "not placed": of_kind("unplaced.tif", **UNPLACED),
    "not placed but with a CRS": of_kind("crs.tif", transform=None),
    "placed without a CRS": of_kind("placed.tif", crs=None),
    "pixel of a third": of_kind("third.tif", transform=from_origin(1 / 3, 1 / 7, 1e-5, 1e-5 / 3)),
    "south up": of_kind("south.tif", transform=Affine(1, 0, 5e5, 0, 1, 4e6)),
    "rotated": of_kind("rotated.tif", transform=NORTH_UP * Affine.rotation(30)),
    "internal mask": internal_mask,
    "aux.xml": aux_xml,
    "world file": world_file,
    "overviews outside": outside_overviews,
    "mask outside": outside_mask,
    "RPCs outside": rpc_text,
    "int8": of_kind("int8.tif", dtype="int8", nodata=-128),
    "complex64": of_kind("complex64.tif", dtype="complex64"),
    "complex128": of_kind("complex128.tif", dtype="complex128"),
    "complex_int16": of_kind("complex_int16.tif", dtype="complex_int16"),
    "NetCDF container": netcdf_container,
    "TIFF of two pages": tiff_container,
    "JPEG 2000": of_kind("map.jp2", driver="JP2OpenJPEG", crs="EPSG:3035"),
    "JPEG in YCbCr": of_kind(
        "ycbcr.tif", count=3, compress="jpeg", photometric="ycbcr", interleave="pixel"
    ),
    "PNG": of_kind("map.png", driver="PNG", **UNPLACED),
    "VRT": virtual,
    "CRS without a code": custom_crs,
    "BigTIFF": of_kind("big.tif", BIGTIFF="YES"),
}  # fmt: skip


@pytest.fixture(params=MADE)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MADE[request.param](tmp_path)


def test_made_file(made: Path, read: Callable[[Path], Record]) -> None:
    assert differences(read(made), oracle(str(made))) == {}


def test_made_files_are_what_they_are_called(tmp_path: Path) -> None:
    """The oracle says the same as the reader also of a file that was not made as meant."""

    def made(name: str) -> Record:
        folder = tmp_path / name
        folder.mkdir()
        return read_record(MADE[name](folder))

    assert made("aux.xml").dataset_tags == {"ORIGIN": "beside"}
    assert made("world file").transform == PLACED_BY_WORLD_FILE
    assert [band.overviews for band in made("overviews outside").bands or []] == [[1]]
    assert [band.mask_flags for band in made("mask outside").bands or []] == [["per_dataset"]]
    assert [band.mask_flags for band in made("internal mask").bands or []] == [["per_dataset"]]
    assert made("GCPs only").gcp_count == len(POINTS)
    assert made("RPCs only").has_rpcs
    assert made("RPCs outside").has_rpcs
    assert made("JPEG in YCbCr").photometric == "ycbcr"
    assert made("CRS without a code").proj_code is None
    container = made("NetCDF container")
    assert (container.status, container.count, len(container.subdatasets or [])) == (
        "success",
        0,
        2,
    )
    assert made("not placed but with a CRS").status == "no_georef"
    assert made("placed without a CRS").status == "success"


def test_a_portable_map_is_not_placed(tmp_path: Path, read: Callable[[Path], Record]) -> None:
    path = tmp_path / "grey.pgm"
    path.write_bytes(b"P5\n3 2\n255\n" + bytes(6))
    record = read(path)
    assert (record.status, record.transform, record.res) == ("no_georef", IDENTITY, (1.0, 1.0))
    assert record.bounds == (0.0, 2.0, 3.0, 0.0)


# Nodata.


def of_nodata(texts: Iterable[str], dtype: str, path: Path, **options: str) -> Path:
    """Have GDAL write a file whose bands have these values for nodata, exactly."""
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{band}"><NoDataValue>{text}</NoDataValue>'
        "</VRTRasterBand>"
        for band, text in enumerate(texts, 1)
    )
    vrt = path.with_name("source.vrt")
    place = "<GeoTransform>0, 1, 0, 9, 0, -1</GeoTransform>"
    vrt.write_text(f'<VRTDataset rasterXSize="2" rasterYSize="3">{place}{bands}</VRTDataset>')
    made = path.with_suffix({".h5": ".nc"}.get(path.suffix, path.suffix))
    with rasterio.Env(GDAL_PAM_ENABLED=False):
        rasterio.shutil.copy(str(vrt), str(made), **options)
    return made.rename(path)


WIDE = {
    "GTiff": ("a.tif", {"driver": "GTiff"}),
    "big-endian BigTIFF": ("a.tif", {"driver": "GTiff", "BIGTIFF": "YES", "ENDIANNESS": "BIG"}),
    "netCDF": ("a.nc", {"driver": "netCDF", "FORMAT": "NC4"}),
    "HDF5": ("a.h5", {"driver": "netCDF", "FORMAT": "NC4"}),
    "VRT": ("a.vrt", {"driver": "VRT"}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), WIDE.values(), ids=WIDE)
@pytest.mark.parametrize(("dtype", "value"), [
    ("Int64", 2**63 - 1), ("Int64", -(2**63)), ("Int64", 2**53 + 1), ("Int64", -(2**53)),
    ("UInt64", 2**64 - 1), ("UInt64", 2**63), ("UInt64", 2**64 - 2**11 + 1),
])  # fmt: skip
def test_nodata_of_64_bits_is_exact(
    tmp_path: Path, name: str, options: dict[str, str], dtype: str, value: int,
    read: Callable[[Path], Record],
) -> None:  # fmt: skip
    path = of_nodata([str(value)], dtype, tmp_path / name, **options)
    record = read(path)
    (band,) = record.bands or []
    assert (band.dtype, band.nodata_text) == (dtype.lower(), str(value))
    assert (record.nodata, band.nodata) == (float(value), float(value))
    assert record.nodata_text == band.nodata_text
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as dataset:
        assert dataset.nodata in (None, band.nodata)


@pytest.mark.parametrize("dtype", ["Int64", "UInt64"])
def test_nodata_that_a_double_holds_is_a_double_alone(
    tmp_path: Path, dtype: str, read: Callable[[Path], Record]
) -> None:
    record = read(of_nodata([str(2**53 - 1), "0"], dtype, tmp_path / "a.vrt", driver="VRT"))
    assert [(band.nodata, band.nodata_text) for band in record.bands or []] == [
        (2**53 - 1, None), (0, None)
    ]  # fmt: skip


def test_nodata_of_64_bits_is_each_band_s_own(
    tmp_path: Path, read: Callable[[Path], Record]
) -> None:
    """Tags may hold what looks like a band, and need not be UTF-8."""
    vrt = of_nodata([str(2**63 - 1), "7", str(-(2**63))], "Int64", tmp_path / "a.vrt", driver="VRT")
    looks = b'<Metadata><MDI key="X">\xe9 &lt;VRTRasterBand band="2">5</MDI></Metadata>'
    vrt.write_bytes(vrt.read_bytes().replace(b"<VRTRasterBand", looks + b"<VRTRasterBand", 1))
    assert [(band.nodata, band.nodata_text) for band in read(vrt).bands or []] == [
        (2.0**63, str(2**63 - 1)), (7.0, None), (-(2.0**63), str(-(2**63))),
    ]  # fmt: skip


def test_no_nodata_of_64_bits_is_none(tmp_path: Path, read: Callable[[Path], Record]) -> None:
    record = read(write(tmp_path / "a.tif", dtype="int64"))
    assert (record.nodata, (record.bands or [])[0].nodata_text) == (None, None)


NOT_A_NUMBER = ["-nan", "-NaN", "-NAN", "-nan(ind)", "nan(0x7ff8)", "+nan", " -nan ", "nan", "NaN"]
MADE_OF_OTHER_TEXTS = [
    "inf", "-inf", "1e400", "0x10", " 5", "5abc", "none", "", "-0", "1,5", "-nanometre", "-3.4e38",
    "-3.40282346638529e+38", "-3.4028234663852886e+38",
]  # fmt: skip


def with_nodata(path: Path, text: str) -> Path:
    path.write_bytes(edited(path.read_bytes(), {NODATA_TAG: text_value(text)}))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_nodata_is_nan_however_it_is_written(
    tmp_path: Path, dtype: str, read: Callable[[Path], Record]
) -> None:
    for at, text in enumerate(NOT_A_NUMBER):
        path = with_nodata(write(tmp_path / f"{at}.tif", dtype=dtype, count=2), text)
        record = read(path)
        bands = record.bands or []
        assert [math.isnan(band.nodata or 0) for band in bands] == [True, True], text
        assert math.isnan(record.nodata or 0)
        assert [band.mask_flags for band in bands] == [["nodata"], ["nodata"]]


@pytest.mark.campaign
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "complex_int16"])
def test_what_else_a_text_for_nodata_is_says_rasterio(
    tmp_path: Path, dtype: str, read: Callable[[Path], Record]
) -> None:
    texts = MADE_OF_OTHER_TEXTS + NOT_A_NUMBER * (dtype != "float32")
    for at, text in enumerate(texts):
        path = with_nodata(write(tmp_path / f"{at}.tif", dtype=dtype), text)
        assert differences(read(path), oracle(str(path))) == {}, text


def test_a_sidecar_file_says_more_about_nodata_than_a_text_that_gdal_misreads(
    tmp_path: Path, read: Callable[[Path], Record]
) -> None:
    path = with_nodata(write(tmp_path / "a.tif", dtype="float32"), "-nan")
    sidecar = tmp_path / "a.tif.aux.xml"
    sidecar.write_text("<PAMDataset/>")
    assert math.isnan(read(path).nodata or 0)
    band = '<PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand>'
    sidecar.write_text(f"<PAMDataset>{band}</PAMDataset>")
    assert (read(path).nodata, oracle(str(path))["nodata"]) == (0.0, 0.0)


# Subdatasets.


def write_numbers(path: Path, *numbers: int, **kind: Any) -> Path:
    """Write a raster with a band for each number, all of whose pixels are that number."""
    bands = np.array(numbers, "uint8")[:, None, None].repeat(8, 1).repeat(8, 2)
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": len(numbers), "dtype": "uint8",
               "crs": "EPSG:32633", "transform": NORTH_UP} | kind  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(bands)
    return path


def netcdf_parts(path: Path, parts: tuple[str, str]) -> None:
    with rasterio.Env(GDAL_PAM_ENABLED=False):
        source = write_numbers(path.with_name("parts.tif"), 1, 2)
        with rasterio.open(source, "r+") as dataset:
            for band, part in enumerate(parts, 1):
                dataset.update_tags(band, NETCDF_VARNAME=part)
        made = path.with_name("made.nc")
        rasterio.shutil.copy(str(source), str(made), driver="netCDF", FORMAT="NC4")
    made.rename(path)


def geopackage_parts(path: Path, parts: tuple[str, str]) -> None:
    made = path.with_name("made.gpkg")
    kind = {"driver": "GPKG", "TILE_FORMAT": "PNG"}
    write_numbers(made, 1, RASTER_TABLE=parts[0], **kind)
    write_numbers(made, 2, RASTER_TABLE=parts[1], APPEND_SUBDATASET="YES", **kind)
    made.rename(path)


def tiff_parts(path: Path, _: tuple[str, str]) -> None:
    write_numbers(path, 1)
    write_numbers(path, 2, APPEND_SUBDATASET="YES")


CONTAINERS: dict[str, Callable[[Path, tuple[str, str]], None]] = {
    "nc": netcdf_parts, "h5": netcdf_parts, "gpkg": geopackage_parts, "tif": tiff_parts,
}  # fmt: skip
PLAIN_NAMES = [
    "plain", "sp ace", "é", "a'b", "a,b", "back\\slash", "[x]", "a#b?c=1", "%41", "-x", " x", "<x>",
]  # fmt: skip
ODD_NAMES = [
    "a:b", "C:x", "NETCDF:x", "netcdf:x", "HDF5:x", "GPKG:x", "GTIFF_DIR:1:x", "zip:x", "file:x",
    "http:x", "a::b", "a:", 'q"uote', '"x"', 'a\\"b',
]  # fmt: skip


def parts_opened(path: Path, record: Record) -> int:
    """Return how many names a container's record has; each opens another part of that file."""
    opened = set()
    for name in record.subdatasets or []:
        with warnings.catch_warnings(action="ignore"), rasterio.open(name) as part:
            assert os.path.samefile(part.files[0], path), name
            opened.add(int(part.read(1).max()))
    assert len(opened) == len(record.subdatasets or [])
    return len(opened)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_names_of_subdatasets_open_wherever_gdal_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    CONTAINERS[kind](tmp_path / "one", ("va", "vb"))
    for name in PLAIN_NAMES + ODD_NAMES:
        path = Path(f"{name}.{kind}")
        shutil.copy("one", path)
        for decoy in (name.replace('"', ""), name.lower()):  # what a misread name would open
            if not Path(f"{decoy}.{kind}").exists():
                shutil.copy("one", f"{decoy}.{kind}")
        for given in (path, path.absolute()):
            record = read_record(given)
            if parts_opened(path, record) == 2:
                assert record.error_type is None
            else:  # GDAL's netCDF and HDF5 know no way to write a quote
                assert ('"' in name, kind in ("nc", "h5"), record.subdatasets) == (True, True, [])
                assert record.error_type == "PartlyRead"
                assert "2 names left out: GDAL cannot open the part" in (record.error_message or "")


@pytest.mark.parametrize("kind", ["nc", "h5", "gpkg"])
@pytest.mark.parametrize("part", ["a:b", "a:", "1:2", "x:y:z", "http:x", 'a"b', "a b", "a'b", "é"])
def test_the_names_of_subdatasets_open_whatever_the_parts_are_called(
    tmp_path: Path, kind: str, part: str
) -> None:
    path = tmp_path / f"parts.{kind}"
    CONTAINERS[kind](path, (part, "a"))
    record = read_record(path)
    if (kind, part) == ("nc", 'a"b'):  # GDAL has no way to write it
        assert parts_opened(path, record) == 1
        assert "1 name left out: GDAL cannot open the part" in (record.error_message or "")
    else:
        assert (parts_opened(path, record), record.error_type) == (2, None)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_plain_names_of_subdatasets_are_rasterio_s_and_none_is_opened(
    tmp_path: Path, kind: str
) -> None:
    def opens(name: str, file: str) -> bool:
        raise AssertionError(name, file)

    path = str(tmp_path / f"plain.{kind}")
    CONTAINERS[kind](Path(path), ("va", "v b"))
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as dataset:
        names = dataset.subdatasets
        with ReadableDataset(path) as same:
            assert subdatasets_of(same, path, opens) == (names, [])


def test_of_many_odd_names_of_subdatasets_some_are_tried() -> None:
    """A path needs one try, whatever is in it; each odd part needs one of its own."""

    class Container:
        driver, name = "GPKG", "/a:b.gpkg"

        def __init__(self, part: str) -> None:
            self._names = {f"SUBDATASET_{at}_NAME": part.format(at) for at in range(1000)}
            self.subdatasets = list(self._names.values())

        def tags_and_left_out(self, ns: str) -> tuple[dict[str, str], list[tuple[int, bytes]]]:
            return self._names if ns == "SUBDATASETS" else {}, []

    tried: list[str] = []

    def opens(name: str, file: str) -> bool:
        tried.append(name)
        return file == Container.name

    names, problems = subdatasets_of(Container("GPKG:/a:b.gpkg:t{}"), Container.name, opens)
    assert (len(names), len(tried), problems) == (1000, 1, [])
    tried.clear()
    names, problems = subdatasets_of(Container("GPKG:/a:b.gpkg:t:{}"), Container.name, opens)
    assert (len(names), len(tried)) == (1000, MAX_TRIED)
    assert problems == [f"{1000 - MAX_TRIED} names with a quote or a colon not tried"]


def test_parts_beyond_a_number_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastermeta_async.readers.subdatasets.MAX_PARTS", 100)

    class Container:
        driver, name = "netCDF", "/a.nc"
        subdatasets = tuple([f"netcdf:/a.nc:v{at}" for at in range(150)])

        def tags_and_left_out(self, ns: str) -> tuple[dict[str, str], list[Any]]:
            return {f"SUBDATASET_{at}_NAME": f'NETCDF:"/a.nc":v{at}' for at in range(150)}, []

    names, problems = subdatasets_of(Container(), Container.name, lambda *_: True)
    assert len(names) == 100
    assert problems == ["50 names left out, as there are more than 100"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_of_a_tiff_are_listed_up_to_a_number(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "pages.tif", MAX_PARTS)
    with rasterio.open(path) as dataset:
        assert read_record(path).subdatasets == dataset.subdatasets
    more = read_record(write_pages(tmp_path / "more.tif", MAX_PARTS + 1))
    assert (more.status, more.error_type) == ("no_georef", "PartlyRead")
    assert (more.count, more.dtype, more.bands, more.subdatasets) == (1, "uint8", None, None)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_that_follow_each_other_in_a_ring_are_counted_once(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "ring.tif", 3)
    content = path.read_bytes()
    path.write_bytes(content[:-4] + content[4:8])
    assert not has_more_images(os.fsencode(path), MAX_PARTS)
    with rasterio.open(path) as dataset:
        assert read_record(path).subdatasets == dataset.subdatasets


def test_a_part_that_does_not_open_costs_no_other() -> None:
    class Container:
        driver, name = "netCDF", "./a:b.nc"

        def __init__(self) -> None:
            self._names = {f"SUBDATASET_{at}_NAME": f'NETCDF:"./a:b.nc":v{at}' for at in (1, 2, 3)}
            self.subdatasets = list(self._names.values())

        def tags_and_left_out(self, ns: str) -> tuple[dict[str, str], list[tuple[int, bytes]]]:
            return self._names if ns == "SUBDATASETS" else {}, []

    names, problems = subdatasets_of(Container(), "a:b.nc", lambda name, _: "v1" not in name)
    assert len(names) == 2
    assert [problem.partition(":")[0] for problem in problems] == ["1 name left out"]


@pytest.mark.parametrize("name", [
    '/vsis3/bucket/{file}:"', '/vsicurl_streaming/http://127.0.0.1:9/{file}"', "/etc/{file}:x",
    'NETCDF:"http://127.0.0.1:9/x.nc":{file}', 'HDF5:"{file}"://a:b', 'GTIFF_DIR:1:{file}":"q',
])  # fmt: skip
def test_a_name_that_a_file_makes_up_for_a_part_is_not_opened(tmp_path: Path, name: str) -> None:
    """GDAL takes subdatasets out of a GeoTIFF's metadata, whatever they are."""

    def opens(name: str, file: str) -> bool:
        raise AssertionError(name, file)

    path = tmp_path / "a:x.tif"
    made_up = name.format(file=path)
    write(path, lambda dataset: dataset.update_tags(ns="SUBDATASETS", SUBDATASET_1_NAME=made_up))
    with ReadableDataset(path) as dataset:
        found = subdatasets_of(dataset, str(path), opens)
    assert len(found.names) == 1
    if not name.startswith(("GTIFF_DIR", "HDF5")):
        assert "1 name not tried, as GDAL does not make such names" in found.problems[0]


def test_no_name_of_a_subdataset_is_given_where_it_is_not_utf_8(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.tif")
    tiff_parts(tmp_path / "one.tif", ("", ""))
    os.rename(tmp_path / "one.tif", path)
    record = read_record(path)
    assert (record.status, record.subdatasets, record.error_type) == ("success", [], "PartlyRead")
    assert "2 names left out: rasterio.open takes no name that is not UTF-8" in (
        record.error_message or ""
    )


# Sidecar files.


@pytest.mark.parametrize("name", ["a.tfw", "a.TFW", "A.TFW", "A.tfw", "a.Tfw", "a.wld", "a.tifw"])
def test_a_world_file_is_found_in_any_case(
    tmp_path: Path, name: str, read: Callable[[Path], Record]
) -> None:
    """GDAL lists the folder by default, and compares names without regard to case."""
    path = write(tmp_path / "a.tif", **UNPLACED)
    (tmp_path / name).write_text(WORLD_FILE)
    assert differences(read(path), oracle(str(path))) == {}


@pytest.mark.parametrize("descending", [False, True])
def test_one_sidecar_in_another_case_is_found_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descending: bool
) -> None:
    """In whatever order the system lists them."""
    path = write(tmp_path / "a.tif", **UNPLACED)
    (tmp_path / "A.tfw").write_text(WORLD_FILE)
    shutil.copy(path, tmp_path / "a.tif.ovr")
    scandir = os.scandir

    def in_order(folder: bytes) -> Any:
        with scandir(folder) as entries:
            return nullcontext(sorted(entries, key=lambda at: at.name, reverse=descending))

    monkeypatch.setattr(os, "scandir", in_order)
    assert differences(read_with_folders(os.fsencode(path)), oracle(str(path))) == {}


@pytest.mark.parametrize(("name", "beside"), [("a.TIF", "a.tif.ovr"), ("a.tif", "a.TIF.ovr")])
def test_overviews_are_found_in_any_case(
    tmp_path: Path, name: str, beside: str, read: Callable[[Path], Record]
) -> None:
    path = write(tmp_path / name)
    shutil.copy(path, tmp_path / beside)
    bands = read(path).bands
    assert bands is not None
    assert bands[0].overviews == [1]
    assert differences(read(path), oracle(str(path))) == {}


def listing_for(path: Path) -> Listing:
    return Folders().listing_on_open(os.fsencode(path))


def test_folders_without_sidecars_are_known(tmp_path: Path) -> None:
    for name in ("a.tif", "B.TIFF", "c.jp2", "d.nc"):
        (tmp_path / name).touch()
    (tmp_path / "folder.xml").mkdir()
    assert listing_for(tmp_path / "a.tif") is Listing.NOTHING_THERE


@pytest.mark.parametrize(
    "name", ["a.TFW", "A.tfw", "a.tab", "a_RPC.TXT", "a.hdr", "a.tif.rsc", "metadata.DIM"]
)
def test_other_names_may_be_sidecars(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert listing_for(tmp_path / "a.tif") is Listing.LIST


@pytest.mark.parametrize("name", ["a.tfw", "a.tif.aux.xml", "a.tif.ovr", "a.wld", "a.tif.msk"])
def test_names_are_tried_where_that_finds_all(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert listing_for(tmp_path / "a.tif") is Listing.TRY_EACH_NAME
    assert listing_for(tmp_path / "b.tif") is Listing.NOTHING_THERE
    assert listing_for(tmp_path / "b.png") is Listing.LIST


@pytest.mark.parametrize("name", ["a", ".tif", "README.txt", "a.json", "b.prj", "b.hdr", "b.imd"])
def test_some_names_are_no_sidecars(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert listing_for(tmp_path / "a.tif") is Listing.NOTHING_THERE


def test_names_are_tried_in_folders_that_cannot_be_listed(tmp_path: Path) -> None:
    assert listing_for(tmp_path / "missing" / "a.tif") is Listing.TRY_EACH_NAME


def test_names_are_tried_where_gdal_lists_no_more(tmp_path: Path) -> None:
    world = world_file(tmp_path)
    world.with_suffix(".imd").touch()
    for number in range(GDAL_MAX_NAMES - 3):
        (tmp_path / f"{number}.tif").touch()
    assert listing_for(world) is Listing.LIST
    assert differences(read_with_folders(os.fsencode(world)), oracle(str(world))) == {}
    for number in range(5):
        (tmp_path / f"more-{number}.tif").touch()
    assert listing_for(world) is Listing.TRY_EACH_NAME
    assert differences(read_with_folders(os.fsencode(world)), oracle(str(world))) == {}


def test_names_are_tried_in_folders_too_large_to_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_NAMES > GDAL_MAX_NAMES
    monkeypatch.setattr("rastermeta_async.readers.sidecars.MAX_NAMES", 2)
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    assert listing_for(tmp_path / "a.tif") is Listing.NOTHING_THERE
    (tmp_path / "c.tif").touch()
    assert listing_for(tmp_path / "a.tif") is Listing.TRY_EACH_NAME


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the folders that are listed, as they are."""
    listed: list[bytes] = []
    scandir = os.scandir

    def watched(folder: bytes) -> Any:
        listed.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", watched)
    return listed


def reader_of(kind: str, folders: Folders) -> RasterioReader | Router:
    reference = RasterioReader(None, folders)
    return Router(reference, folders) if kind == "auto" else reference


@pytest.mark.parametrize("kind", ["auto", "rasterio"])
def test_a_world_file_that_comes_later_counts_after_a_second(tmp_path: Path, kind: str) -> None:
    now = 0.0
    reader = reader_of(kind, Folders(lambda: now))
    paths = [write(tmp_path / f"{number}.tif", **UNPLACED) for number in range(4)]
    with reader.environment():
        for path in paths:
            assert reader.read(os.fsencode(path)).transform == IDENTITY
        for path in paths[:3]:
            path.with_suffix(".tfw").write_text(WORLD_FILE)
            now += MAX_AGE
            record = reader.read(os.fsencode(path))
            assert record.transform == PLACED_BY_WORLD_FILE
            assert differences(record, oracle(str(path))) == {}
            assert reader.read(os.fsencode(paths[3])).transform == IDENTITY


def test_on_a_far_disk_a_sidecar_counts_after_a_second_too(tmp_path: Path) -> None:
    """Where asking for a folder takes long, it is asked for less often, but not for longer."""
    (tmp_path / "a.tif").touch()
    time.sleep(2 * TICK_SECONDS)
    now = 0.0

    def far() -> float:
        nonlocal now
        now += 0.05  # between any two looks at the clock
        return now

    folders, path = Folders(far), os.fsencode(tmp_path / "a.tif")
    assert folders.neighbours(path) is Neighbours.FILES
    (tmp_path / "a.tfw").touch()
    now += MAX_AGE
    assert folders.neighbours(path) is Neighbours.WORLD_FILES


def test_a_folder_that_stays_as_it_is_is_listed_once(tmp_path: Path, listed: list[bytes]) -> None:
    (tmp_path / "a.tif").touch()
    time.sleep(2 * TICK_SECONDS)
    now = 0.0
    folders = Folders(lambda: now)
    for _ in range(10):
        for name in ("a.tif", "b.tif"):
            folders.listing_on_open(os.fsencode(tmp_path / name))
        now += 3600
    assert listed == [os.fsencode(tmp_path)]
    (tmp_path / "a.tfw").touch()
    assert folders.listing_on_open(os.fsencode(tmp_path / "a.tif")) is Listing.TRY_EACH_NAME


def in_threads(number: int, ask: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def test_a_folder_to_which_many_threads_come_at_once_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(2 * TICK_SECONDS)
    folders, path, listed, scandir = Folders(), os.fsencode(tmp_path / "a.tif"), [], os.scandir

    def slow(folder: bytes) -> Any:
        listed.append(folder)
        time.sleep(0.1)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", slow)
    found: list[Neighbours] = []
    for thread in in_threads(30, lambda: found.append(folders.neighbours(path))):
        thread.join(9)
    assert found == [Neighbours.FILES] * 30
    assert len(listed) == 1


def test_a_thread_that_hangs_in_a_folder_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(2 * TICK_SECONDS)
    monkeypatch.setattr("rastermeta_async.readers.sidecars.MAX_AGE", 0.2)
    folders, path, scandir = Folders(), os.fsencode(tmp_path / "a.tif"), os.scandir
    calls, release = iter(range(99)), threading.Event()

    def hanging(folder: bytes) -> Any:
        if next(calls) == 0:
            release.wait(20)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", hanging)
    first, *_ = in_threads(1, lambda: folders.neighbours(path))
    first.join(0.1)
    assert folders.neighbours(path) is Neighbours.FILES
    assert first.is_alive()
    release.set()
    first.join(9)
    assert folders.neighbours(path) is Neighbours.FILES


def folders_with_sidecars(place: Path, number: int, sidecars: int) -> list[bytes]:
    """Return the paths of rasters, each in a folder of its own, that were there for a while."""
    for at in range(number):
        (place / str(at)).mkdir()
        for sidecar in range(sidecars):
            (place / str(at) / f"b{sidecar}.imd").touch()
    time.sleep(2 * TICK_SECONDS)
    return [os.fsencode(place / str(at) / "a.tif") for at in range(number)]


def test_in_random_order_each_of_many_folders_is_listed_once(
    tmp_path: Path, listed: list[bytes]
) -> None:
    now = 0.0
    folders = Folders(lambda: now)
    rasters = folders_with_sidecars(tmp_path, 300, sidecars=0)
    for _ in range(5):
        random.shuffle(rasters)
        for raster in rasters:
            assert folders.listing_on_open(raster) is Listing.NOTHING_THERE
        now += 3600
    assert len(listed) == len(set(listed)) == 300


def test_folders_are_remembered_as_far_as_their_names_have_room(
    tmp_path: Path, listed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were asked last: a list that goes folder by folder needs one."""
    assert MAX_KEPT > 10_000
    monkeypatch.setattr("rastermeta_async.readers.sidecars.MAX_KEPT", 1000)
    folders = Folders(lambda: 0.0)
    rasters = folders_with_sidecars(tmp_path, 20, sidecars=100)
    for raster in rasters:
        for _ in range(2):
            folders.listing_on_open(raster)
    assert len(listed) == 20
    for raster in rasters[-3:]:
        folders.listing_on_open(raster)
    assert len(listed) == 20
    for raster in rasters[:3]:
        folders.listing_on_open(raster)
    assert len(listed) == 23


def test_a_sidecar_that_comes_in_the_tick_in_which_its_folder_was_listed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    folders = Folders(lambda: now)
    raster = os.fsencode(tmp_path / "a.tif")
    status = os.stat(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda _: status)  # the change leaves no trace in it
        patch.setattr(time, "time", lambda: status.st_ctime + TICK_SECONDS / 2)
        before = folders.listing_on_open(raster)
        (tmp_path / "a.tfw").touch()
        patch.setattr(time, "time", lambda: status.st_ctime + 2 * MAX_AGE)
        now += 2 * MAX_AGE
        after = folders.listing_on_open(raster)
    assert (before, after) == (Listing.NOTHING_THERE, Listing.TRY_EACH_NAME)


def test_a_far_folder_is_asked_once_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    asked = 0
    stat = os.stat

    def far(path: Any, **options: Any) -> os.stat_result:
        nonlocal now, asked
        now += 0.05
        asked += 1
        return stat(path, **options)

    folders = Folders(lambda: now)
    monkeypatch.setattr(os, "stat", far)
    for _ in range(1000):
        folders.listing_on_open(os.fsencode(tmp_path / "a.tif"))
        now += 0.01
    assert asked <= 11


def test_a_bare_name_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world_file(tmp_path)
    assert read_with_folders(b"world.tif").transform == PLACED_BY_WORLD_FILE


def test_one_reader_serves_folders_with_and_without_sidecars(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    paths = [world_file(tmp_path / "with"), write(tmp_path / "without" / "a.tif")] * 2
    reader = RasterioReader(folders=Folders())
    with reader.environment():
        records = [reader.read(os.fsencode(path)) for path in paths]
    assert [differences(r, oracle(str(p))) for r, p in zip(records, paths, strict=True)] == [{}] * 4


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
def test_points_nowhere_near_the_earth_have_no_outline(tmp_path: Path, crs: str) -> None:
    """GDAL would not come back from transforming them."""
    points = [GroundControlPoint(p.row, p.col, 1e300 * p.x, p.y) for p in POINTS]
    record = read_record(write(tmp_path / "a.tif", crs=crs, gcps=points, transform=None))
    assert (record.status, record.gcp_count, record.footprint) == ("success", len(POINTS), None)


# Rows of what cannot be read.


def error_of(path: Path | bytes) -> tuple[str, str | None, str | None]:
    record = read_record(path)
    assert {record.crs, record.count, record.transform} == {None}
    return record.status, record.error_type, record.error_message


def test_missing_file(tmp_path: Path) -> None:
    expected = ("error", "FileNotFoundError", "No such file or directory")
    assert error_of(tmp_path / "missing.tif") == expected


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("a.tif\r", "carriage return: is the list from Windows?"),
        ("\ufeffa.tif", "byte order mark: is the list from Windows?"),
        ("a.tif\nb.tif", "are the paths one a line? then leave out -0"),
        (
            "*.tif",
            "the shell did not expand the wildcard, as it is in quotes or fits no file: leave",
        ),
        ("a[0-9].tif", "leave out the quotes, or give the folder and --suffix"),
        ("~/a.tif", "the shell did not expand the ~, as in quotes: write the path out"),
        ("$HOME/a.tif", "the shell did not expand the $"),
        ("ftp://me:hidden@h/a.tif", "ftp is none of the schemes that are read: s3, gs, az, https"),
        ("S3://bucket/a.tif", "write the scheme in lower case: s3://"),
        ("s3:/bucket/a.tif", "a URL has two slashes after the colon"),
        ("HTTPS:/host/a.tif", "a URL has two slashes after the colon"),
        ("file://nas/a.tif", "this names a file of another machine: give the path under which it"),
        ("/vsizip/a.zip/a.tif", "GDAL's own names are no paths"),
        ("there.tif,1234", "is the list a table (CSV)? Give its column of paths alone"),
        ('"there.tif";1234', "is the list a table (CSV)?"),
        ("path,size", "is the list a table (CSV)?"),
        ("id;path;size", "is the list a table (CSV)?"),
        ('1,"there.tif",1234', "is the list a table (CSV)?"),
        ("Filename", "is this the heading of a table? Leave it out"),
        ("there.tif ", "without the blanks or quotes around it: leave them out"),
        ("'there.tif'", "without the blanks or quotes around it: leave them out"),
    ],
)
def test_a_path_that_leads_to_nothing_is_said_with_the_likely_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mistake: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.tif").touch()
    status, kind, message = error_of(os.fsencode(name))
    assert (status, kind) == ("error", "FileNotFoundError")
    assert message is not None
    assert message.startswith("No such file or directory; ")
    assert mistake in message
    assert "hidden" not in message + read_record(name).filepath


@pytest.mark.parametrize("name", ["a, b.tif", "missing.tif,12", "a;b", "it's.tif", "a b.tif"])
def test_no_mistake_is_named_where_nothing_tells_of_one(tmp_path: Path, name: str) -> None:
    assert error_of(tmp_path / name)[2] == "No such file or directory"


def test_a_folder_among_several_fields_is_no_file_in_quotes() -> None:
    assert likely_mistake(b'".", b.tif') == ""


def test_of_a_line_of_very_many_fields_the_disk_is_asked_about_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def is_file(path: bytes) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os.path, "isfile", is_file)
    assert likely_mistake(b"no,such,thing," * 50_000) == ""
    assert len(asked) <= MAX_FIELDS + 1


@pytest.mark.parametrize("name", [b"a\0b.tif", b"x" * 300, b"d/" * 3000 + b"a.tif"])
def test_a_name_that_no_file_can_have_is_no_file(name: bytes) -> None:
    status, kind, message = error_of(name)
    assert (status, kind) == ("error", "InvalidName")
    assert message is not None
    assert message.startswith("no file can have this name")
    assert ("then give -0" in message) == (b"\0" in name)


@pytest.mark.parametrize("start", ["file://", "file:", "FILE://localhost"])
def test_a_file_url_is_the_local_path_that_it_names(tmp_path: Path, start: str) -> None:
    path = write(tmp_path / "a #1 ü.tif")
    url = start + quote(str(path))
    assert read_record(url) == read_record(path)
    assert compare_readers(url).rasterio == read_record(path, reader="rasterio")


def test_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    assert error_of(tmp_path / "a.tif" / "b.tif")[:2] == ("error", "NotADirectoryError")


def truncated(path: Path) -> None:
    write(path)
    os.truncate(path, 100)


NO_RASTERS: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "truncated": truncated,
    "text": lambda path: path.write_text("not a raster\n"),
    "magic only": lambda path: path.write_bytes(b"II*\0"),
    "loop of directories": lambda path: path.write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
}


@pytest.mark.parametrize("make", NO_RASTERS.values(), ids=NO_RASTERS)
def test_broken_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "bad.tif"
    make(path)
    with pytest.raises(rasterio.errors.RasterioIOError) as refusal:
        rasterio.open(path)
    assert error_of(path) == ("error", "RasterioIOError", str(refusal.value))
    assert read_record(path).file_size == path.stat().st_size


def test_a_named_pipe_is_not_opened(tmp_path: Path) -> None:
    """Else a program that waits for its reader would take us for that, and lose what it writes."""
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)))
    writer.start()
    writer.join(0.3)
    assert error_of(pipe) == ("error", "NotAFile", "this is a named pipe, not a file")
    writer.join(0.3)
    assert writer.is_alive()
    os.close(os.open(pipe, os.O_RDONLY))
    writer.join(9)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    message = "this is a folder, not a file: to have it walked, give it as an argument"
    assert error_of(tmp_path) == ("error", "NotAFile", message)
    link = message.replace("a folder", "a link to a folder")
    assert error_of(tmp_path / "link") == ("error", "NotAFile", link)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: bytes) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refusing)
    expected = "Permission denied; what is in this folder is missing"
    assert error_of(tmp_path) == ("fatal", "PermissionError", expected)


def test_a_device_is_no_file() -> None:
    expected = ("error", "NotAFile", "this is a device, not a file")
    assert error_of(os.devnull.encode()) == expected


def refuse(path: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call`, denied for one path."""

    def refusing(given: Any, *args: Any, **options: Any) -> Any:
        if given == os.fsencode(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), given)
        return call(given, *args, **options)

    return refusing


def test_a_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif")
    monkeypatch.setattr(os, "stat", refuse(path, os.stat))
    monkeypatch.setattr(os, "open", refuse(path, os.open))
    assert error_of(path) == ("fatal", "PermissionError", "Permission denied")


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL's own message says only that it cannot open it; as root, any file can be opened."""
    path = tmp_path / "a.tif"
    path.touch()
    monkeypatch.setattr(os, "open", refuse(path, os.open))
    assert error_of(path) == ("fatal", "PermissionError", "Permission denied")


def test_anything_that_rasterio_raises_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Record:
        raise MemoryError

    monkeypatch.setattr("rastermeta_async.readers.rasterio_reader._describe", fail)
    assert error_of(write(tmp_path / "a.tif")) == ("fatal", "MemoryError", "MemoryError()")


# Names.


NAMES = [
    b"r\xff\xfe.tif", "räster.tif".encode(), b"new\nline.tif", b" blank .tif", b"-.tif", b"a:b.tif",
    b"GTIFF_DIR:1:a.tif", b"DERIVED_SUBDATASET:a", b"file:a.tif", b"http:a.tif", b"zip:a.tif!b.tif",
    b"<VRT>.tif", b"a?b#c.tif", b"{}.tif", b"100%.tif", b"vsimem", b"\\.tif", b"a&amp;.tif",
]  # fmt: skip


@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, relative: bool
) -> None:
    """Whatever a file is called, it is read as a file, and its name comes back as given."""
    monkeypatch.chdir(tmp_path)
    usual = write(tmp_path / "usual.tif")
    path = name if relative else os.path.join(os.fsencode(tmp_path), name)
    shutil.copy2(os.fsencode(usual), path)
    record = read_record(path)
    assert differences(record, oracle(str(usual))) == {}
    assert path_bytes(record) == path


# Odd content.


def test_a_column_that_cannot_be_read_is_null_and_the_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("rastermeta_async.readers.rasterio_reader._bands", fail)
    record = read_record(write(tmp_path / "a.tif"))
    assert (record.status, record.bands) == ("success", None)
    assert (record.error_type, record.error_message) == ("PartlyRead", "bands: RuntimeError: odd")


def test_problems_of_a_file_are_said_like_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without secrets, in bounds, and in UTF-8."""

    def fail(*_: object) -> None:
        raise RuntimeError("\udcff: https://me:hidden@h/a.tif?sig=hidden" + " x" * 5000)

    monkeypatch.setattr("rastermeta_async.readers.rasterio_reader._bands", fail)
    message = read_record(write(tmp_path / "a.tif")).error_message or ""
    assert message.startswith(r"bands: RuntimeError: \xff: https://h/a.tif x x")
    assert len(message) == MAX_MESSAGE


def test_a_subdataset_elsewhere_is_named_without_secrets(tmp_path: Path) -> None:
    """GDAL takes subdatasets out of a GeoTIFF's metadata, whatever they are."""
    name = "/vsicurl/https://me:hidden@h/a.tif?sig=hidden"
    path = write(
        tmp_path / "a.tif", lambda one: one.update_tags(ns="SUBDATASETS", SUBDATASET_1_NAME=name)
    )
    record = read_record(path)
    assert record.subdatasets == ["/vsicurl/https://h/a.tif"]
    assert "hidden" not in repr(record)


def test_an_error_left_over_by_gdal_costs_no_column(tmp_path: Path) -> None:
    """GDAL's complaint about one sidecar surfaces in rasterio at the next question asked."""
    path = write(tmp_path / "a.tif", **UNPLACED)
    (tmp_path / "a_rpc.txt").write_text("no RPCs\n")
    record = read_record(path)
    assert record.bands is not None
    assert record.error_type is None


def test_huge_tags_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_TAG_BYTES == 16 * 1024 * 1024
    path = write(tmp_path / "a.tif", lambda dataset: dataset.update_tags(1, LARGE="x" * 5000))
    named = write(tmp_path / "b.tif", lambda dataset: dataset.update_tags(**{"x" * 5000: "1"}))
    monkeypatch.setattr("rastermeta_async.readers.rasterio_reader.MAX_TAG_BYTES", 4000)
    assert read_record(named).dataset_tags is None
    record = read_record(path)
    assert (record.status, record.error_type) == ("success", "PartlyRead")
    assert (record.dataset_tags, record.band_tags, record.imagery_tags) == (None, None, None)
    monkeypatch.setattr("rastermeta_async.readers.rasterio_reader.MAX_TAG_BYTES", 6000)
    assert differences(read_record(path), oracle(str(path))) == {}
    imagery = write(tmp_path / "b.tif", lambda one: one.update_tags(ns="IMAGERY", X="x" * 7000))
    assert read_record(imagery).imagery_tags is None


# Texts that are not UTF-8.

LATIN_1 = b"""<VRTDataset rasterXSize="4" rasterYSize="4">
<SRS>LOCAL_CS["Stra\xdfe",UNIT["metre",1]]</SRS>
<Metadata><MDI key="first">1</MDI><MDI key="gr\xf6\xdfe">  5 \xb5m</MDI>
<MDI key="last">3</MDI></Metadata>
<Metadata domain="IMAGERY"><MDI key="SATELLITEID">Z\xe9ro</MDI></Metadata>
<Metadata domain="RPC"><MDI key="LINE_OFF">\xb1</MDI></Metadata>
<Metadata domain="SUBDATASETS">
<MDI key="SUBDATASET_1_NAME">a\xe9</MDI><MDI key="SUBDATASET_1_DESC">\xe9</MDI></Metadata>
<GCPList Projection="EPSG:4326">
<GCP Id="n\xb0 1" Info="\xe9" Pixel="0" Line="0" X="10" Y="50"/>
<GCP Id="2" Info="" Pixel="4" Line="0" X="11" Y="50" Z="3"/>
<GCP Id="3" Info="" Pixel="0" Line="4" X="10" Y="49"/></GCPList>
<VRTRasterBand dataType="Byte" band="1"><Metadata><MDI key="\xe9">\xff</MDI></Metadata>
<Description>d\xe9bit</Description><UnitType>\xb0C</UnitType></VRTRasterBand>
<VRTRasterBand dataType="Byte" band="2"><Description>second</Description></VRTRasterBand>
</VRTDataset>"""


NOT_OPENED = "subdatasets: 1 name left out: rasterio.open takes no name that is not UTF-8"
"""A name that is only readable would not open."""


def test_texts_that_are_no_utf_8_are_kept_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.vrt"
    path.write_bytes(LATIN_1)
    record = read_record(path)
    assert (record.status, record.error_type) == ("success", "PartlyRead")
    assert record.error_message == NOT_OPENED
    assert record.crs is not None
    assert record.crs.startswith(r'LOCAL_CS["Stra\xdfe",')
    tags = {"first": "1", r"gr\xf6\xdfe": r"5 \xb5m", "last": "3"}
    assert list((record.dataset_tags or {}).items()) == list(tags.items())
    assert record.imagery_tags == {"SATELLITEID": r"Z\xe9ro"}
    assert record.band_tags == {1: {r"\xe9": r"\xff"}}
    assert record.has_rpcs
    assert record.subdatasets == []
    assert [band.description for band in record.bands or ()] == [r"d\xe9bit", "second"]
    assert [band.unit for band in record.bands or ()] == [r"\xb0C", None]
    assert (record.gcp_count, record.footprint) == (3, "gcps")


def test_but_for_its_bytes_a_text_that_is_no_utf_8_changes_nothing(tmp_path: Path) -> None:
    """Among them the place of points, of which rasterio says nothing where a name is odd."""
    odd, usual = tmp_path / "odd.vrt", tmp_path / "usual.vrt"
    odd.write_bytes(LATIN_1)
    usual.write_bytes(LATIN_1.decode("latin-1").encode())

    def told(path: Path) -> str:
        row = read_record(path)._replace(filepath="", mtime=None, file_size=None)
        row = row._replace(subdatasets=None, error_type=None, error_message=None)
        return ascii(exact(row)).replace(r"\\", "\\")

    assert told(odd) == told(usual)


def test_tags_that_are_no_utf_8_need_no_log(tmp_path: Path, caplog: Any) -> None:
    """An application may turn logs off; and nothing is logged that the record has."""
    path = tmp_path / "a.vrt"
    path.write_bytes(LATIN_1)
    expected = read_record(path)
    assert [one for one in caplog.records if one.name == "rasterio._base"] == []
    logging.disable()
    try:
        assert exact(read_record(path)) == exact(expected)
    finally:
        logging.disable(logging.NOTSET)
    with rasterio.open(path.with_name("b.tif"), "w", **UTM) as dataset:
        dataset.update_tags(A="é")
    content = path.with_name("b.tif").read_bytes()
    path.with_name("b.tif").write_bytes(content.replace("é".encode(), b"\xe9\xe9"))
    with ReadableDataset(path.with_name("b.tif")) as dataset:
        assert dataset.tags()["A"] == r"\xe9\xe9"
    assert "Failed to decode metadata item" not in caplog.text
    with rasterio.open(path.with_name("b.tif")) as dataset:
        assert "A" not in dataset.tags(), "what others open is as ever"
    assert "Failed to decode metadata item" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio's own log
def test_messages_that_are_no_utf_8_are_told(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.tif")
    with open(path, "wb") as file:
        file.write(b"nothing")
    record = read_record(path)
    assert (record.status, record.error_type) == ("error", "RasterioIOError")
    assert record.error_message is not None
    assert (
        r"caf\xe9.tif' not recognized as being in a supported file format" in record.error_message
    )


# What a file may reach.


class Site(ThreadingHTTPServer):
    """Serves one raster and counts the connections made."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.content = content
        self.connections = 0

    def verify_request(self, request: object, client_address: object) -> bool:
        self.connections += 1
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/a.tif"


class Page(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self._answer(self.server.content)

    def _answer(self, content: bytes) -> None:
        assert isinstance(self.server, Site)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    content = write(tmp_path / "served.tif").read_bytes()
    with Site(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=[None, "*", "127.0.0.1"])
def no_proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that the user's environment reaches without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if request.param:
        monkeypatch.setenv("NO_PROXY", request.param)


def pointing_at(source: str) -> str:
    return (
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


READ_ALL = """
import sys
from rastermeta_async.one_file import read_record
print(*(read_record(path).status for path in sys.argv[1:]))
"""
OPEN_ALL = """
import sys, rasterio
for path in sys.argv[1:]:
    rasterio.open(path).overviews(1)
"""


def in_a_process(program: str, paths: list[Path]) -> str:
    """rasterio holds Python's lock while it waits for a server: that must be elsewhere."""
    command = [sys.executable, "-c", program, *map(str, paths)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60
    ).stdout


def overlay(image: str) -> str:
    return (
        '<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder><GroundOverlay><Icon>'
        f"<href>{image}</href></Icon><LatLonBox><north>1</north><south>0</south><east>1</east>"
        "<west>0</west></LatLonBox></GroundOverlay></Folder></Document></kml>"
    )


def test_an_overlay_is_a_raster(tmp_path: Path, read: Callable[[Path], Record]) -> None:
    write(tmp_path / "a.tif")
    path = tmp_path / "a.kml"
    path.write_text(overlay("a.tif"))
    record = read(path)
    assert record.crs == "EPSG:4326"
    assert differences(record, oracle(str(path))) == {}


def test_no_file_reaches_the_network(tmp_path: Path, site: Site, no_proxy: None) -> None:
    paths = []
    for at, prefix in enumerate(["/vsicurl/", "/vsicurl?url=", ""]):
        for suffix in ("vrt", "tif"):
            paths.append(tmp_path / f"{at}.{suffix}")
            paths[-1].write_text(pointing_at(prefix + site.url))
        paths.append(tmp_path / f"{at}.kml")
        paths[-1].write_text(overlay(prefix + site.url))
    statuses = in_a_process(READ_ALL, paths).split()
    assert site.connections == 0
    assert len(statuses) == len(paths)
    assert set(statuses) <= {"error", "no_georef"}
    in_a_process(OPEN_ALL, paths[:1])
    assert site.connections > 0, "plain rasterio must ask the server, or this test shows nothing"


@pytest.mark.parametrize("content", [
    "<GDAL_WMS><Service name='TMS'><ServerUrl>{url}</ServerUrl></Service></GDAL_WMS>",
    "<WMT_MS_Capabilities version='1.1.1'>{url}</WMT_MS_Capabilities>",
])  # fmt: skip
def test_descriptions_of_services_are_refused(tmp_path: Path, site: Site, content: str) -> None:
    path = tmp_path / "service.xml"
    path.write_text(content.format(url=site.url))
    assert error_of(path)[:2] == ("error", "RasterioIOError")
    assert site.connections == 0


@pytest.mark.parametrize("drivers", [("PNG",), ("PNG", "JPEG")])
def test_a_driver_that_is_not_listed_opens_nothing(
    tmp_path: Path, drivers: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.tif")
    refused = read_record(path, drivers=drivers)
    assert (refused.status, refused.error_type) == ("error", "RasterioIOError")
    for listed in ("GTiff", "gtiff"):
        assert read_record(path, drivers=(*drivers, listed)).status == "success"


def test_drivers_that_gdal_lacks_open_nothing(tmp_path: Path) -> None:
    """None that is listed is not the same as no list."""
    path = write(tmp_path / "a.tif")
    assert read_record(path, drivers=("NoSuchDriver",)).status == "error"


def test_a_time_that_no_calendar_has_is_null() -> None:
    """Some file systems hold any."""
    for seconds in (10**12, -(10**12)):
        status = SimpleNamespace(st_mtime_ns=seconds * 10**9)
        assert record_time(status) is None  # type: ignore[arg-type]  # as far as it is used


def test_an_empty_list_means_every_driver(tmp_path: Path) -> None:
    path = tmp_path / "a.gti.gpkg"
    write(path, driver="GPKG")
    assert differences(read_record(path, drivers=()), oracle(str(path))) == {}


def test_no_listed_driver_needs_a_service() -> None:
    services = {"WMS", "WMTS", "WCS", "HTTP", "STACIT", "STACTA", "GTI", "MEM", "DERIVED"}
    assert not services & set(SAFE_DRIVERS)


def test_unknown_drivers_are_named() -> None:
    assert unknown_drivers(["gtiff", "NoSuch", "PNG"]) == ["NoSuch"]


def test_reading_changes_nothing(sample_archive: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sample_archive.rglob("*")}

    before = state()
    for path in before:
        read_record(path)
    assert state() == before


@pytest.mark.parametrize(("name", "driver"), [("a.tif", "GTiff"), ("a.img", "HFA")])
def test_warnings_made_errors_cost_nothing(tmp_path: Path, name: str, driver: str) -> None:
    """Python's -W error, or a test suite that wants to see every warning."""
    path = write(tmp_path / name, driver=driver)
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", "Use `@` matmul")
        record = read_record(path)
    assert differences(record, oracle(str(path))) == {}


def test_reading_leaves_no_options_behind(tmp_path: Path) -> None:
    before = rasterio.env.hasenv()  # other libraries leave theirs
    read_record(write(tmp_path / "a.tif"))
    read_with_folders(tmp_path / "a.tif")
    assert rasterio.env.hasenv() == before
    for option in ("GDAL_HTTP_PROXY", "GDAL_DISABLE_READDIR_ON_OPEN", "GDAL_HTTP_TIMEOUT"):
        assert rasterio._env.get_gdal_config(option) is None
