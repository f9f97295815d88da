"""The links of items: others follow them to the files, wherever these are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
from items import catalog_of_files
from rasterio.transform import from_origin
from rio_tiler.io import STACReader
from typer.testing import CliRunner

from rastermeta_async.cli.app import app
from rastermeta_async.stac.links import Links, is_relative

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
    # rio-tiler: of bands without statistics.
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC:UserWarning"),
]

PIXELS = np.arange(400, dtype="uint16").reshape(20, 20)


def write_dated(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": 20, "height": 20, "count": 1, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 65535,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(PIXELS, 1)
        dataset.update_tags(ACQUISITIONDATETIME="2020-01-31T12:34:56Z")


def exported(folder: Path, *options: str, file: Path | str) -> tuple[pystac.Item, str]:
    """Return the item of a file, seen from the file of the items, and what the export said."""
    catalog, output = folder / "catalog.parquet", folder / "out" / "items.ndjson"
    output.parent.mkdir()
    catalog_of_files(catalog, file)
    done = CliRunner().invoke(app, ["export", "stac", str(catalog), "-o", str(output), *options])
    assert done.exit_code == 0, done.stderr
    (line,) = output.read_text().splitlines()
    item = pystac.Item.from_dict(json.loads(line))
    item.set_self_href(str(output))
    return item, done.stderr


def pixels_by_odc(item: pystac.Item, **how: Any) -> Any:
    return odc.stac.load([item], bands=["data"], **how)["data"].isel(time=0).to_numpy()


@pytest.mark.parametrize("options", [[], ["--base-url", "file:///"]])
def test_a_file_is_opened_by_its_url(tmp_path: Path, options: list[str]) -> None:
    write_dated(tmp_path / "archive" / "地図+b,c=1.tif")
    item, said = exported(tmp_path, *options, file=tmp_path / "archive" / "地図+b,c=1.tif")
    assert item.assets["data"].href == f"file://{tmp_path}/archive/地図+b,c=1.tif"
    assert said == ""
    assert np.array_equal(pixels_by_odc(item), PIXELS)
    with STACReader(None, item=item) as reader:
        assert reader.info(assets=["data"])["data"].width == 20
    with rasterio.open(item.assets["data"].get_absolute_href()) as dataset:
        assert np.array_equal(dataset.read(1), PIXELS)
    (tmp_path / "archive" / "地図+b,c=1.txt").write_text("metadata")
    assert pystac.StacIO.default().read_text(item.assets["data"].href[:-3] + "txt") == "metadata"


def test_a_url_with_a_blank_is_opened_when_it_is_decoded(tmp_path: Path) -> None:
    """As the message and the help say: rasterio and pystac take a path as it stands."""
    write_dated(tmp_path / "my archive" / "ä.tif")
    item, said = exported(tmp_path, file=tmp_path / "my archive" / "ä.tif")
    href = item.assets["data"].href
    assert href == f"file://{tmp_path}/my%20archive/ä.tif"
    assert "1 link has percent-encoded characters, which rasterio and pystac do not decode" in said
    with pytest.raises(rasterio.errors.RasterioIOError):
        rasterio.open(href)
    assert np.array_equal(pixels_by_odc(item, patch_url=unquote), PIXELS)


def test_a_relative_link_resolves_from_the_file_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dated(tmp_path / "archive" / "a.tif")
    monkeypatch.chdir(tmp_path)
    item, said = exported(tmp_path, file="archive/a.tif")
    assert item.assets["data"].href == "../archive/a.tif"
    assert "1 link is relative to " in said
    assert "or loaded into an API, they lead nowhere; give --base-url, or absolute paths" in said
    assert item.assets["data"].get_absolute_href() == str(tmp_path / "archive" / "a.tif")
    assert np.array_equal(pixels_by_odc(item), PIXELS)
    with STACReader(None, item=item) as reader:
        assert reader.info(assets=["data"])["data"].width == 20


@pytest.mark.parametrize(
    ("folder", "path", "link"),
    [
        ("", b"a/b.tif", "a/b.tif"),
        (".", b"./b.tif", "b.tif"),
        ("out/deep", b"a/b.tif", "../../a/b.tif"),
        ("..", b"b.tif", "here/b.tif"),
        ("/elsewhere", b"b.tif", None),
    ],
)
def test_relative_links_by_the_folder_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, path: bytes, link: str | None
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    links = Links(folder=folder)
    found = links.of(path)
    assert found == (link or os.path.relpath(tmp_path / "here" / "b.tif", folder))
    assert is_relative(found)
