"""Footprints that may be someone else's, parsed: only what a footprint can be, else nothing.

Reference: OGC 06-103r4, section 8.2 (well-known binary).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

POLYGON, MULTIPOLYGON = b"\x01\x03\0\0\0", b"\x01\x06\0\0\0"
"""First bytes of the WKB of footprints, little-endian."""

_HEAD = len(POLYGON)
_POINT_BYTES = 16


def parsed(footprints: Iterable[bytes | None]) -> list[Any]:
    """Return geometries as shapely has them; None in place of what is no footprint."""
    import numpy as np
    import shapely

    known = [wkb if wkb and is_shape(wkb) else None for wkb in footprints]
    shapes = shapely.from_wkb(known, on_invalid="ignore")
    return [
        shape if np.isfinite(shapely.get_coordinates(shape)).all() else None for shape in shapes
    ]


def is_shape(wkb: bytes) -> bool:
    """Tell whether WKB is of a polygon or of several, and of nothing else.

    The library that parses it (GEOS) ends the process over collections that are deep in each
    other.
    """
    if wkb[:_HEAD] == POLYGON:
        return True
    at = _HEAD + 4
    for _ in range(_number(wkb, _HEAD)):
        if wkb[at : at + _HEAD] != POLYGON:
            return False
        rings, at = _number(wkb, at + _HEAD), at + _HEAD + 4
        for _ in range(rings):
            at += 4 + _POINT_BYTES * _number(wkb, at)
            if at > len(wkb):
                return False
    return wkb[:_HEAD] == MULTIPOLYGON


def _number(wkb: bytes, at: int) -> int:
    return int.from_bytes(wkb[at : at + 4], "little")
