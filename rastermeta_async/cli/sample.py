"""Write a small synthetic archive for trials: good files of many kinds, and some bad ones."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy
from rasterio.transform import from_origin

from rastermeta_async.model.errors import OutputError

SCENES = 12
"""Number of scenes of each kind."""


def write_sample(folder: str, seed: int = 0) -> int:
    """Write the archive into `folder` and return the number of files.

    The same seed gives the same rasters.

    Raises:
        OutputError: the folder is not empty, or cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise OutputError(f"{folder} is not empty: give a new folder")
        rng = random.Random(seed)  # noqa: S311  # a synthetic archive keeps no secrets
        for kind in (_ortho, _elevation, _index):
            os.makedirs(os.path.join(folder, kind.__name__.strip("_")))
            for number in range(SCENES):
                kind(folder, number, rng)
        _oddities(folder)
    except (OSError, RasterioError) as error:
        raise OutputError(f"{folder}: the sample cannot be written: {error}") from error
    return sum(len(names) for _, _, names in os.walk(folder))


def _write(
    path: str, pixels: np.ndarray[Any, Any], then: Callable[[Any], None], **kind: Any
) -> None:
    """Write pixels, shape (bands, rows, columns), as a raster; `then` adds tags and the like."""
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_PAM_ENABLED=False),
        rasterio.open(path, "w", **{"driver": "GTiff"} | size | kind) as dataset,
    ):
        then(dataset)
        dataset.write(pixels)


def _ortho(folder: str, number: int, rng: random.Random) -> None:
    """Write an orthophoto: four 8-bit bands, tiled, with overviews, in a UTM zone.

    Every second one is a cloud-optimised GeoTIFF; the others have their overviews at the end.
    """
    zone = 31 + number % 4
    east, north = 300_000 + 512 * rng.randrange(500), 5_400_000 + 512 * rng.randrange(500)

    def finish(dataset: Any) -> None:
        dataset.descriptions = ("red", "green", "blue", "near infrared")
        dataset.build_overviews([2, 4], Resampling.nearest)
        dataset.update_tags(
            TIFFTAG_DATETIME=f"2024:0{1 + number % 9}:15 10:{number:02}:00", FLIGHT=f"F{zone}"
        )

    path = os.path.join(folder, "ortho", f"ortho_{zone}N_{east}_{north}.tif")
    _write(
        path,
        np.full((4, 512, 512), number, np.uint8),
        finish,
        crs=f"EPSG:{32600 + zone}",
        transform=from_origin(east, north, 0.2, 0.2),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        photometric="RGB",
        alpha="unspecified",
        compress="deflate",
    )
    if number % 2 == 0:
        _make_cog(path)


def _make_cog(path: str) -> None:
    plain = f"{path}.plain"
    os.rename(path, plain)
    copy(plain, path, driver="COG", blocksize=256, compress="deflate")
    os.remove(plain)


def _elevation(folder: str, number: int, rng: random.Random) -> None:
    """Write an elevation model: one float band with NaN as nodata, in degrees."""
    lon, lat = rng.randrange(-20, 40), rng.randrange(30, 70)

    def finish(dataset: Any) -> None:
        dataset.units = ("metre",)
        dataset.update_tags(AREA_OR_POINT="Point")
        dataset.update_tags(1, STATISTICS_MINIMUM=str(number), STATISTICS_MAXIMUM=str(100 * number))

    _write(
        os.path.join(folder, "elevation", f"dem_{lon:+03}_{lat:+03}.tif"),
        np.full((1, 120, 120), float(number), np.float32),
        finish,
        crs="EPSG:4326",
        transform=from_origin(lon, lat, 1 / 120, 1 / 120),
        nodata=float("nan"),
        compress="lzw",
        predictor=3,
    )


def _index(folder: str, number: int, rng: random.Random) -> None:
    """Write a vegetation index: scaled 16-bit integers in web Mercator."""
    x, y = 1000.0 * rng.randrange(1000), 1000.0 * rng.randrange(5000, 8000)

    def finish(dataset: Any) -> None:
        dataset.scales, dataset.offsets = (0.0001,), (0.0,)
        dataset.update_tags(1, VARIABLE="NDVI")

    _write(
        os.path.join(folder, "index", f"ndvi_2024{number + 1:02}.tif"),
        np.full((1, 200, 300), number * 100, np.int16),
        finish,
        crs="EPSG:3857",
        transform=from_origin(x, y, 10, 10),
        nodata=-32768,
    )


def _oddities(folder: str) -> None:
    """Write other contents of archives: other formats, unplaced images, sidecars, broken files."""
    odd = os.path.join(folder, "odd")
    os.makedirs(odd)
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64)

    def nothing(dataset: Any) -> None:
        del dataset

    _write(os.path.join(odd, "scan without place.png"), grey, nothing, driver="PNG")
    _write(
        os.path.join(odd, "map.jp2"), grey, nothing, driver="JP2OpenJPEG", crs="EPSG:3035",
        transform=from_origin(4_000_000, 3_000_000, 100, 100),
    )  # fmt: skip
    _write(
        os.path.join(odd, "radar.img"), grey.astype(np.float32), nothing, driver="HFA",
        crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 20, 20),
    )  # fmt: skip
    corners = [(0, 0, 10.0, 50.0), (0, 64, 10.1, 50.0), (64, 0, 10.0, 49.9), (64, 64, 10.1, 49.9)]
    points = [GroundControlPoint(row, col, x, y) for row, col, x, y in corners]
    _write(os.path.join(odd, "airphoto_gcps.tif"), grey, nothing, gcps=points, crs="EPSG:4326")
    _write(os.path.join(odd, "worldfile.tif"), grey, nothing)
    _text(os.path.join(odd, "worldfile.tfw"), "2.0\n0.0\n0.0\n-2.0\n600001.0\n5000001.0\n")
    whole = os.path.join(odd, "truncated.tif")
    _write(whole, grey, nothing)
    os.truncate(whole, 100)
    _text(os.path.join(odd, "empty.tif"), "")
    _text(os.path.join(odd, "README.txt"), "Not every file in an archive is a raster.\n")


def _text(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
