"""Fields of items that searches and older readers need."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import pystac.extensions.projection
import pystac.validation
import pytest
import rustac
import stac_geoparquet.arrow
from factory import band, record
from items import check_item, read_items, write_catalog
from typer.testing import CliRunner

from rastermeta_async.cli.app import app
from rastermeta_async.model.record import Record
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import export
from rastermeta_async.stac.items import LEGACY_PROJECTION, PROJECTION

TAKEN = {"ACQUISITIONDATETIME": "2020-07-01T10:30:31Z"}
FEET = {"crs": "EPSG:2263", "proj_code": "EPSG:2263"}
DEGREES: dict[str, Any] = {
    "crs": "EPSG:4326", "proj_code": "EPSG:4326", "transform": (10.0, 0.1, 0.0, 50.0, 0.0, -0.1),
}  # fmt: skip


def raster(path: bytes = b"/a.tif", **fields: Any) -> Record:
    return record(path, **({"dataset_tags": TAKEN} | fields))


def item_of(folder: Path, row: Record) -> dict[str, Any]:
    catalog = write_catalog(folder / "catalog.parquet", [row])
    export(str(catalog), str(folder / "items.ndjson"), Rules())
    (item,) = read_items(folder / "items.ndjson")
    check_item(item)
    return item


def by_command(folder: Path, row: Record, *options: str, name: str = "items.ndjson") -> Any:
    """Return the item of a row as the command with these options writes it."""
    catalog = write_catalog(folder / "catalog.parquet", [row])
    asked = ["export", "stac", str(catalog), "-o", str(folder / name), *options]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.stderr
    (item,) = read_items(folder / name)
    return item


@pytest.mark.parametrize(
    ("fields", "gsd"),
    [
        ({"transform": (500_000.0, 10.0, 0.0, 5e6, 0.0, -10.0)}, 10.0),
        ({"transform": (500_000.0, 3.0, 4.0, 5e6, 4.0, -3.0)}, 5.0),
        (FEET | {"transform": (980_000.0, 10.0, 0.0, 200_000.0, 0.0, -10.0)}, 3.048006096),
        (DEGREES, None),
    ],
)
def test_gsd_is_in_metres_where_the_crs_tells_it(
    tmp_path: Path, fields: dict[str, Any], gsd: float | None
) -> None:
    properties = item_of(tmp_path, raster(**fields))["properties"]
    assert properties.get("gsd") == (gsd if gsd is None else pytest.approx(gsd))


@pytest.mark.parametrize(
    ("bands", "names"),
    [
        ([("Red", "gray"), ("NIR", "undefined")], ["Red", "NIR"]),
        ([(None, "red"), (None, "green"), (None, "blue"), (None, "alpha")],
         ["red", "green", "blue", "alpha"]),
        ([(None, "gray")], ["b1"]),
        ([(None, "palette")], ["b1"]),
        ([("ndvi", "gray"), ("ndvi", "gray"), ("mask", "gray")], ["b1", "b2", "mask"]),
        ([("b2", "gray"), (None, "gray")], ["b1", "b2"]),
        ([("x" * 65, "gray"), ("two\nlines", "gray"), (" ", "gray")], ["b1", "b2", "b3"]),
        ([("Höhe", "gray")], ["Höhe"]),
    ],
)  # fmt: skip
def test_a_band_is_named_by_what_is_told_of_it(
    tmp_path: Path, bands: list[tuple[str | None, str]], names: list[str]
) -> None:
    rows = [band(description=text, color_interp=colour) for text, colour in bands]
    item = item_of(tmp_path, raster(count=len(rows), bands=rows))
    found = item["assets"]["data"]["bands"]
    assert [one["name"] for one in found] == names
    assert [one.get("description") for one in found] == [text for text, _ in bands]


def test_a_common_name_is_told_by_a_description_not_by_a_colour(tmp_path: Path) -> None:
    """False colours are red, green and blue in a file, too."""
    told = [
        band(description="NIR", color_interp="red"), band(color_interp="green"),
        band(description="red band", color_interp="blue"),
    ]  # fmt: skip
    found = item_of(tmp_path, raster(count=3, bands=told))["assets"]["data"]["bands"]
    assert [one.get("eo:common_name") for one in found] == ["nir", None, None]


def test_the_size_of_a_file_is_told_where_it_is_known(tmp_path: Path) -> None:
    assert item_of(tmp_path, raster(file_size=1234))["assets"]["data"]["file:size"] == 1234
    item = item_of(tmp_path, raster(file_size=None))
    assert "file:size" not in item["assets"]["data"]
    assert not any("/file/" in name for name in item["stac_extensions"])


@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
@pytest.mark.parametrize(
    ("fields", "epsg"),
    [({}, 32633), ({"crs": "ESRI:54009", "proj_code": "ESRI:54009"}, None)],
)
def test_legacy_readers_get_an_epsg_number(
    tmp_path: Path, fields: dict[str, Any], epsg: int | None, name: str
) -> None:
    item = by_command(tmp_path, raster(**fields), "--legacy-proj", name=name)
    assert LEGACY_PROJECTION in item["stac_extensions"]
    assert PROJECTION not in item["stac_extensions"]
    assert item["properties"].get("proj:epsg") == epsg
    assert item["properties"]["proj:code"] == fields.get("proj_code", "EPSG:32633")
    pystac.validation.validate_dict(item, extensions=[])
    read = pystac.Item.from_dict(item)
    assert pystac.extensions.projection.ProjectionExtension.ext(read).epsg == epsg
    assert "proj:epsg" not in by_command(tmp_path, raster(**fields))["properties"]


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_a_nodata_that_is_no_number_can_be_left_out(
    tmp_path: Path, value: float, text: str
) -> None:
    rows = [band(nodata=value, dtype="float32"), band(nodata=-9999.0, dtype="float32")]
    row = raster(count=2, bands=rows)
    output = tmp_path / "items.ndjson"
    bands = by_command(tmp_path, row)["assets"]["data"]["bands"]
    assert [one["nodata"] for one in bands] == [text, -9999]
    with pytest.raises(rustac.RustacError):
        rustac.read_sync(str(output))
    with pytest.raises(pa.ArrowInvalid):
        stac_geoparquet.arrow.parse_stac_ndjson_to_arrow(output)
    item = by_command(tmp_path, row, "--finite-nodata")
    assert [one.get("nodata") for one in item["assets"]["data"]["bands"]] == [None, -9999]
    check_item(item)
    assert stac_geoparquet.arrow.parse_stac_ndjson_to_arrow(output).read_all().num_rows == 1
    assert rustac.read_sync(str(output))["id"] == item["id"]
