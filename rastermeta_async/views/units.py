"""What a CRS says of its units, and its WKT of the newer kind; each is asked of PROJ once."""

from __future__ import annotations

import re
from functools import lru_cache

from rasterio import Env
from rasterio.crs import CRS
from rasterio.errors import RasterioError

_LONGEST = 256 * 1024
_CODE_OR_WKT = re.compile(r"[A-Za-z]\w*:[\w.-]+$|\s*[A-Za-z]\w*\s*[\[(]", re.ASCII)
"""What records have. GDAL would take a URL, too, and ask there, or the name of a file."""


@lru_cache(1024)
def crs_of(text: str) -> CRS | None:
    """Return a CRS by its code or WKT, None where it is none."""
    if len(text) > _LONGEST or not _CODE_OR_WKT.match(text):
        return None
    try:
        with Env():  # or GDAL itself writes to standard error
            return CRS.from_user_input(text)
    except (RasterioError, ValueError):
        return None


@lru_cache(1024)
def metres_in_a_unit(crs: str | None) -> float | None:
    """Return how many metres a unit of a CRS is; None: it has angles, or nothing tells."""
    found = crs_of(crs) if crs else None
    if found is None or not found.is_projected:
        return None
    try:
        _, metres = found.linear_units_factor
    except (RasterioError, ValueError):
        return None
    return float(metres) if metres > 0 else None


@lru_cache(1024)
def unit_of(crs: str | None) -> str:
    """Return the sign of a CRS's unit, e.g. m, ft or °; empty where nothing tells."""
    found = crs_of(crs) if crs else None
    if found is None:
        return ""
    if found.is_geographic:
        return "°"
    try:
        name, metres = found.linear_units_factor
    except (RasterioError, ValueError):
        return ""
    return "m" if metres == 1 else _SIGNS.get(name.lower(), name)


_SIGNS = {
    "kilometre": "km", "kilometer": "km", "foot": "ft", "us survey foot": "ftUS",
    "foot_us": "ftUS", "unknown": "",
}  # fmt: skip


@lru_cache(1024)
def wkt2_of(wkt: str | None) -> str | None:
    """Return WKT of any kind as WKT2 (OGC 18-010r7), None where it has none."""
    found = crs_of(wkt) if wkt else None
    try:
        return found.to_wkt(version="WKT2_2019") if found else None
    except RasterioError:
        return None
