"""Make the asset of an item of a catalog's row.

References: STAC 1.1.0 (common metadata, bands); projection extension v2.0.0; raster extension
v2.0.0; electro-optical extension v2.0.0; file extension v2.1.0.
"""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from rastermeta_async.footprints.crs import metres_in_a_unit, wkt2_of
from rastermeta_async.model.record import MISSING, SUCCESSES, shown_name
from rastermeta_async.model.text import TIFFS
from rastermeta_async.stac.evidence import Dated
from rastermeta_async.stac.links import Links
from rastermeta_async.stac.products import METADATA, SceneFile

COLUMNS = ("filepath", "filepath_bytes", "status", "error_type", "crs", "crs_wkt", "proj_code",
           "count", "transform", "width", "height", "bands", "cog", "area_or_point", "driver",
           "dataset_tags", "imagery_tags", "subdatasets", "file_size", "geometry", "bbox",
           "footprint", "member", "subdataset", "time_start", "time_end")  # fmt: skip
"""Columns that an asset is made from."""

DATA = "data"
"""Key of the asset of an item that is one file; also the role of most assets."""

_PREVIEWS = frozenset(["overview", "thumbnail"])
"""Roles of assets that need no place."""

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

_COMMON_NAMES = frozenset(
    ["pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071",
     "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir",
     "lwir11", "lwir12"]
)  # fmt: skip
"""Values of ``eo:common_name``."""

_NO_COLOURS = frozenset(["gray", "undefined", "palette"])
"""Colour interpretations that name no band."""

_LONGEST_NAME = 64
"""Characters of a band's name; a longer description is not one."""


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """Choices of the fields of items."""

    legacy_proj: bool = False
    """Also write ``proj:epsg``, which version 2 of the extension replaced by ``proj:code``."""
    finite_nodata: bool = False
    """Leave out a nodata of NaN or infinity, which in JSON is a text."""


class LeftOut(Exception):  # noqa: N818  # a finding, not an error
    """A row has no item; the message says why."""


class Footprint(NamedTuple):
    """The columns of a row that tell where it is."""

    geometry: bytes
    """WKB."""
    bbox: Mapping[str, float]


class Asset(NamedTuple):
    """One file of an item."""

    key: str
    path: str
    """See `name_of`."""
    fields: dict[str, Any]
    """Fields that belong to the asset alone."""
    footprint: Footprint | None = None
    """None: it does not count where the item is."""
    place: Mapping[str, Any] = MappingProxyType({})
    """Fields that belong to the item if its assets agree; empty without a footprint."""
    dated: Dated | None = None


def is_metadata(row: Mapping[str, Any]) -> bool:
    """Tell whether a file of a scene is a metadata file: by its name, and it is no raster."""
    ending = posixpath.splitext(name_of(row))[1].lower()
    return ending in METADATA and not row["count"]


def metadata_asset(row: Mapping[str, Any], file: SceneFile, links: Links) -> Asset:
    """Return the asset of a metadata file of a scene.

    Raises:
        LeftOut: the file does not exist.
    """
    if row["error_type"] in MISSING:
        raise LeftOut("there is no such file")
    kind = METADATA[posixpath.splitext(name_of(row))[1].lower()]
    fields = {"href": _link(row, links), "type": kind, "roles": ["metadata"]}
    return Asset(file.asset, name_of(row), fields | _size(row))


def raster_asset(
    row: Mapping[str, Any], file: SceneFile | None, links: Links, choice: FieldChoice
) -> Asset:
    """Return the asset of a raster, without a date.

    Args:
        row: plain values of `COLUMNS`.
        file: what is known of it as a file of a scene; None: it is an item of its own.
        links: turns paths into links.
        choice: which fields it has.

    Raises:
        LeftOut: the row was not read, or has no bands, or its place is unknown.
    """
    role = file.role if file else DATA
    is_placed = role not in _PREVIEWS
    _check(row, is_placed=is_placed)
    fields: dict[str, Any] = {
        "href": _link(row, links), "roles": [role], "bands": _bands(row, file, choice),
    }  # fmt: skip
    if kind := _media_type(row):
        fields["type"] = kind
    asset = Asset(file.asset if file else DATA, name_of(row), fields | _size(row))
    if not is_placed:
        return asset
    footprint = Footprint(row["geometry"], row["bbox"])
    return asset._replace(footprint=footprint, place=_projection(row, choice))


def path_of(row: Mapping[str, Any]) -> bytes:
    """Return the exact path of a row."""
    path: bytes = row["filepath_bytes"] or row["filepath"].encode()
    return path


def name_of(row: Mapping[str, Any]) -> str:
    """Return the name of a row: its path, and below it that of a member."""
    return shown_name(row["filepath"], row["member"])


def unique_name_of(row: Mapping[str, Any]) -> bytes:
    """Return the exact path of a row, and below it what it is inside that path."""
    inside = [part.encode() for part in (row["member"], row["subdataset"]) if part is not None]
    return b"/".join([path_of(row), *inside])


def _link(row: Mapping[str, Any], links: Links) -> str:
    """Return the link to a raster; to one inside a file, the name that GDAL opens."""
    if row["subdataset"] is not None:
        return links.subdataset(path_of(row), row["subdataset"])
    if row["member"] is not None:
        return links.inside(path_of(row), row["member"])
    return links.of(path_of(row))


def _size(row: Mapping[str, Any]) -> dict[str, int]:
    return {} if row["file_size"] is None else {"file:size": row["file_size"]}


def _check(row: Mapping[str, Any], *, is_placed: bool) -> None:
    if row["status"] not in SUCCESSES:
        raise LeftOut("it could not be read")
    if not row["count"]:
        raise LeftOut("it is a container without bands of its own")
    if is_placed and row["status"] == "no_georef":
        raise LeftOut("nothing tells its place")
    if is_placed and (row["geometry"] is None or row["bbox"] is None):
        raise LeftOut("its place on Earth is not known")


def _projection(row: Mapping[str, Any], choice: FieldChoice) -> dict[str, Any]:
    """Return the fields of the projection extension, and gsd; fewer for approximate footprints.

    A null code means that the CRS has no code; then the WKT defines it.
    """
    code = row["proj_code"]
    fields: dict[str, Any] = {"proj:code": code, "proj:shape": [row["height"], row["width"]]}
    if choice.legacy_proj:
        fields["proj:epsg"] = _epsg(code)
    if not code and (wkt := wkt2_of(row["crs_wkt"])):
        fields["proj:wkt2"] = wkt
    transform = _transform(row)
    if transform:
        x, a, b, y, d, e = transform
        columns = [x + a * i + b * j for i in (0, row["width"]) for j in (0, row["height"])]
        rows = [y + d * i + e * j for i in (0, row["width"]) for j in (0, row["height"])]
        fields["proj:transform"] = [a, b, x, d, e, y]
        limits = [min(columns), min(rows), max(columns), max(rows)]
        if all(map(math.isfinite, limits)):
            fields["proj:bbox"] = limits
    if metres := _metres(row):
        fields["gsd"] = metres
    return fields


def _epsg(code: str | None) -> int | None:
    """Return the number of an EPSG code; None: it has none (projection extension v1.2.0)."""
    authority, _, number = (code or "").partition(":")
    return int(number) if authority == "EPSG" and number.isdecimal() else None


def _transform(row: Mapping[str, Any]) -> Sequence[float] | None:
    """Return the geotransform, if it gives the footprint and its numbers are finite; else None."""
    transform: Sequence[float] = row["transform"] or ()
    placed = row["footprint"] == "transform" and all(map(_is_finite, transform))
    return transform if placed and len(transform) == 6 else None


def _bands(
    row: Mapping[str, Any], file: SceneFile | None, choice: FieldChoice
) -> list[dict[str, Any]]:
    bands = row["bands"] or ()
    shared = _of_all_bands(row)
    found = [_band(band, choice) | shared for band in bands]
    for band, name in zip(found, _names(bands), strict=True):
        band["name"] = name
        if (common := name.lower()) in _COMMON_NAMES and name == band.get("description"):
            band["eo:common_name"] = common
    if file and len(found) == 1:
        found[0]["name"] = file.asset
        if common_name := file.common_name:
            found[0]["eo:common_name"] = common_name
    return found


def _names(bands: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each band: its description, else its colour, if unique, else its number."""
    names = [_description(band) or _colour(band) for band in bands]
    count = Counter(names)
    return [
        name if name and count[name] == 1 else f"b{number}" for number, name in enumerate(names, 1)
    ]


def _description(band: Mapping[str, Any]) -> str | None:
    text: str = band["description"] or ""
    is_name = text == text.strip() and text.isprintable() and len(text) <= _LONGEST_NAME
    # A name like b2 would be that of another band.
    return text if is_name and not (text[:1] == "b" and text[1:].isdecimal()) else None


def _colour(band: Mapping[str, Any]) -> str | None:
    colour: str | None = band["color_interp"]
    return None if colour in _NO_COLOURS else colour


def _of_all_bands(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if row["area_or_point"] in ("Area", "Point"):
        found["raster:sampling"] = row["area_or_point"].lower()
    if resolution := _metres(row):
        found["raster:spatial_resolution"] = resolution
    return found


def _band(band: Mapping[str, Any], choice: FieldChoice) -> dict[str, Any]:
    kind = _DATA_TYPES.get(band["dtype"], band["dtype"])
    found: dict[str, Any] = {"name": "", "data_type": kind if kind in _STAC_TYPES else "other"}
    if band["description"]:
        found["description"] = band["description"]
    if band["nodata"] is not None and (math.isfinite(band["nodata"]) or not choice.finite_nodata):
        exact = band["nodata_text"]
        is_whole = exact and exact[-1].isdigit()
        found["nodata"] = int(exact) if is_whole else _number(band["nodata"])
    if band["unit"]:
        found["unit"] = band["unit"]
    scaling = band["scale"], band["offset"]
    if scaling != (1.0, 0.0) and all(map(_is_finite, scaling)):
        found |= {"raster:scale": band["scale"], "raster:offset": band["offset"]}
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
    size = math.sqrt(abs(a * e - b * d)) * metres
    return size if math.isfinite(size) else None


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
