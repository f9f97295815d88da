"""Compare the archive with what rasterio reads from it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import rasterio

from bench.gdal_files import COPY_LEFT, COPY_RES, COPY_SIDE, COPY_TOP, copied_epsg
from bench.scenes import DEFLATE, LZW, ZSTD, Scene, Spec, scene
from bench.tiff import layout_of


def check(directory: Path, spec: Spec, sample: int) -> int:
    """Compare evenly spread files with what rasterio reads; the number compared.

    Raises ValueError at the first difference; any warning of rasterio or GDAL counts as one.
    """
    step = max(1, spec.count // sample) if sample else 1
    numbers = range(0, spec.count, step)
    complaints: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rasterio").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for number in numbers:
                item = scene(spec, number)
                expected, found = _expected(item), _found(f"{directory}/{item.path}", item)
                if expected != found or complaints:
                    raise ValueError(f"{item.path}: {found} is not {expected}; {complaints}")
    finally:
        logging.getLogger("rasterio").removeHandler(handler)
    return len(numbers)


def _expected(item: Scene) -> dict[str, object]:
    kind = item.kind
    if item.form in ("jp2", "img"):
        return {
            "crs": f"EPSG:{copied_epsg(item)}",
            "transform": (COPY_RES, 0.0, COPY_LEFT, 0.0, -COPY_RES, COPY_TOP),
            "shape": (COPY_SIDE, COPY_SIDE, 1, "uint16"),
        }
    shift = kind.res / 2 if kind.point else 0.0
    tags = dict(item.tags) | {"AREA_OR_POINT": "Point" if kind.point else "Area"}
    band_tags = dict(item.band_tags)
    if kind.software:
        tags["TIFFTAG_SOFTWARE"] = kind.software
        tags["TIFFTAG_DATETIME"] = f"{item.tags[0][1][:10].replace('-', ':')} 12:00:00"
    if item.form == "aux":
        tags["REVIEWED"] = item.tags[0][1]
    levels = layout_of(kind, item.width, item.height, 0).levels
    return {
        "crs": f"EPSG:{item.epsg}",
        "transform": (kind.res, 0.0, item.left - shift, 0.0, -kind.res, item.top + shift),
        "shape": (item.width, item.height, kind.bands, kind.dtype),
        "nodata": None if kind.nodata is None else float(kind.nodata),
        "tags": tags,
        "first band": band_tags | ({"PRODUCT": item.tags[3][1]} if item.form == "aux" else {}),
        "last band": band_tags
        | ({"PRODUCT": item.tags[3][1]} if item.form == "aux" and kind.bands == 1 else {}),
        "descriptions": kind.descriptions or (None,) * kind.bands,
        "scale": float(kind.scale or 1),
        "overviews": len(levels) - 1,
        "compression": {LZW: "LZW", DEFLATE: "DEFLATE", ZSTD: "ZSTD"}[kind.compression],
        "layout": "COG" if kind.layout == "cog" else None,
    }


def _found(path: str, item: Scene) -> dict[str, object]:
    with rasterio.open(path) as dataset:
        found: dict[str, object] = {
            "crs": dataset.crs.to_string(),
            "transform": tuple(dataset.transform)[:6],
            "shape": (dataset.width, dataset.height, dataset.count, dataset.dtypes[0]),
        }
        if item.form in ("jp2", "img"):
            return found
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        return found | {
            "nodata": dataset.nodata,
            "tags": dataset.tags(),
            "first band": dataset.tags(1),
            "last band": dataset.tags(dataset.count),
            "descriptions": dataset.descriptions,
            "scale": dataset.scales[0],
            "overviews": len(dataset.overviews(1)),
            "compression": structure.get("COMPRESSION"),
            "layout": structure.get("LAYOUT"),
        }
