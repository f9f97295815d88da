"""A raster in each format that this GDAL writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.drivers import raster_driver_extensions
from rasterio.transform import from_origin


def every_format(folder: Path) -> int:
    """Write a raster in each format that GDAL writes here, a folder each; return how many."""
    folder.mkdir()
    kinds = [("uint8", 3, 256), ("uint8", 1, 256), ("int16", 1, 256), ("float32", 1, 1201)]
    for dtype, count, size in kinds:
        for crs, corner, pixel in (("EPSG:3857", 0.0, 156543.03392804097), ("EPSG:4326", 5, 0.1)):
            source = folder.parent / "source.tif"
            shape = {"width": size, "height": size, "count": count, "dtype": dtype}
            transform = from_origin(corner, corner, pixel, pixel)
            with rasterio.open(source, "w", driver="GTiff", crs=crs, transform=transform, **shape):
                pass
            for ending, driver in raster_driver_extensions().items():
                place = folder / driver
                if place.exists():
                    continue
                place.mkdir()
                try:
                    rasterio.shutil.copy(source, place / f"a.{ending}", driver=driver)
                except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError, SystemError):
                    shutil.rmtree(place)  # another kind may fit
    return len(list(folder.iterdir()))
