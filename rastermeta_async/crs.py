"""What a record says of a CRS, and CRSs made of WKT: remembered, as PROJ takes long for either."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple


class CrsStrings(NamedTuple):
    """What a record says of a CRS; absent is None."""

    text: str | None
    code: str | None
    wkt: str | None


NO_CRS = CrsStrings(None, None, None)
_MAX_CACHED_WKT = 16 * 1024
_MAX_CACHED = 256


def crs_strings(crs: Any) -> CrsStrings:
    """Return what is recorded of a CRS; PROJ takes up to 50 ms to look for a code."""
    if not crs:
        return NO_CRS
    wkt: str = crs.wkt
    return _cached_crs(wkt, crs) if len(wkt) <= _MAX_CACHED_WKT else _identify(crs)


class _ByWkt:
    """A CRS that compares by its WKT alone, which is at hand (rasterio's own == asks PROJ)."""

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
    """CRSs by the WKT that they were made of. Each belongs to the thread that made it."""

    def __init__(self) -> None:
        self.by_wkt: dict[str, Any] = {}


_MADE = _Made()


def crs_of_wkt(wkt: str, make: Callable[[str], Any]) -> Any:
    """Return what `make` makes of a WKT, made once a thread for files that share it."""
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
