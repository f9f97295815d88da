"""A catalog's rows as STAC items.

References: STAC 1.1.0 (item specification, "common metadata", bands); projection extension
v2.0.0; raster extension v2.0.0; stac-geoparquet.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import quote

from rastermeta_async.dates import When
from rastermeta_async.durable import publish
from rastermeta_async.errors import SettingsError
from rastermeta_async.record import SUCCESSES
from rastermeta_async.summary import catalog_rows, layout_of
from rastermeta_async.urls import is_url

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"

COLUMNS = ["filepath", "status", "crs_wkt", "proj_code", "bounds", "res", "count", "transform",
           "width", "height", "bands", "tiled", "driver", "dataset_tags", "geometry", "bbox",
           "footprint"]  # fmt: skip

_DATA_TYPES = {
    "complex_int16": "cint16", "complex_int32": "cint32", "complex64": "cfloat32",
    "complex128": "cfloat64",
}  # fmt: skip
_STAC_TYPES = frozenset(
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
     "float32", "float64", "cint16", "cint32", "cfloat32", "cfloat64"]
)  # fmt: skip
_MEDIA = {
    "JP2OpenJPEG": "image/jp2", "PNG": "image/png", "JPEG": "image/jpeg",
    "netCDF": "application/netcdf", "HDF5": "application/x-hdf5",
}  # fmt: skip
_TIFF = "image/tiff; application=geotiff"


class LeftOut(Exception):  # noqa: N818  # a finding, not an error
    """A row makes no item; the message says why."""


@dataclass
class Export:
    """What became of a catalog."""

    items: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that made no item, by reason."""


def items_of(
    catalog: str, when: When, collection: str | None, base_url: str | None
) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Yield an item for each row, or (path, reason) where there is none.

    Raises:
        OutputError: the catalog is none, or one of another version.
    """
    for row in catalog_rows(catalog, COLUMNS):
        try:
            yield item_of(row, when, collection, base_url)
        except LeftOut as reason:
            yield row["filepath"], str(reason)


def item_of(
    row: dict[str, Any], when: When, collection: str | None = None, base_url: str | None = None
) -> dict[str, Any]:
    """Return the item of a row, given by `COLUMNS`.

    Raises:
        LeftOut: there is none: it was not read, or when or where it is from is not known.
    """
    if row["status"] not in SUCCESSES:
        raise LeftOut("it could not be read")
    if row["geometry"] is None:
        raise LeftOut("it has no footprint")
    interval = when(row["filepath"], dict(row["dataset_tags"] or ()))
    if interval is None:
        raise LeftOut("nothing tells its date")
    start, end = map(_rfc3339, interval)
    box = row["bbox"]
    properties: dict[str, Any] = {"datetime": start if start == end else None}
    if start != end:
        properties |= {"start_datetime": start, "end_datetime": end}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, RASTER],
        "id": _id(row["filepath"]),
        "geometry": _geojson(row["geometry"]),
        "bbox": [box["xmin"], box["ymin"], box["xmax"], box["ymax"]],
        "properties": properties | _projection(row),
        "links": [],
        "assets": {
            "data": {
                "href": _href(row["filepath"], base_url),
                "type": _media_type(row),
                "roles": ["data"],
                "bands": [_band(row, number) for number in range(len(row["bands"] or ()))],
            }
        },
    }
    if collection:
        item["collection"] = collection
        item["links"] = [{"rel": "collection", "href": "./collection.json"}]
    return item


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _id(path: str) -> str:
    """Return the file's name without ending, and what tells it from others of that name."""
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    digest = hashlib.blake2b(path.encode(), digest_size=5).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', stem)}-{digest}"


def _geojson(geometry: bytes) -> dict[str, Any]:
    import shapely

    found: dict[str, Any] = json.loads(shapely.to_geojson(shapely.from_wkb(geometry)))
    return found


def _projection(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the projection extension; those of approximate footprints lack some."""
    fields: dict[str, Any] = {
        "proj:code": row["proj_code"], "proj:shape": [row["height"], row["width"]],
    }  # fmt: skip
    if row["crs_wkt"]:
        fields["proj:wkt2"] = row["crs_wkt"]
    if row["footprint"] == "transform":
        x, a, b, y, d, e = row["transform"]
        bounds = row["bounds"]
        low, high = sorted((bounds["bottom"], bounds["top"]))
        west, east = sorted((bounds["left"], bounds["right"]))
        fields |= {"proj:transform": [a, b, x, d, e, y], "proj:bbox": [west, low, east, high]}
    return fields


def _band(row: dict[str, Any], index: int) -> dict[str, Any]:
    band = row["bands"][index]
    kind = _DATA_TYPES.get(band["dtype"], band["dtype"])
    found: dict[str, Any] = {
        "name": f"b{index + 1}",
        "data_type": kind if kind in _STAC_TYPES else "other",
    }
    if band["description"]:
        found["description"] = band["description"]
    if band["nodata"] is not None:
        found["nodata"] = _number(band["nodata"])
    if band["unit"]:
        found["unit"] = band["unit"]
    if (band["scale"], band["offset"]) != (1.0, 0.0):
        found |= {"raster:scale": band["scale"], "raster:offset": band["offset"]}
    if row["footprint"] == "transform" and row["res"][0] == row["res"][1]:
        found["raster:spatial_resolution"] = row["res"][0]
    return found


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _href(path: str, base_url: str | None) -> str:
    if base_url is None or is_url(path.encode()):
        return path
    relative = os.path.normpath(path).lstrip("/")
    return f"{base_url.rstrip('/')}/{quote(relative)}"


def _media_type(row: dict[str, Any]) -> str:
    if row["driver"] in ("GTiff", "COG"):
        cog = "like a COG" in (layout_of(row) or "")
        return f"{_TIFF}; profile=cloud-optimized" if cog else _TIFF
    return _MEDIA.get(row["driver"], "application/octet-stream")


def export(
    catalog: str, output: str, when: When, collection: str | None, base_url: str | None
) -> Export:
    """Write a catalog as STAC items: one JSON object a line, or stac-geoparquet.

    What makes no item is listed, one path and reason a line, in a file next to the output whose
    name ends in ``.left-out.txt``. Both files take their names when they are complete.

    Raises:
        SettingsError: the output's ending, or stac-geoparquet is not installed.
        OutputError: the catalog is none, or one of another version.
    """
    if not output.endswith((".parquet", ".ndjson", ".jsonl")):
        raise SettingsError(f"{output}: the items' name must end in .parquet, .ndjson or .jsonl")
    lines, listed = f"{output}.items.tmp", f"{output}.left-out.tmp"
    try:
        with open(lines, "w", encoding="utf-8") as items, open(listed, "w") as others:
            result = _write_lines(items_of(catalog, when, collection, base_url), items, others)
        if output.endswith(".parquet"):
            table = f"{output}.tmp"
            _write_parquet(lines, table, result)
            publish(table, output)
            os.unlink(lines)
        else:
            publish(lines, output)
        if result.left_out:
            publish(listed, f"{output}.left-out.txt")
    finally:
        for name in (lines, listed):
            if os.path.exists(name):
                os.unlink(name)
    return result


def _write_lines(
    found: Iterator[dict[str, Any] | tuple[str, str]], items: IO[str], others: IO[str]
) -> Export:
    result = Export()
    for one in found:
        if isinstance(one, dict):
            items.write(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n")
            result.items += 1
        else:
            path, reason = one
            others.write(f"{path.encode('unicode_escape').decode()}\t{reason}\n")
            result.left_out[reason] = result.left_out.get(reason, 0) + 1
    return result


def _write_parquet(lines: str, output: str, result: Export) -> None:
    try:
        import stac_geoparquet.arrow as geoparquet
    except ImportError:
        raise SettingsError(
            "items as Parquet need the extra stac: pip install 'rastermeta-async[stac]', or name "
            "the output .ndjson"
        ) from None
    if not result.items:
        raise SettingsError("there is no item to write: nothing tells a date; give --datetime")
    geoparquet.parse_stac_ndjson_to_parquet(lines, output)
