"""Files that only GDAL reads in full: JPEG 2000 with tags of a scene, HFA, and a sidecar."""

from __future__ import annotations

from functools import lru_cache

from bench.scenes import UTM, Scene


def sidecar(item: Scene) -> bytes:
    """Make a PAM file (.aux.xml) that adds tags to the dataset and to band 1."""
    return (
        "<PAMDataset>\n  <Metadata>\n"
        f'    <MDI key="REVIEWED">{item.tags[0][1]}</MDI>\n'
        '  </Metadata>\n  <PAMRasterBand band="1">\n    <Metadata>\n'
        f'      <MDI key="PRODUCT">{item.tags[3][1]}</MDI>\n'
        "    </Metadata>\n  </PAMRasterBand>\n</PAMDataset>\n"
    ).encode()


COPY_SIDE = 64
COPY_LEFT, COPY_TOP, COPY_RES = 300000.0, 5000040.0, 10.0


@lru_cache(maxsize=256)
def gdal_copy(form: str, epsg: int) -> bytes:
    """Make a small image with rasterio; all files of that form and zone are copies of it."""
    import numpy as np
    import rasterio
    import rasterio.shutil

    pixels = (np.arange(COPY_SIDE**2) % 251).astype("uint16").reshape(COPY_SIDE, COPY_SIDE)
    driver, options = {
        "jp2": ("JP2OpenJPEG", {"REVERSIBLE": "YES", "QUALITY": "100", "WRITE_METADATA": "YES"}),
        "img": ("HFA", {"COMPRESSED": "YES"}),
    }[form]
    with rasterio.MemoryFile() as source, rasterio.MemoryFile(ext=f".{form}") as target:
        with source.open(
            driver="GTiff",
            width=COPY_SIDE,
            height=COPY_SIDE,
            count=1,
            dtype="uint16",
            crs=f"EPSG:{epsg}",
            transform=rasterio.Affine(COPY_RES, 0, COPY_LEFT, 0, -COPY_RES, COPY_TOP),
        ) as dataset:
            dataset.write(pixels, 1)
            dataset.update_tags(ns="IMAGERY", SATELLITEID="A")  # the decoder of JP2 leaves it out
        with source.open() as dataset:
            rasterio.shutil.copy(dataset, target.name, driver=driver, **options)
        return bytes(target.read())


def copied_epsg(item: Scene) -> int:
    """Tell the CRS of a copy: the UTM zone of the scene, else zone 33N."""
    return item.epsg if item.epsg in UTM else UTM[32]
