"""Scenes as items: each file is an asset, which others load as a band of its own."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import geopandas
import numpy as np
import odc.stac
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
from factory import band, failed, record
from items import catalog_of_files, check_item, read_items, write_catalog
from rasterio.transform import from_origin
from typer.testing import CliRunner

from rastermeta_async.cli.app import app
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import Record
from rastermeta_async.stac import assembly, table
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import Export, export
from rastermeta_async.stac.products import PRESETS
from rastermeta_async.stac.scenes import SceneRules

pytestmark = [
    pytest.mark.usefixtures("nothing_stays_open"),
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
]

LC08 = "LC08_L2SP_195025_20200701_20200913_02_T1"
S2 = "S2A_MSIL2A_20200701T103031_N0214_R108_T32UMC_20200701T133200"
GRANULE = f"{S2}.SAFE/GRANULE/L2A_T32UMC_A026244_20200701T103029"
COG = "36/Q/WD/2020/7/S2A_36QWD_20200701_0_L2A"
HLS = "HLS.S30.T32UMC.2020183T103629.v2.0"
TAKEN = {"ACQUISITIONDATETIME": "2020-07-01T10:30:31Z"}


def write_band(path: Path, seed: int, res: float = 10, **profile: Any) -> np.ndarray[Any, Any]:
    """Write a raster of 600 m by 600 m, in EPSG:32632; return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = int(600 / res)
    pixels = np.random.default_rng(seed).integers(1, 5000, (size, size), dtype="uint16")
    base: dict[str, Any] = {
        "driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint16",
        "crs": "EPSG:32632", "transform": from_origin(400_000, 5_600_000, res, res), "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **(base | profile)) as dataset:
        dataset.write(pixels, 1)
        if dataset.driver == "GTiff":
            dataset.update_tags(**TAKEN)
    return pixels


def exported(
    folder: Path, records: Sequence[Record], *scenes: str, name: str = "items.ndjson", **how: Any
) -> tuple[list[dict[str, Any]], Export]:
    """Return the items of records by rules, each held against every schema."""
    catalog = write_catalog(folder / "catalog.parquet", records)
    done = export(str(catalog), str(folder / name), Rules(), scenes=scenes, **how)
    items = read_items(folder / name)
    for item in items:
        check_item(item)
    files = sum(len(item["assets"]) for item in items)
    assert files + sum(done.left_out.values()) == len(records), "each row is somewhere"
    assert len({item["id"] for item in items}) == len(items)
    assert not [at.name for at in folder.iterdir() if at.name.endswith(".tmp")]
    return items, done


def said(folder: Path, records: Sequence[Record], *scenes: str) -> str:
    """Return what the command says on standard error."""
    catalog = write_catalog(folder / "catalog.parquet", records)
    options = [word for scene in scenes for word in ("--scene", scene)]
    output = str(folder / "items.ndjson")
    done = CliRunner().invoke(app, ["export", "stac", str(catalog), "-o", output, *options])
    assert done.exit_code == 0, done.stderr
    return done.stderr


def raster(path: str, **fields: Any) -> Record:
    return record(path.encode(), **({"dataset_tags": TAKEN} | fields))


def only_paths(*paths: str) -> pa.RecordBatch:
    """Return rows of paths that are UTF-8, with the columns that rules look at."""
    nothing, plain = pa.nulls(len(paths), pa.binary()), pa.nulls(len(paths), pa.string())
    names = ["filepath", "filepath_bytes", "member", "subdataset"]
    return pa.RecordBatch.from_arrays([pa.array(paths), nothing, plain, plain], names)


def left_out(folder: Path) -> dict[str, str]:
    lines = (folder / "items.ndjson.left-out.txt").read_text().splitlines()
    return dict(line.split("\t") for line in lines)


# What others load


def loaded(folder: Path, catalog: Path, preset: str, bands: list[str], **how: Any) -> Any:
    """Return the only item of a catalog, and what odc-stac loads of it, a variable a band."""
    output = folder / "items.ndjson"
    export(str(catalog), str(output), Rules(), scenes=[preset])
    (content,) = read_items(output)
    check_item(content)
    item = pystac.Item.from_dict(content)
    return content, odc.stac.load([item], bands=bands, **how).isel(time=0)


def test_bands_of_a_landsat_scene_are_variables(tmp_path: Path) -> None:
    folder = tmp_path / LC08
    names = ["SR_B2", "SR_B3", "SR_B4", "SR_B5"]
    pixels = {
        name: write_band(folder / f"{LC08}_{name}.TIF", seed, res=30)
        for seed, name in enumerate(names)
    }
    (folder / f"{LC08}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\n")
    catalog = catalog_of_files(tmp_path / "catalog.parquet", *sorted(folder.iterdir()))
    item, found = loaded(tmp_path, catalog, "landsat", names)
    assert item["id"] == LC08
    assert set(item["assets"]) == {*names, "MTL.txt"}
    assert item["assets"]["MTL.txt"] | {"file:size": 0} == {
        "href": f"file://{folder}/{LC08}_MTL.txt", "type": "text/plain", "roles": ["metadata"],
        "file:size": 0,
    }  # fmt: skip
    assert item["properties"]["proj:code"] == "EPSG:32632"
    assert item["properties"]["gsd"] == 30
    assert not any(key.startswith(("proj:", "gsd")) for key in item["assets"]["SR_B2"])
    for name in names:
        assert np.array_equal(found[name].to_numpy(), pixels[name])
    common = [item["assets"][name]["bands"][0]["eo:common_name"] for name in names]
    assert common == ["blue", "green", "red", "nir08"]


def test_metadata_files_are_assets_though_they_are_no_rasters_of_an_archive(tmp_path: Path) -> None:
    folder, catalog = tmp_path / LC08, tmp_path / "catalog.parquet"
    write_band(folder / f"{LC08}_SR_B2.TIF", 1, res=30)
    (folder / f"{LC08}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\n")
    (folder / f"{LC08}_SR_B2.TIF.aux.xml").write_text("<PAMDataset></PAMDataset>")
    (folder / "notes.txt").write_text("notes")
    assert command.run(["extract", folder, "-o", catalog]).returncode == 0
    assert pq.read_metadata(catalog).num_rows == 1
    output = tmp_path / "items.ndjson"
    for has_folder in (True, False):
        done = export(str(catalog), str(output), Rules(), scenes=["landsat"])
        (item,) = read_items(output)
        check_item(item)
        assert set(item["assets"]) == {"SR_B2", *(["MTL.txt"] if has_folder else [])}
        assert done.left_out == {}
        shutil.rmtree(f"{catalog}.parts", ignore_errors=True)


def test_bands_of_a_sentinel_2_product_are_variables(tmp_path: Path) -> None:
    images = tmp_path / GRANULE / "IMG_DATA"
    stem = "T32UMC_20200701T103031"
    of_10m = write_band(images / f"R10m/{stem}_B02_10m.tif", 1)
    of_20m = write_band(images / f"R20m/{stem}_B05_20m.tif", 2, res=20)
    lossless: dict[str, Any] = {
        "QUALITY": "100",
        "REVERSIBLE": "YES",
        "driver": "JP2OpenJPEG",
        "nodata": None,
    }
    as_jp2 = write_band(images / f"R10m/{stem}_B04_10m.jp2", 3, **lossless)
    write_band(images / f"R20m/{stem}_B02_20m.tif", 4, res=20)
    (tmp_path / f"{S2}.SAFE" / "MTD_MSIL2A.xml").write_text("<x/>")
    files = sorted(path for path in tmp_path.rglob("*.*") if path.is_file())
    catalog = catalog_of_files(tmp_path / "catalog.parquet", *files)
    names = ["B02_10m", "B04_10m", "B05_20m"]
    item, found = loaded(tmp_path, catalog, "sentinel2", names, resolution=10)
    assert item["id"] == S2
    assert set(item["assets"]) == {*names, "B02_20m", "MTD_MSIL2A.xml"}
    assert np.array_equal(found["B02_10m"].to_numpy(), of_10m)
    assert np.array_equal(found["B04_10m"].to_numpy(), as_jp2)
    assert np.array_equal(found["B05_20m"].to_numpy(), of_20m.repeat(2, 0).repeat(2, 1))
    assert item["properties"]["gsd"] == 10
    assert item["properties"]["proj:code"] == "EPSG:32632"
    assert "proj:shape" not in item["properties"]
    assert item["assets"]["B02_10m"]["proj:shape"] == [60, 60]
    assert item["assets"]["B05_20m"]["gsd"] == 20
    assert item["assets"]["B05_20m"]["proj:transform"] == [20, 0, 400_000, 0, -20, 5_600_000]
    named = {
        key: asset["bands"][0].get("eo:common_name")
        for key, asset in item["assets"].items()
        if "bands" in asset
    }
    assert named == {"B02_10m": "blue", "B02_20m": None, "B04_10m": "red", "B05_20m": "rededge071"}


def test_bands_in_the_layout_of_open_data_are_variables(tmp_path: Path) -> None:
    pixels = [write_band(tmp_path / COG / f"B0{number}.tif", number) for number in (3, 4)]
    files = [tmp_path / COG / f"B0{number}.tif" for number in (3, 4)]
    catalog = catalog_of_files(tmp_path / "catalog.parquet", *files)
    _, found = loaded(tmp_path, catalog, "auto", ["B03", "B04"])
    assert np.array_equal(found["B03"].to_numpy(), pixels[0])
    assert np.array_equal(found["B04"].to_numpy(), pixels[1])


# What a path tells


@pytest.mark.parametrize(
    ("preset", "path", "scene", "asset", "common_name"),
    [
        ("landsat", f"/a/{LC08}/{LC08}_SR_B4.TIF", LC08, "SR_B4", "red"),
        ("landsat", f"s3://b/{LC08}_ST_B10.tif", LC08, "ST_B10", "lwir11"),
        ("landsat", f"{LC08}_QA_PIXEL.TIF", LC08, "QA_PIXEL", None),
        ("landsat", f"/a/{LC08}_MTL.json", LC08, "MTL.json", None),
        ("landsat", f"/a/{LC08}_thumb_small.jpeg", LC08, "thumb_small", None),
        ("landsat", f"/a/{LC08.replace('LC08', 'LT05')}_SR_B4.TIF",
         LC08.replace("LC08", "LT05"), "SR_B4", "nir"),
        ("landsat", f"/a/{LC08.replace('LC08_L2SP', 'LE07_L1TP')}_B6_VCID_1.TIF",
         LC08.replace("LC08_L2SP", "LE07_L1TP"), "B6_VCID_1", None),
        ("landsat", "/a/LC08_L1TP_195025_20200701_20200913_01_T1_B4.TIF", None, None, None),
        ("sentinel2", f"/x/{GRANULE}/IMG_DATA/R10m/T32UMC_20200701T103031_B08_10m.jp2", S2,
         "B08_10m", "nir"),
        ("sentinel2", f"/x/{GRANULE}/QI_DATA/MSK_CLDPRB_20m.jp2", S2, "MSK_CLDPRB_20m", None),
        ("sentinel2", f"/x/{GRANULE}/MTD_TL.xml", S2, "MTD_TL.xml", None),
        ("sentinel2", f"/x/{S2}.SAFE/manifest.safe", S2, "manifest.safe", None),
        ("sentinel2", f"https://h/{COG}/B8A.tif", COG[15:], "B8A", "nir08"),
        ("sentinel2", f"{COG}/thumbnail.jpg", COG[15:], "thumbnail", None),
        ("sentinel2", "/c1/S2B_T32UMC_20230101T103349_L2A/SCL.tif",
         "S2B_T32UMC_20230101T103349_L2A", "SCL", None),
        ("hls", f"/h/{HLS}/{HLS}.B8A.tif", HLS, "B8A", "nir08"),
        ("hls", f"/h/{HLS.replace('S30', 'L30')}.B05.tif", HLS.replace("S30", "L30"), "B05",
         "nir08"),
        ("hls", f"/h/{HLS}.Fmask.tif", HLS, "Fmask", None),
        ("hls", f"/h/{HLS}.cmr.xml", HLS, "cmr.xml", None),
        ("per-folder", "/a/b.c/d.e.tif", "b.c", "d.e", None),
        ("per-folder", "/a/b/notes.txt", "b", "notes.txt", None),
        ("per-folder", "/a\n/b\n/c\n.tif", "b\n", "c\n", None),
        ("per-folder", "alone.tif", None, None, None),
        (r"(?P<asset>B\d)/(?P<scene>\w+)\.tif", "/x/B3/one.tif", "one", "B3", None),
        (r"(?P<scene>x*)_(?P<asset>B\d)", "/_B3.tif", None, None, None),
    ],
)  # fmt: skip
def test_what_a_path_tells(
    preset: str, path: str, scene: str | None, asset: str | None, common_name: str | None
) -> None:
    from rastermeta_async.stac.products import SceneFile

    rows = only_paths("/other", path)
    nothing, told = SceneRules([preset]).of(rows).to_pylist()
    assert nothing["scene"] is None
    assert (told["scene"], told["asset"]) == (scene, asset)
    if scene:
        assert SceneFile(**told).common_name == common_name


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_rule_counts(preset: str) -> None:
    rows = only_paths(f"/x/{LC08}_SR_B4.TIF")
    (told,) = SceneRules([preset, "auto", "per-folder"]).of(rows).to_pylist()
    assert told["rule"] == ("per-folder" if preset == "per-folder" else "landsat")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("landsta", "is neither one of sentinel2, landsat, hls, per-folder, auto nor a regular"),
        ("(?P<scene>a)(", "missing"),
        ("(?P<scene>a)", r"has no group \(\?P<asset>…\)"),
        ("(?P<asset>a)", r"has no group \(\?P<scene>…\)"),
        ("(a)", "unnamed groups.*a group without a name is"),
        ("(?P<scene>a)(?P<asset>b)(?P<band>c)", "has a group band; there are scene, asset, and"),
        (r"(?P<scene>a)(?P<asset>b)(?=c)", "no look-around"),
        ("(?P<scene>a)(?P<asset>b)" + "c" * 1000, "more than 1000 characters"),
        ("(?P<scene>(?:(?:a{1000}){1000}){1000})(?P<asset>b)", "--scene"),
    ],
)
def test_a_rule_that_is_none(rule: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        SceneRules([rule])


def test_a_bad_rule_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog.parquet", [raster("/a.tif")])
    done = command.run(["export", "stac", catalog, "-o", tmp_path / "x.ndjson", "--scene", "(a"])
    assert done.returncode == 2
    assert b"--scene: '(a': " in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "x.ndjson").exists()


def test_no_expression_runs_for_ever() -> None:
    """A backtracking engine takes 2**n steps here."""
    rows = only_paths(*["a" * 4000 + "!"] * 100)
    start = time.process_time()
    told = SceneRules([r"^(?P<scene>(?:a+)+)(?P<asset>(?:a|a)*)$"]).of(rows)
    assert told.column("scene").null_count == 100
    assert time.process_time() - start < 5


# What becomes of rows


def landsat(scene: str = LC08, folder: str = "/a/", **fields: Any) -> list[Record]:
    names = ("SR_B2", "SR_B3", "SR_B4")
    return [raster(f"{folder}{scene}_{name}.TIF", **fields) for name in names]


def of_day(day: int) -> str:
    return LC08.replace("20200701", f"202007{day:02}")


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        (f"/{LC08}_SR_B2.TIF", "2020-07-01T00:00:00.000000Z", "2020-07-01T23:59:59.999999Z"),
        (f"/{GRANULE}/IMG_DATA/R10m/T32UMC_20200701T103031_B02_10m.jp2",
         "2020-07-01T10:30:31.000000Z", None),
        (f"/{COG}/B02.tif", "2020-07-01T00:00:00.000000Z", "2020-07-01T23:59:59.999999Z"),
        (f"/{HLS}.B02.tif", "2020-07-01T10:36:29.000000Z", None),
    ],
)  # fmt: skip
def test_the_name_of_a_product_dates_its_scene(
    tmp_path: Path, path: str, start: str, end: str | None
) -> None:
    written = {"TIFFTAG_DATETIME": "2021:01:01 00:00:00"}  # less sure than the name
    (item,), _ = exported(tmp_path, [raster(path, dataset_tags=written)], "auto")
    times = item["properties"]
    if end:
        assert (times["start_datetime"], times["end_datetime"]) == (start, end)
    else:
        assert times["datetime"] == start
    (item,), _ = exported(tmp_path, [raster(path)], "auto", overwrite=True)
    assert item["properties"]["datetime"] == "2020-07-01T10:30:31.000000Z", "tags are surer"


def test_several_rules_may_tell_the_assets_of_a_scene(tmp_path: Path) -> None:
    rows = [raster(f"/S1/{name}.tif") for name in "abcd"]
    rules = [rf"^(?P<root>.*/)(?P<scene>S\d)/(?P<asset>[{some}])\.tif$" for some in ("ac", "bd")]
    (item,), _ = exported(tmp_path, rows, *rules)
    assert (item["id"], sorted(item["assets"])) == ("S1", ["a", "b", "c", "d"])


def test_folders_that_are_shown_alike_are_not_mixed(tmp_path: Path) -> None:
    """A path that is not UTF-8 belongs to no scene."""
    rows = [raster(r"/A\xff/b.tif"), record(b"/A\xff/a.tif", dataset_tags=TAKEN)]
    (item,), done = exported(tmp_path, rows, "per-folder")
    assert list(item["assets"]) == ["b"]
    assert done.left_out == {assembly.NO_SCENE: 1}


def test_a_collection_without_items_goes(tmp_path: Path) -> None:
    described = tmp_path / "items.ndjson.collection.json"
    exported(tmp_path, landsat(), "auto", collection="x")
    assert described.exists()
    exported(tmp_path, [failed()], "auto", collection="x")
    assert not described.exists()


@pytest.mark.parametrize("name", ["items.ndjson", "items.parquet"])
def test_a_file_of_no_scene_is_an_item_of_its_own_with_auto(tmp_path: Path, name: str) -> None:
    rows = [*landsat(), raster("/a/other.tif"), failed(b"/a/bad.tif")]
    items, done = exported(tmp_path, rows, "auto", name=name)
    assert sorted(len(item["assets"]) for item in items) == [1, 3]
    assert done.left_out == {"it could not be read": 1}
    alone, _ = exported(tmp_path, rows, name=name)
    assert [one for one in items if "data" in one["assets"]] == [
        one for one in alone if one["id"].startswith("other-")
    ]


def test_without_auto_it_is_left_out(tmp_path: Path) -> None:
    items, _ = exported(tmp_path, [*landsat(), raster("/a/other.tif")], "landsat")
    assert [item["id"] for item in items] == [LC08]
    assert left_out(tmp_path) == {"/a/other.tif": "no --scene matches its path"}


@pytest.mark.parametrize("scene", ["auto", "per-folder"])
def test_the_order_of_rows_changes_nothing(tmp_path: Path, scene: str) -> None:
    """In no order of a catalog a scene's files are always neighbours."""
    rows = [row for day in range(1, 9) for row in landsat(of_day(day))]
    rows += [raster(f"/a/{deep}x.tif") for deep in ("", "b/", "c/d/")]
    in_order, _ = exported(tmp_path, rows, scene)
    random.Random(1).shuffle(rows)
    (tmp_path / "catalog.parquet").unlink()
    assert exported(tmp_path, rows, scene)[0] == in_order
    assert len(in_order) == {"auto": 11, "per-folder": 3}[scene]


def test_sorting_in_several_partitions_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rastermeta_async.catalog import resort

    rows = [row for day in range(1, 9) for row in landsat(of_day(day))]
    random.Random(1).shuffle(rows)
    at_once, _ = exported(tmp_path, rows, "auto")
    monkeypatch.setattr(resort, "RUN_ROWS", 5)
    monkeypatch.setattr(resort, "PARTITION_ROWS", 6)
    assert exported(tmp_path, rows, "auto")[0] == at_once


def test_a_scratch_folder_of_a_killed_export_goes(tmp_path: Path) -> None:
    left, theirs = "items.ndjson.0123456789abcdef.tmp", "items.ndjson.mine.tmp"
    for name in (left, theirs):
        (tmp_path / name / "deep").mkdir(parents=True)
    catalog = write_catalog(tmp_path / "catalog.parquet", landsat())
    export(str(catalog), str(tmp_path / "items.ndjson"), Rules(), scenes=["auto"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "catalog.parquet", "items.ndjson", theirs
    }  # fmt: skip


def test_a_scratch_folder_goes_when_an_export_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_MOST_ASSETS", 1)
    catalog = write_catalog(tmp_path / "catalog.parquet", landsat())
    with pytest.raises(SettingsError):
        export(str(catalog), str(tmp_path / "items.parquet"), Rules(), scenes=["auto"])
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.parquet"]


def test_each_form_of_a_catalog_gives_the_same_scenes(tmp_path: Path) -> None:
    rows = [*landsat(), *landsat(of_day(2)), raster("/\xff.tif")]
    expected, _ = exported(tmp_path, rows, "auto")
    catalog = write_catalog(tmp_path / "other.ndjson", rows)
    export(str(catalog), str(tmp_path / "o.ndjson"), Rules(), scenes=["auto"])
    assert read_items(tmp_path / "o.ndjson") == expected


def test_a_file_that_cannot_be_read_is_missed_in_its_scene_alone(tmp_path: Path) -> None:
    rows = [row for day in range(1, 5) for row in landsat(of_day(day))]
    rows[4] = failed(rows[4].filepath.encode())
    rows[8] = raster(rows[8].filepath, status="no_georef", crs=None, proj_code=None)
    items, done = exported(tmp_path, rows, "landsat")
    assert [len(item["assets"]) for item in items] == [3, 2, 2, 3]
    assert set(left_out(tmp_path)) == {rows[4].filepath, rows[8].filepath}
    ((count, first, missing),) = done.notes.lacking()
    assert (count, first, missing) == (2, of_day(2), ["SR_B3"])
    assert (
        "2 scenes have not all assets that most others of the product have: e.g. "
        f"{of_day(2)} lacks SR_B3\n"
    ) in said(tmp_path, rows, "landsat")


def test_products_with_other_bands_lack_nothing(tmp_path: Path) -> None:
    rows = landsat() + landsat(of_day(2))
    rows += [raster(f"/a/{LC08.replace('LC08', 'LE07')}_SR_B1.TIF")]
    assert list(exported(tmp_path, rows, "landsat")[1].notes.lacking()) == []


def test_folders_of_all_kinds_lack_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "_MOST_SETS", 3)
    rows = [raster(f"/a/{at}/{name}.tif") for at in range(5) for name in (f"only{at}", "all")]
    assert list(exported(tmp_path, rows[:4], "per-folder")[1].notes.lacking()) == []
    assert list(exported(tmp_path, rows[1:4], "per-folder")[1].notes.lacking()) == []
    assert list(exported(tmp_path, rows[1:], "per-folder")[1].notes.lacking()) == []


def test_a_scene_with_an_asset_twice_is_left_out_and_said(tmp_path: Path) -> None:
    rule = rf"(?P<scene>{LC08[:17]}\d{{8}}).*_(?P<asset>SR_B\d)"
    rows = [*landsat(), raster(f"/b/{LC08}_SR_B4.TIF"), *landsat(of_day(2))]
    items, _ = exported(tmp_path, rows, rule)
    assert [item["id"] for item in items] == [of_day(2)[:25]]
    assert set(left_out(tmp_path).values()) == {"its scene has an asset twice"}
    assert len(left_out(tmp_path)) == 4
    assert (
        f"1 scene was left out, with an asset twice, e.g. {LC08[:25]}, SR_B4: /a/{LC08}_SR_B4.TIF "
        f"and /b/{LC08}_SR_B4.TIF: let the group scene, or root, tell them apart\n"
    ) in said(tmp_path, rows, rule)
    items, _ = exported(tmp_path, rows, "(?P<root>.*/)" + rule)
    assert len(items) == 3


def test_copies_of_a_scene_are_items_of_their_own(tmp_path: Path) -> None:
    rows = [*landsat(folder="/a/"), *landsat(folder="/b/")]
    items, _ = exported(tmp_path, rows, "landsat")
    first, second = items
    assert first["id"] == LC08
    assert second["id"].startswith(f"{LC08}-")
    assert all("/b/" in asset["href"] for asset in second["assets"].values())
    assert f"1 scene has the name of another one, e.g. {LC08} in /b/: the id of the later" in said(
        tmp_path, rows, "landsat"
    )


def test_assets_in_several_crss_keep_each_its_own(tmp_path: Path) -> None:
    rows = landsat()
    other: dict[str, Any] = {"crs": "EPSG:32632", "proj_code": "EPSG:32632"}
    rows[1] = rows[1]._replace(**other)
    (item,), _ = exported(tmp_path, rows, "landsat")
    codes = {key: asset["proj:code"] for key, asset in item["assets"].items()}
    assert codes["SR_B3"] == "EPSG:32632"
    assert codes["SR_B2"] == codes["SR_B4"] == rows[0].proj_code
    assert "proj:code" not in item["properties"]
    text = f"1 scene has assets in several CRSs, e.g. {LC08}: EPSG:32632, {rows[0].proj_code}: "
    assert text in said(tmp_path, rows, "landsat")


def square(path: str, west: float, size: float = 1.0) -> Record:
    fields: dict[str, Any] = {
        "crs": "EPSG:4326", "proj_code": "EPSG:4326", "width": 10, "height": 10,
        "transform": (west, size / 10, 0.0, 10.0, 0.0, -size / 10),
    }  # fmt: skip
    return raster(path, **fields)


def test_the_geometry_is_that_of_all_assets(tmp_path: Path) -> None:
    rows = [square(f"/f/{at}.tif", float(at)) for at in range(3)]
    (item,), _ = exported(tmp_path, rows, "per-folder")
    assert shapely.geometry.shape(item["geometry"]).equals(shapely.box(0, 9, 3, 10))
    assert item["bbox"] == [0, 9, 3, 10]
    ring = shapely.geometry.shape(item["geometry"]).exterior
    assert ring.is_ccw


def test_the_geometry_is_that_of_the_largest_asset_if_it_covers_the_others(tmp_path: Path) -> None:
    rows = [square("/f/a.tif", 0.0), square("/f/b.tif", 0.00001, 0.99999)]
    (item,), _ = exported(tmp_path, rows, "per-folder")
    assert shapely.geometry.shape(item["geometry"]).equals(shapely.box(0, 9, 1, 10))
    assert item["bbox"] == [0, 9, 1, 10]


def test_a_scene_across_the_antimeridian(tmp_path: Path) -> None:
    rows = [square("/f/a.tif", 178.5), square("/f/b.tif", 179.5), square("/f/c.tif", -179.5)]
    (item,), _ = exported(tmp_path, rows, "per-folder")
    assert item["bbox"] == pytest.approx([178.5, 9, -178.5, 10])
    assert item["geometry"]["type"] == "MultiPolygon"
    (item,), _ = exported(tmp_path, rows, "per-folder", name="items.parquet")
    assert item["bbox"] == pytest.approx([-180, 9, 180, 10])


def test_the_date_is_that_of_the_most_reliable_tags(tmp_path: Path) -> None:
    written = {"TIFFTAG_DATETIME": "2024:01:01 00:00:00"}
    rows = [
        raster("/f/a.tif"), raster("/f/b.tif", dataset_tags=written),
        raster("/f/c.tif", dataset_tags={}),
        raster("/f/d.tif", dataset_tags={"ACQUISITIONDATETIME": "2020-07-01T10:30:41Z"}),
    ]  # fmt: skip
    (item,), _ = exported(tmp_path, rows, "per-folder")
    assert item["properties"]["datetime"] is None
    assert item["properties"]["start_datetime"] == "2020-07-01T10:30:31.000000Z"
    assert item["properties"]["end_datetime"] == "2020-07-01T10:30:41.000000Z"
    (item,), _ = exported(tmp_path, rows[1:3], "per-folder")
    assert item["properties"]["datetime"] == "2024-01-01T00:00:00.000000Z"
    items, done = exported(tmp_path, rows[2:3], "per-folder")
    assert (items, done.left_out) == ([], {"nothing tells its date": 1})


def test_metadata_files_alone_are_no_scene(tmp_path: Path) -> None:
    items, done = exported(tmp_path, [failed(f"/a/{LC08}_MTL.txt".encode())], "landsat")
    assert (items, done.left_out) == ([], {"no raster of its scene has a place": 1})


def test_a_metadata_file_that_does_not_exist_is_no_asset(tmp_path: Path) -> None:
    gone = failed(f"/a/{LC08}_MTL.txt".encode())._replace(error_type="FileNotFoundError")
    (item,), done = exported(tmp_path, [*landsat(), gone], "landsat")
    assert "MTL.txt" not in item["assets"]
    assert done.left_out == {"there is no such file": 1}


def test_a_preview_needs_no_place(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"status": "no_georef", "crs": None, "proj_code": None}
    rows = [raster(f"/{COG}/B04.tif"), raster(f"/{COG}/thumbnail.jpg", driver="JPEG", **fields)]
    (item,), _ = exported(tmp_path, rows, "sentinel2")
    assert item["assets"]["thumbnail"]["roles"] == ["thumbnail"]
    assert "proj:shape" in item["properties"]


def test_a_scene_has_a_limit_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "_MOST_FILES", 5)
    rows = [raster(f"/many/{at}.tif") for at in range(8)] + landsat(folder="/few/")
    items, done = exported(tmp_path, rows, "per-folder")
    assert [item["id"].partition("-")[0] for item in items] == ["few"]
    assert done.left_out == {"its scene has more than 5 files or 100,000 bands": 8}


def test_bands_of_a_scene_are_limited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "_MOST_BANDS", 5)
    many = {"count": 6, "bands": [band()] * 6}
    rows = [raster("/a/1.tif", **many), raster("/b/1.tif", **many), raster("/b/2.tif")]
    items, done = exported(tmp_path, rows, "per-folder")
    assert len(items) == 1, "one file may have more"
    assert sum(done.left_out.values()) == 2


def test_parquet_has_a_limit_of_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MOST_ASSETS", 5)
    rows = [raster(f"/a/{at}.tif") for at in range(6)]
    with pytest.raises(SettingsError, match=r"more than 5 different assets.*give -o NAME\.ndjson"):
        exported(tmp_path, rows, "per-folder", name="items.parquet")
    assert len(exported(tmp_path, rows, "per-folder")[0]) == 1


def test_scenes_as_parquet_are_the_same(tmp_path: Path) -> None:
    """Also with assets that only some scenes have, each with fields of its own."""
    rows = [row for day in range(1, 4) for row in landsat(of_day(day))]
    rows += [raster(f"/{COG}/B04.tif", bands=[band(nodata=1.0, scale=2.0)])]
    rows += [failed(f"/a/{of_day(2)}_MTL.txt".encode())]
    lines, _ = exported(tmp_path, rows, "auto")
    found, _ = exported(tmp_path, rows, "auto", name="items.parquet")
    as_text = [
        json.dumps(item, sort_keys=True).replace(".000000Z", "Z").replace(".0,", ",")
        for item in itertools.chain(lines, found)
    ]
    assert as_text[: len(lines)] == as_text[len(lines) :]
    assert len(geopandas.read_parquet(tmp_path / "items.parquet")) == 4
    assert pq.read_metadata(tmp_path / "items.parquet").num_rows == 4


def test_odd_names_have_ids_without_odd_characters(tmp_path: Path) -> None:
    rule = r"(?P<scene>[^/]+)/(?P<asset>\w+)\.tif"
    rows = [raster(path) for path in ("/x y/a.tif", "/x?y/a.tif", "/x-y/a.tif")]
    items, _ = exported(tmp_path, rows, rule)
    ids = [item["id"] for item in items]
    assert "x-y" in ids
    assert len(set(ids)) == 3
    assert all(one.startswith("x-y") and " " not in one and "?" not in one for one in ids)
