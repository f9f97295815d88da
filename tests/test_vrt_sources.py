"""VRTs whose sources are missing say so, and no source is opened for that."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from command import run, write_raster

from rastermeta_async.cli.summary import summary_of
from rastermeta_async.one_file import read_record
from rastermeta_async.readers import vrt_sources


def write_vrt(path: Path, *names: str, relative: int = 1) -> Path:
    """Write a VRT that describes its sources, as GDAL then opens none of them."""
    made = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>'
        '<SourceProperties RasterXSize="4" RasterYSize="4" DataType="Byte" BlockXSize="4"'
        ' BlockYSize="4"/></SimpleSource>'
        for name in names
    )
    path.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{made}</VRTRasterBand></VRTDataset>'
    )
    return path


def missing(path: Path) -> int | None:
    record = read_record(path)
    assert (record.status, record.error_type) == ("success", None)
    return record.missing_sources


def test_sources_that_are_not_there_are_counted(tmp_path: Path) -> None:
    write_raster(tmp_path / "there.tif")
    (tmp_path / "mosaics").mkdir()
    vrt = write_vrt(
        tmp_path / "mosaics" / "a.vrt", "../there.tif", "gone.tif", "gone.tif", "x/y.tif"
    )
    assert missing(vrt) == 2


def test_a_vrt_with_all_its_sources_lacks_none(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "there.tif")
    assert missing(write_vrt(tmp_path / "a.vrt", str(source), relative=0)) == 0


def test_other_files_have_no_sources(tmp_path: Path) -> None:
    assert missing(write_raster(tmp_path / "plain.tif")) is None


def test_names_are_relative_to_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_raster(tmp_path / "real" / "there.tif")
    write_vrt(tmp_path / "real" / "a.vrt", "there.tif")
    (tmp_path / "link.vrt").symlink_to(tmp_path / "real" / "a.vrt")
    assert missing(tmp_path / "link.vrt") == 0


@pytest.mark.parametrize(
    "name",
    ["/vsis3/bucket/a.tif", "/vsizip/a.zip/a.tif", "https://example.com/a.tif", "s3://bucket/a.tif",
     "NETCDF:&quot;a.nc&quot;:v", "&lt;VRTDataset/&gt;"],
)  # fmt: skip
def test_what_is_no_local_file_does_not_count(name: str, tmp_path: Path) -> None:
    assert missing(write_vrt(tmp_path / "a.vrt", name, relative=0)) == 0


def test_names_are_those_that_rasterio_would_open(tmp_path: Path) -> None:
    """Pixels come from the sources that count as there, and fail with those that do not."""
    with rasterio.open(
        tmp_path / "there & so on.tif", "w", driver="GTiff", width=4, height=4, count=1,
        dtype="uint8", crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(np.full((1, 4, 4), 7, "uint8"))
    good = write_vrt(tmp_path / "good.vrt", "there &amp; so on.tif")
    bad = write_vrt(tmp_path / "bad.vrt", "gone.tif")
    with rasterio.open(good) as dataset:
        assert (dataset.read() == 7).all()
    with rasterio.open(bad) as dataset, pytest.raises(rasterio.RasterioIOError):
        dataset.read()
    assert (missing(good), missing(bad)) == (0, 1)


def test_at_most_so_many_sources_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vrt_sources, "MAX_SOURCES", 5)
    vrt = write_vrt(tmp_path / "a.vrt", *(f"{number}.tif" for number in range(20)))
    assert missing(vrt) == 5


def test_a_vrt_of_many_bytes_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vrt = write_vrt(tmp_path / "a.vrt", *(f"{number}.tif" for number in range(2000)))
    monkeypatch.setattr(vrt_sources, "MAX_BYTES", 20_000)
    monkeypatch.setattr(vrt_sources, "_BLOCK_BYTES", 10_000)
    assert 50 < vrt_sources.missing_sources(os.fsencode(vrt)) < 200


def test_entities_cannot_grow(tmp_path: Path) -> None:
    """A text that expands to gigabytes ends the search (expat's limit of amplification)."""
    levels = "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10}">' for at in range(1, 12))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        f'<!DOCTYPE x [<!ENTITY e0 "abcdefghij">{levels}]>'
        "<VRTDataset><SourceFilename>a.tif</SourceFilename><SourceFilename>&e11;</SourceFilename></VRTDataset>"
    )
    assert vrt_sources.missing_sources(os.fsencode(vrt)) == 1


def test_xml_that_breaks_off_counts_so_far(tmp_path: Path) -> None:
    vrt = tmp_path / "a.vrt"
    vrt.write_text("<VRTDataset><SourceFilename>a.tif</SourceFilename><SourceFilename>b")
    assert vrt_sources.missing_sources(os.fsencode(vrt)) == 1


def test_the_summary_and_show_say_it(tmp_path: Path) -> None:
    vrt = write_vrt(tmp_path / "a.vrt", "gone.tif", "lost.tif")
    catalog = tmp_path / "catalog.parquet"
    assert run(["extract", vrt, "-o", catalog]).returncode == 0
    assert summary_of(str(catalog)).incomplete == 1
    told = run(["summary", catalog]).stdout.decode()
    assert "\nVRTs of which files are missing: 1\n" in told
    assert "sources        2 files missing" in run(["show", vrt]).stdout.decode()
