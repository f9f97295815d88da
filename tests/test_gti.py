"""Tile indexes of catalogs, opened by GDAL as mosaics, against merges of the same files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import rasterio
import rasterio.merge
import shapely
from affine import Affine
from factory import band, failed, record

from rastermeta_async.catalog.formats import format_of
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.gis import gti
from rastermeta_async.gis.gti import TileIndexes, export_gti
from rastermeta_async.model.errors import (
    ForeignOutputError,
    OutputError,
    OutputLockedError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.record import Record
from rastermeta_async.one_file import read_record

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

Pixels = np.ndarray[Any, Any]
WKT1 = (
    'PROJCS["mine",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.25]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["central_meridian",14.5],PARAMETER["scale_factor",1],PARAMETER["false_easting",0],'
    'UNIT["foot",0.3048]]'
)
MAIN = "from rastermeta_async.__main__ import main\nmain()"
DICE = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, west: float, north: float, pixel: float = 10.0, **profile: Any) -> str:
    """Write a raster of random pixels at a place; of profile `mask`: with a mask of its own."""
    masked = profile.pop("mask", False)
    plain = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": 20, "height": 15}
    plain |= {"crs": "EPSG:32633", "transform": Affine(pixel, 0, west, 0, -pixel, north)}
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    with rasterio.open(name, "w", **(plain | profile)) as file:
        shape = file.count, file.height, file.width
        file.write(DICE.integers(0, 5, shape).astype(file.dtypes[0]))
        if masked:
            file.write_mask(DICE.integers(0, 2, shape[1:]).astype(bool))
    return name


def write_catalog(records: Sequence[Record], name: str = "catalog.parquet") -> str:
    with open(name, "wb") as file:
        groups = [pa.Table.from_batches([rows_with_footprints(records)])] if records else []
        format_of(name).write(file, groups)
    return name


def exported(paths: Sequence[str | Path], output: str = "indexes", **how: Any) -> TileIndexes:
    catalog = write_catalog([read_record(os.fsencode(path)) for path in paths])
    done = export_gti(catalog, output, **how)
    assert sorted(os.listdir(output)) == done.files
    return done


def merged(paths: Sequence[str], **how: Any) -> Pixels:
    """Return the merge in which the last name covers the others."""
    pixels: Pixels = rasterio.merge.merge(sorted(paths), method="last", **how)[0]
    return pixels


def opened(done: TileIndexes, output: str = "indexes") -> Any:
    (name,) = done.files
    return rasterio.open(Path(output) / name)


@pytest.mark.parametrize(
    ("profile", "bands"),
    [
        ({}, 1),
        ({"nodata": 0}, 1),
        ({"nodata": 3, "count": 3, "photometric": "RGB"}, 3),
        ({"dtype": "float32", "nodata": float("nan")}, 1),
        ({"dtype": "int16", "nodata": -9999, "count": 2}, 2),
        ({"dtype": "float64", "nodata": -3.4028234663852886e38}, 1),
        ({"dtype": "complex64"}, 1),
    ],
)
def test_a_mosaic_has_the_pixels_of_a_merge(profile: dict[str, Any], bands: int) -> None:
    paths = [
        write("archive/a.tif", 500000, 5000000, **profile),
        write("archive/b.tif", 500100, 4999950, **profile),  # over a.tif
        write("archive/sub/folder/c.tif", 500500, 5000300, **profile),
    ]
    done = exported(paths)
    assert (done.rasters, dict(done.left_out.counts)) == (3, {})
    with opened(done) as mosaic, rasterio.open(paths[0]) as first:
        assert mosaic.driver == "GTI"
        assert np.array_equal(mosaic.read(), merged(paths), equal_nan="complex" not in str(profile))
        assert mosaic.count == bands
        assert mosaic.dtypes == first.dtypes
        assert repr(mosaic.nodatavals) == repr(first.nodatavals)
        assert mosaic.crs == first.crs
        assert mosaic.transform == Affine(10, 0, 500000, 0, -10, 5000300)
        assert mosaic.colorinterp == first.colorinterp


def test_the_order_is_that_of_the_names_whatever_that_of_the_rows() -> None:
    paths = [write(f"archive/{name}.tif", 500000, 5000000) for name in "cab"]
    with opened(exported(paths)) as mosaic, rasterio.open("archive/c.tif") as last:
        assert (mosaic.read() == last.read()).all()


def test_a_mask_counts() -> None:
    paths = [write(f"archive/{x}.tif", 500000 + 50 * x, 5000000, mask=True) for x in range(2)]
    with opened(exported(paths)) as mosaic:
        covered = np.zeros((15, 25), bool)
        for x, path in enumerate(paths):
            with rasterio.open(path) as file:
                covered[:, 5 * x : 5 * x + 20] |= file.dataset_mask() > 0
        assert (mosaic.dataset_mask() > 0).tolist() == covered.tolist()
        assert (mosaic.read()[0] == merged(paths)[0])[covered].all()


def test_alpha_counts() -> None:
    """Merges of rasterio take the alpha of the last raster, also where nothing is opaque there."""
    expected = np.zeros((4, 15, 25), "uint8")
    paths = []
    for x in range(2):
        profile: dict[str, Any] = {"count": 4, "alpha": "YES", "photometric": "RGB"}
        paths.append(write(f"archive/{x}.tif", 500000 + 50 * x, 5000000, **profile))
        with rasterio.open(paths[-1], "r+") as file:
            file.write(DICE.choice([0, 255], (15, 20)).astype("uint8"), 4)
            window = expected[:, :, 5 * x : 5 * x + 20]
            window[:, file.read(4) > 0] = file.read()[:, file.read(4) > 0]
    with opened(exported(paths)) as mosaic:
        assert (mosaic.read() == expected).all()


def test_one_index_for_each_kind() -> None:
    paths = [
        write("archive/a.tif", 500000, 5000000),
        write("archive/b.tif", 500000, 5000000),
        write("archive/crs.tif", 500000, 5000000, crs="EPSG:32634"),
        write("archive/pixel.tif", 500000, 5000000, pixel=20),
        write("archive/bands.tif", 500000, 5000000, count=3),
        write("archive/type.tif", 500000, 5000000, dtype="int16"),
        write("archive/nodata.tif", 500000, 5000000, nodata=0),
        write("archive/degrees.tif", 15, 45, pixel=1 / 3600, crs="EPSG:4326"),
    ]
    done = exported(paths)
    beginnings = [name.rsplit("_", 1)[0] for name in done.files]
    assert sorted(beginnings) == [
        "EPSG-32633_10_1xint16", "EPSG-32633_10_1xuint8", "EPSG-32633_10_1xuint8",
        "EPSG-32633_10_3xuint8", "EPSG-32633_20_1xuint8", "EPSG-32634_10_1xuint8",
        "EPSG-4326_0.000277778_1xuint8",
    ]  # fmt: skip
    assert done.rasters == 8
    for name in done.files:
        with rasterio.open(Path("indexes") / name) as mosaic:
            assert mosaic.read().any()
    again = exported(list(reversed(paths)), "others")
    assert again.files == done.files


def test_a_pixel_size_with_noise_is_the_same() -> None:
    pixel = 1 / 3600
    paths = [write("archive/a.tif", 15, 45, pixel=pixel, crs="EPSG:4326"),
             write("archive/b.tif", 15 + 20 * pixel, 45, pixel=pixel * (1 + 1e-13),
                   crs="EPSG:4326")]  # fmt: skip
    with opened(exported(paths)) as mosaic:
        assert mosaic.shape == (15, 40)
        assert (mosaic.read() == merged(paths)).all()


def test_a_crs_without_a_code() -> None:
    paths = [write("archive/a.tif", 500, 600, crs=WKT1), write("archive/b.tif", 600, 600, crs=WKT1)]
    done = exported(paths)
    assert done.files[0].startswith("mine_10_1xuint8_")
    with opened(done) as mosaic:
        assert (mosaic.read() == merged(paths)).all()


@pytest.mark.parametrize("where", ["deep/down", "link", "."])
def test_relative_names_are_found_wherever_the_index_is(here: Path, where: str) -> None:
    (here / "elsewhere" / "far").mkdir(parents=True)
    (here / "link").symlink_to(here / "elsewhere" / "far")
    paths = [write("archive/a.tif", 500000, 5000000)]
    done = export_gti(write_catalog([read_record(b"archive/a.tif")]), where)
    with opened(done, where) as mosaic:
        assert (mosaic.read() == merged(paths)).all()
    (name,) = done.files
    with rasterio.open(here / where / name) as mosaic:
        assert (mosaic.read() == merged(paths)).all()


def test_an_archive_moves_along_with_its_indexes(here: Path, monkeypatch: Any) -> None:
    write("archive/a.tif", 500000, 5000000)
    done = exported(["archive/a.tif"])
    (here / "moved").mkdir()
    (here / "archive").rename(here / "moved" / "archive")
    (here / "indexes").rename(here / "moved" / "indexes")
    monkeypatch.chdir("/")
    with rasterio.open(here / "moved" / "indexes" / done.files[0]) as mosaic:
        assert mosaic.read().any()


def locations(name: str | Path) -> list[str]:
    return list(pyogrio.raw.read(name, read_geometry=False)[3][0])


def test_objects_have_the_names_under_which_gdal_opens_them() -> None:
    urls = {
        b"s3://bucket/a b/%20+#?.tif": "/vsis3/bucket/a b/%20+#?.tif",
        b"gs://bucket/a.tif": "/vsigs/bucket/a.tif",
        b"az://container/a.tif": "/vsiaz/container/a.tif",
        b"https://example.com/a b.tif": "/vsicurl/https://example.com/a%20b.tif",
        b"/vsimem/a.tif": "/./vsimem/a.tif",
        b"-o x:y.tif": "./../-o x:y.tif",
        "/archive/ä\n\".tif".encode(): '/archive/ä\n".tif',
    }  # fmt: skip
    done = export_gti(write_catalog([record(path) for path in urls]), "indexes")
    assert locations(Path("indexes") / done.files[0]) == list(urls.values())


def test_what_has_no_place_in_an_index_is_counted() -> None:
    rotated = (0.0, 10.0, 1.0, 0.0, 1.0, -10.0)
    rows = [
        record(b"/good.tif"),
        failed(b"/bad.tif"),
        failed(b"/worse.tif", "fatal"),
        record(b"/container.nc", count=0, bands=[]),
        record(b"/plain.png", status="no_georef", transform=(0.0, 1.0, 0.0, 0.0, 0.0, 1.0)),
        record(b"/nowhere.tif", crs=None, proj_code=None),
        record(b"/gcps.tif", transform=(0.0, 1.0, 0.0, 0.0, 0.0, 1.0), gcp_count=4),
        record(b"/rotated.tif", transform=rotated),
        record(b"/southup.tif", transform=(0.0, 10.0, 0.0, 0.0, 0.0, 10.0)),
        record(b"/infinite.tif", transform=(0.0, float("inf"), 0.0, 0.0, 0.0, -10.0)),
        record(b"/half.tif", dtype="float16", bands=[band(dtype="float16")]),
        record(b"/few.tif", count=2),
        record(b"/\xff.tif"),
        record(b"https://[/a.tif"),
        record(b"/far.tif", res=(7.0, 7.0), transform=(1e300, 7.0, 0.0, 0.0, 0.0, -7.0)),
        record(b"/farther.tif", res=(7.0, 7.0), transform=(0.0, 7.0, 0.0, 0.0, 0.0, -7.0)),
        record(b"/odd.tif", crs="EPSG:99999999", proj_code=None),
    ]
    done = export_gti(write_catalog(rows), "indexes")
    assert (len(done.files), done.rasters) == (1, 1)
    assert locations(Path("indexes") / done.files[0]) == ["/good.tif"]
    assert dict(done.left_out.counts) == {
        "it could not be read": 2,
        "it is a container without bands of its own": 1,
        "nothing tells its place": 1,
        "its CRS is not known": 1,
        "only ground control points or RPCs tell its place": 1,
        "it is rotated, or not north-up, and GDAL's tile index holds no such raster": 3,
        "GDAL's tile index has no such data type": 2,
        "its path is not UTF-8": 1,
        "its URL is none": 1,
        "the mosaic of its kind would have more than 2^31 columns or rows": 2,
        "GDAL does not know its CRS": 1,
    }
    assert done.left_out.examples["its path is not UTF-8"] == r"/\xff.tif"


def test_a_nodata_of_64_bit_integers_is_not_lost_unsaid() -> None:
    long = band(dtype="int64", nodata=-9999.0)
    rows = [
        record(b"/a.tif", bands=[long], count=1, dtype="int64"),
        record(b"/b.tif", bands=[band(dtype="int64", nodata=None)], count=1, dtype="int64"),
    ]
    done = export_gti(write_catalog(rows), "indexes")
    assert (done.rasters, sum(done.left_out.counts.values())) == (1, 1)
    (reason,) = done.left_out.counts
    assert "nodata of 64-bit integers" in reason


def test_footprints_are_exact() -> None:
    transform = (1 / 3, 1 / 7, 0.0, 2 / 3, 0.0, -1 / 11)
    row = record(crs="EPSG:4326", proj_code="EPSG:4326", transform=transform, width=3, height=5)
    (name,) = export_gti(write_catalog([row]), "indexes").files
    (shape,) = shapely.from_wkb(pyogrio.raw.read(Path("indexes") / name)[2])
    assert shape.bounds == (1 / 3, 2 / 3 + 5 * (-1 / 11), 1 / 3 + 3 * (1 / 7), 2 / 3)
    assert shape.exterior.is_ccw


def test_what_all_rasters_of_a_kind_share_is_in_the_mosaic() -> None:
    scaled = band(scale=0.1, offset=-5.0, unit="K")
    rows = [record(b"/a.tif", bands=[scaled]), record(b"/b.tif", bands=[scaled])]
    (name,) = export_gti(write_catalog(rows), "indexes").files
    with rasterio.open(Path("indexes") / name) as mosaic:
        assert (mosaic.scales, mosaic.offsets, mosaic.units) == ((0.1,), (-5.0,), ("K",))
        assert mosaic.colorinterp == (rasterio.enums.ColorInterp.gray,)
    rows[1] = record(b"/b.tif", bands=[scaled._replace(scale=0.2, unit="m", color_interp="red")])
    (name,) = export_gti(write_catalog(rows), "indexes").files
    with rasterio.open(Path("indexes") / name) as mosaic:
        assert (mosaic.scales, mosaic.offsets, mosaic.units) == ((1.0,), (-5.0,), (None,))
        assert mosaic.colorinterp == (rasterio.enums.ColorInterp.undefined,)


def test_indexes_without_rasters_go_and_files_of_others_stay(here: Path) -> None:
    first = [write("archive/a.tif", 500000, 5000000), write("archive/b.tif", 0, 0, crs="EPSG:3857")]
    exported(first)
    mine, foreign = here / "indexes" / "notes.txt", here / "indexes" / "mine.gti.gpkg"
    mine.write_text("mine")
    shapes = np.array([shapely.box(0, 0, 1, 1).wkb], object)
    kind = {"driver": "GPKG", "geometry_type": "Polygon", "crs": "EPSG:3857"}
    pyogrio.raw.write(foreign, shapes, [], [], **kind)
    done = export_gti(write_catalog([read_record(b"archive/a.tif")]), "indexes")
    assert sorted(os.listdir("indexes")) == sorted([*done.files, "notes.txt", "mine.gti.gpkg"])


def test_an_index_of_others_is_not_replaced(here: Path) -> None:
    paths = [write("archive/a.tif", 500000, 5000000)]
    (name,) = exported(paths).files
    (here / "indexes" / name).write_bytes(b"mine")
    with pytest.raises(ForeignOutputError, match="no export made it; give --overwrite"):
        exported(paths)
    assert (here / "indexes" / name).read_bytes() == b"mine"
    exported(paths, overwrite=True)
    assert locations(here / "indexes" / name) == ["./../archive/a.tif"]


def test_too_many_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gti, "MOST_MOSAICS", 2)
    rows = [record(b"/%d.tif" % n, transform=(0.0, n, 0.0, 0.0, 0.0, -1.0)) for n in (1, 2, 3)]
    with pytest.raises(OutputError, match=r"more than 2 kinds.* take some with --where"):
        export_gti(write_catalog(rows), "indexes")
    assert not Path("indexes").exists()
    assert len(export_gti("catalog.parquet", "indexes", "transform[2] < 3").files) == 2


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("s3://bucket/indexes", SettingsError, "local folder"),
        ("catalog.parquet", ForeignOutputError, "is a file"),
    ],
)
def test_outputs_that_cannot_be(output: str, error: type[Exception], message: str) -> None:
    catalog = write_catalog([record()])
    with pytest.raises(error, match=message):
        export_gti(catalog, output)


def test_a_catalog_that_is_none_leaves_no_folder(here: Path) -> None:
    with pytest.raises(OutputError, match="no finished catalog"):
        export_gti("nonesuch.parquet", "indexes")
    assert not (here / "indexes").exists()


def test_two_exports_do_not_mix_and_a_killed_one_leaves_nothing(here: Path) -> None:
    from rastermeta_async.catalog.temporary import TemporaryFolder

    catalog = write_catalog([record()])
    export_gti(catalog, "indexes")
    with TemporaryFolder("indexes/index"), pytest.raises(OutputLockedError):
        export_gti(catalog, "indexes")
    left = here / "indexes" / "index.0123456789abcdef.tmp"
    left.mkdir()
    (left / "spool").write_bytes(b"half")
    done = export_gti(catalog, "indexes")
    assert os.listdir("indexes") == done.files


def test_no_index_without_its_spatial_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL tells nobody of an error while it closes a file."""
    catalog = write_catalog([record()])

    def write_arrow(rows: Any, path: str, **how: Any) -> None:
        real(rows, path, **how | {"layer_options": {"SPATIAL_INDEX": "NO"}})

    real = pyogrio.write_arrow
    monkeypatch.setattr(pyogrio, "write_arrow", write_arrow)
    with pytest.raises(OutputError, match="the spatial index is missing"):
        export_gti(catalog, "indexes")
    assert not Path("indexes").exists()


def test_the_command_says_what_it_did_and_what_it_left_out() -> None:
    catalog = write_catalog([record(b"/a.tif"), record(b"/b.tif"), failed(b"/\x1bbad.tif")])
    done = command.run(["export", "gti", catalog, "-o", "indexes"])
    assert (done.returncode, done.stdout) == (0, b"indexes: 1 index of 2 rasters\n")
    said = rb"rastermeta: 1 row was left out, e.g. /\x1bbad.tif: it could not be read" + b"\n"
    assert done.stderr == said
    done = command.run(["export", "gti", catalog, "-o", "others", "--where", "filepath > '/a.tif'"])
    assert done.stdout == b"others: 1 index of 1 raster\n"


@pytest.mark.parametrize("missing", ["pyogrio", "duckdb"])
def test_a_missing_library_is_named_with_its_extra(missing: str) -> None:
    catalog = write_catalog([record()])
    without = f"import sys; sys.modules['{missing}'] = None\n{MAIN}"
    asked = ["export", "gti", catalog, "-o", "indexes", "--where", "true"]
    done = command.run(asked, command=[sys.executable, "-c", without])
    assert done.returncode == 1
    assert b"the extra gis, in a clone: pip install '.[gis]'" in done.stderr
    assert not Path("indexes").exists()


@pytest.mark.parametrize("kilobytes", [20, 80, 120, 150, 200])
def test_a_full_disk_leaves_the_earlier_indexes(kilobytes: int) -> None:
    catalog = write_catalog([record(b"/%06d.tif" % number) for number in range(600)])
    (name,) = export_gti(catalog, "indexes").files
    earlier = (Path("indexes") / name).read_bytes()
    assert len(earlier) > 200_000
    with command.no_file_above(kilobytes * 1000), pytest.raises(WriteError) as caught:
        export_gti(catalog, "indexes")
    assert "What stood there before is as it was" in str(caught.value)
    assert os.listdir("indexes") == [name]
    assert (Path("indexes") / name).read_bytes() == earlier
