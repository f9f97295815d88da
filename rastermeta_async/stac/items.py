"""Make STAC items of a catalog's rows, and the collection of these items.

References: STAC 1.1.0 (item and collection specification, common metadata, bands); projection
extension v2.0.0; raster extension v2.0.0; RFC 7946, section 5 (bounding boxes).
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

from rastermeta_async.footprints.crs import metres_in_a_unit, wkt2_of
from rastermeta_async.footprints.limits import parsed, west_to_east
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import SUCCESSES, tags_of
from rastermeta_async.model.text import TIFFS
from rastermeta_async.model.urls import is_url
from rastermeta_async.stac.dates import Interval, rfc3339
from rastermeta_async.stac.evidence import When, evidence_of

_IN_A_PATH = "/!$&'()*+,;=@~"
"""Characters that a path keeps unquoted; not the colon, as text before it looks like a scheme."""

_IN_A_URL = "/!$&'()*+,;=@~:?#[]%"
_IN_A_KEY = "/!$&'()*+,;=@~:#?%"
"""The same for keys of object stores: nobody decodes them, so most characters stay."""

_STORES = ("s3://", "gs://", "az://")


class Hrefs:
    """Turns paths into links.

    Args:
        base_url: URL before local paths; None: the paths themselves are the links.

    Raises:
        SettingsError: a path cannot follow `base_url`, or it is not a URL.
    """

    def __init__(self, base_url: str | None = None) -> None:
        self._base = None if base_url is None else _checked(base_url)

    def of(self, path: bytes) -> str:
        """Return the link to a path, percent-encoded as needed."""
        if is_url(path):
            store = path.startswith(tuple(map(str.encode, _STORES)))
            return quote(path, safe=_IN_A_KEY if store else _IN_A_URL)
        if self._base is None:
            return quote(re.sub(rb"^//+", b"/", path), safe=_IN_A_PATH)
        relative = posixpath.normpath(path).lstrip(b"/")
        while relative.startswith(b"../"):  # links stay below the base
            relative = relative[3:]
        safe = _IN_A_KEY if self._base.startswith(_STORES) else _IN_A_PATH
        return f"{self._base}/{quote(relative, safe=safe)}"


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if not parts.scheme or not (parts.netloc or parts.scheme == "file"):
        raise SettingsError(f"--base-url: {base_url!r} is no URL, like https://example.com/data")
    if (
        parts.query
        or parts.fragment
        or "@" in parts.netloc
        or re.search(r"[\s\x00-\x1f\x7f<>\"{}|\\^`]", base_url)
    ):
        raise SettingsError(
            f"--base-url: {base_url!r} must be a URL without password, ?, # and spaces, as paths "
            "follow it in every link"
        )
    return base_url.rstrip("/")


STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"

COLUMNS = ("filepath", "filepath_bytes", "status", "crs", "crs_wkt", "proj_code", "count",
           "transform", "width", "height", "bands", "cog", "area_or_point", "driver",
           "dataset_tags", "imagery_tags", "subdatasets", "geometry", "bbox",
           "footprint")  # fmt: skip
"""Columns that an item is made from."""

_DATA_TYPES = {
    "complex_int16": "cint16", "complex_int32": "cint32", "complex64": "cfloat32",
    "complex128": "cfloat64",
}  # fmt: skip
_STAC_TYPES = frozenset(
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
     "float32", "float64", "cint16", "cint32", "cfloat32", "cfloat64"]
)  # fmt: skip
_MEDIA = {
    "JP2OpenJPEG": "image/jp2", "PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp",
    "netCDF": "application/netcdf", "HDF5": "application/x-hdf5", "HDF4": "application/x-hdf",
    "GRIB": "application/wmo-GRIB2",
}  # fmt: skip
_TIFF = "image/tiff; application=geotiff"


UNDATED = "nothing tells its date"
"""Reason for leaving out a row that lacks only a date."""


class LeftOut(Exception):  # noqa: N818  # a finding, not an error
    """A row has no item; the message says why."""


def item_of(
    row: Mapping[str, Any], when: When, hrefs: Hrefs, collection: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the item of a row.

    Args:
        row: plain values of `COLUMNS`.
        when: returns the time when it was taken.
        hrefs: turns paths into links.
        collection: id of its collection, and the link to it.

    Raises:
        LeftOut: the row was not read, or has no bands, or its time or place is unknown.
    """
    _check(row)
    tags = tags_of(row["dataset_tags"]), tags_of(row["imagery_tags"])
    interval = when(evidence_of(row["filepath"], *tags))
    if interval is None:
        raise LeftOut(UNDATED)
    path = row["filepath_bytes"] or row["filepath"].encode()
    geometry = _geojson(row["geometry"])
    bands = [_band(row, number) for number in range(len(row["bands"] or ()))]
    asset: dict[str, Any] = {"href": hrefs.of(path), "roles": ["data"], "bands": bands}
    if kind := _media_type(row):
        asset["type"] = kind
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION],
        "id": _id(path),
        "geometry": geometry,
        "bbox": west_to_east(row["bbox"], row["geometry"]),
        "properties": _times(interval) | _projection(row),
        "links": [],
        "assets": {"data": asset},
    }
    # An item that names the extension must have one of its fields, says the extension's schema.
    if any(name.startswith("raster:") for band in bands for name in band):
        item["stac_extensions"].append(RASTER)
    if collection:
        item["collection"] = collection["id"]
        item["links"].append(
            {"rel": "collection", "href": collection["href"], "type": "application/json"}
        )
    return item


def _check(row: Mapping[str, Any]) -> None:
    if row["status"] not in SUCCESSES:
        raise LeftOut("it could not be read")
    if not row["count"]:
        raise LeftOut("it is a container without bands of its own")
    if row["status"] == "no_georef":
        raise LeftOut("nothing tells its place")
    if row["geometry"] is None or row["bbox"] is None:
        raise LeftOut("its place on Earth is not known")


def _times(interval: Interval) -> dict[str, str | None]:
    """Return the fields of common metadata, "Date and Time"; `datetime` is null for a range."""
    start, end = map(rfc3339, interval)
    if start == end:
        return {"datetime": start}
    return {"datetime": None, "start_datetime": start, "end_datetime": end}


def _id(path: bytes) -> str:
    """Return the file name without its suffix, and a digest that makes it unique.

    The id depends only on the path. No character of it needs percent-encoding in a URL.
    """
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"(?<=.)\.[^.]*$", "", name)).strip("-.")
    digest = hashlib.blake2b(path, digest_size=8).hexdigest()
    return f"{stem}-{digest}" if stem else digest


def _geojson(geometry: bytes) -> dict[str, Any]:
    import shapely

    (shape,) = parsed([geometry])
    if shape is None or shape.is_empty:
        raise LeftOut("its place on Earth is not known")
    found: dict[str, Any] = json.loads(shapely.to_geojson(shape))
    return found


def _projection(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the projection extension; fewer for approximate footprints.

    A null code means that the CRS has no code; then the WKT defines it.
    """
    fields: dict[str, Any] = {
        "proj:code": row["proj_code"], "proj:shape": [row["height"], row["width"]],
    }  # fmt: skip
    if not row["proj_code"] and (wkt := wkt2_of(row["crs_wkt"])):
        fields["proj:wkt2"] = wkt
    transform = _transform(row)
    if transform:
        x, a, b, y, d, e = transform
        columns = [x + a * i + b * j for i in (0, row["width"]) for j in (0, row["height"])]
        rows = [y + d * i + e * j for i in (0, row["width"]) for j in (0, row["height"])]
        fields |= {
            "proj:transform": [a, b, x, d, e, y],
            "proj:bbox": [min(columns), min(rows), max(columns), max(rows)],
        }
    return fields


def _transform(row: Mapping[str, Any]) -> Sequence[float] | None:
    """Return the geotransform, if it gives the footprint and its numbers are finite; else None."""
    transform: Sequence[float] = row["transform"] or ()
    placed = row["footprint"] == "transform" and all(map(_is_finite, transform))
    return transform if placed and len(transform) == 6 else None


def _band(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    band = row["bands"][index]
    kind = _DATA_TYPES.get(band["dtype"], band["dtype"])
    found: dict[str, Any] = {
        "name": f"b{index + 1}",
        "data_type": kind if kind in _STAC_TYPES else "other",
    }
    if band["description"]:
        found["description"] = band["description"]
    if band["nodata"] is not None:
        exact = band["nodata_text"]
        is_whole = exact and exact[-1].isdigit()
        found["nodata"] = int(exact) if is_whole else _number(band["nodata"])
    if band["unit"]:
        found["unit"] = band["unit"]
    scaling = band["scale"], band["offset"]
    if scaling != (1.0, 0.0) and all(map(_is_finite, scaling)):
        found |= {"raster:scale": band["scale"], "raster:offset": band["offset"]}
    if row["area_or_point"] in ("Area", "Point"):
        found["raster:sampling"] = row["area_or_point"].lower()
    if resolution := _metres(row):
        found["raster:spatial_resolution"] = resolution
    return found


def _metres(row: Mapping[str, Any]) -> float | None:
    """Return the size of a pixel in metres; None: the CRS has no unit of length."""
    transform = _transform(row)
    return transform and _pixel_metres(row["crs"], tuple(transform))  # type: ignore[return-value]  # never empty


@lru_cache(256)  # the same for all bands, and often for many rasters
def _pixel_metres(crs: str, transform: tuple[float, ...]) -> float | None:
    metres = metres_in_a_unit(crs)
    if metres is None:
        return None
    _, a, b, _, d, e = transform
    return math.sqrt(abs(a * e - b * d)) * metres


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: float) -> float | str:
    """Return a number in the form of common metadata, "nodata"."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _media_type(row: Mapping[str, Any]) -> str | None:
    if row["driver"] in TIFFS:
        return f"{_TIFF}; profile=cloud-optimized" if row["cog"] else _TIFF
    return _MEDIA.get(row["driver"])


def collection_of(
    name: str, catalog: str, extent: Sequence[float], time: Interval
) -> dict[str, Any]:
    """Return the collection of items within an extent and a time interval.

    The user has to fill in what the catalog lacks: the licence is "other", there is no title.
    """
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": f"Rasters of {catalog}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [list(extent)]},
            "temporal": {"interval": [[rfc3339(time.start), rfc3339(time.end)]]},
        },
        "links": [],
    }
