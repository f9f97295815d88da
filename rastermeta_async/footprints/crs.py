"""Describes CRSs for records: code, WKT and units; asks PROJ for each only once.

CRSs made of WKT are cached, because PROJ takes long to make them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from rasterio import Env
from rasterio.crs import CRS
from rasterio.errors import RasterioError


class CrsStrings(NamedTuple):
    """The columns of a record that describe a CRS; None where one is absent."""

    text: str | None
    code: str | None
    wkt: str | None


NO_CRS = CrsStrings(None, None, None)
ENSEMBLES = {
    "World Geodetic System 1984": 4326, "European Terrestrial Reference System 1989": 4258,
    "Greenland Reference 1996": 4747, "British Isles height": 9451,
    "Dansk Vertikal Reference 1990": 5799, "Denmark Mean Sea Level ": 10551,
    "Denmark Lowest Astronomical Tide ": 10552,
}  # fmt: skip
"""Datum ensembles of the EPSG registry, named without the word "ensemble", and a CRS of each."""

_MAX_CACHED_WKT = 16 * 1024
_MAX_CACHED = 256


def crs_strings(crs: Any) -> CrsStrings:
    """Return a record's strings for a CRS; PROJ takes up to 50 ms to look for a code."""
    if not crs:
        return NO_CRS
    wkt: str = crs.wkt
    return _cached_crs(wkt, crs) if len(wkt) <= _MAX_CACHED_WKT else _identify(crs)


def learn_ensembles() -> None:
    """Make PROJ cache in this thread that each ensemble is an ensemble; call it before any read.

    PROJ caches objects of its registry in each thread. If odd GeoKeys first request an ensemble
    as a plain datum, PROJ keeps it as a plain datum. Then the CRSs of files read later lose their
    code, or get another one (``AuthorityFactory::createGeodeticDatumOrEnsemble``).
    """
    for code in ENSEMBLES.values():
        with suppress(RasterioError):  # a custom registry may lack it
            CRS.from_epsg(code)


def depends_on_history(wkt: str | None) -> bool:
    """Whether the WKT may depend on whether PROJ knows the ensemble in the current thread.

    This is so for CRSs for which PROJ requests the plain datum first. WKT1 writes both datums in
    the same way. The WKT differs only for a CRS that WKT1 cannot express, such as a projected CRS
    with ellipsoidal heights.

    Args:
        wkt: WKT of a CRS that has no code; None if there is a code, or no CRS.
    """
    if wkt is None or "CRS[" not in wkt.partition('"')[0]:
        return False
    return "ENSEMBLE[" in wkt or any(f'DATUM["{name}"' in wkt for name in ENSEMBLES)


class _ByWkt:
    """A CRS that compares by its known WKT only (rasterio's own == asks PROJ)."""

    __slots__ = ("crs", "wkt")

    def __init__(self, wkt: str, crs: Any) -> None:
        self.wkt = wkt
        self.crs = crs

    def __hash__(self) -> int:
        return hash(self.wkt)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByWkt) and self.wkt == other.wkt


def _cached_crs(wkt: str, crs: Any) -> CrsStrings:
    return _identify_cached(_ByWkt(wkt, crs))


@lru_cache(_MAX_CACHED)
def _identify_cached(key: _ByWkt) -> CrsStrings:
    return _identify(key.crs)


class _Made(threading.local):
    """CRSs by the WKT from which they were made. Each belongs to the thread that made it."""

    def __init__(self) -> None:
        self.by_wkt: dict[str, Any] = {}


_MADE = _Made()


def crs_of_wkt(wkt: str, make: Callable[[str], Any]) -> Any:
    """Return `make(wkt)`, made once in each thread for all files with this WKT."""
    known = _MADE.by_wkt
    if wkt in known:
        return known[wkt]
    crs = make(wkt)
    if len(wkt) <= _MAX_CACHED_WKT:
        if len(known) >= _MAX_CACHED:
            known.clear()
        known[wkt] = crs
    return crs


def _identify(crs: Any) -> CrsStrings:
    authority = crs.to_authority(confidence_threshold=100)
    code = ":".join(authority) if authority else None
    return CrsStrings(crs.to_string(), code, None if code else crs.to_wkt())


_LONGEST = 256 * 1024
_CODE_OR_WKT = re.compile(r"[A-Za-z]\w*:[\w.-]+$|\s*[A-Za-z]\w*\s*[\[(]", re.ASCII)
"""The forms that records contain. GDAL also accepts a URL, which it fetches, or a file name."""


@lru_cache(1024)
def crs_of(text: str) -> CRS | None:
    """Return the CRS of a code or WKT; None if the text is neither."""
    if len(text) > _LONGEST or not _CODE_OR_WKT.match(text):
        return None
    try:
        with Env():  # without it, GDAL writes to standard error
            return CRS.from_user_input(text)
    except (RasterioError, ValueError):
        return None


@lru_cache(1024)
def metres_in_a_unit(crs: str | None) -> float | None:
    """Return the metres in a unit of a CRS; None if the unit is an angle or unknown."""
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
    """Return the symbol of a CRS's unit, e.g. m, ft or °; empty if the unit is unknown."""
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
    """Return WKT of any kind as WKT2 (OGC 18-010r7); None if that is not possible."""
    found = crs_of(wkt) if wkt else None
    try:
        return found.to_wkt(version="WKT2_2019") if found else None
    except RasterioError:
        return None
