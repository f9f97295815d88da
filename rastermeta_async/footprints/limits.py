"""Computes limits of one or many footprints as RFC 7946 defines them: from west to east.

Across the antimeridian, west is greater than east (section 5.2). A footprint that crosses it is cut
there into parts that touch it from both sides; its planar column bbox spans -180 to 180.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.footprints.polygons import MIN_WIDTH, Floats
from rastermeta_async.model.record import BBox

POLYGON, MULTIPOLYGON = b"\x01\x03\0\0\0", b"\x01\x06\0\0\0"
"""First bytes of the WKB of footprints, little-endian."""

_HEAD = len(POLYGON)
_POINT_BYTES = 16


def parsed(footprints: Iterable[bytes | None]) -> list[Any]:
    """Return footprints as shapely geometries; None for WKB that is no footprint."""
    import numpy as np
    import shapely

    known = [wkb if wkb and is_shape(wkb) else None for wkb in footprints]
    shapes = shapely.from_wkb(known, on_invalid="ignore")
    return [
        shape if np.isfinite(shapely.get_coordinates(shape)).all() else None for shape in shapes
    ]


def is_shape(wkb: bytes) -> bool:
    """Tell whether WKB is a polygon or multipolygon, with nothing else in it.

    GEOS, the library that parses WKB, ends the process on deeply nested collections.
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


_GAP = 0.01
"""Degrees; a narrower space is no gap. So there are at most 36,000 gaps, and the limits do not
depend on the order of the footprints."""

_ROUND = np.array([[-180.0], [180.0]])
"""The arc of all longitudes."""

_AT_ONCE = 4096


def west_to_east(box: Mapping[str, float], geometry: bytes) -> list[float]:
    """Return the limits west, south, east, north of one footprint.

    Args:
        box: xmin, ymin, xmax, ymax in degrees, as in the column bbox.
        geometry: the footprint as WKB.
    """
    west, south, east, north = box["xmin"], box["ymin"], box["xmax"], box["ymax"]
    if (west, east) == (-180, 180):
        west, east = _beside_the_widest_gap(_united(_parts([geometry])))
    return [west, south, east, north]


class Limits:
    """The common limits of many footprints, updated as they are added; takes little memory.

    The limits lie beside the widest gap between the longitudes of footprints. So they cross the
    antimeridian if that gap is elsewhere.
    """

    def __init__(self) -> None:
        self._arcs = np.empty((2, 0))  # west and east of the covered arcs
        self._south, self._north = np.inf, -np.inf
        self._waiting: list[Sequence[float]] = []
        self._unsure = False

    def add(self, limits: Sequence[float]) -> None:
        """Add the limits west, south, east, north of one footprint; they must be finite."""
        self._waiting.append(limits)
        if len(self._waiting) == _AT_ONCE:
            self._take_waiting()

    def add_rows(self, boxes: Any, geometry: Any = None) -> None:
        """Add rows; rows without a footprint do not count.

        Args:
            boxes: column bbox of the rows.
            geometry: column geometry of the rows; without it, rows that may cross the antimeridian
                wait for `settle`.
        """
        limits = np.stack([np.asarray(pc.struct_field(boxes, name)) for name in BBox._fields])
        known = np.isfinite(limits).all(axis=0)
        spanning = known & (limits[0] == -180.0) & (limits[2] == 180.0)
        self._take(limits[:, known & ~spanning])
        self._widen(limits[:, spanning])
        if self._go_round() or not spanning.any():
            return
        if geometry is None:
            self._unsure = True
        else:
            self._unite(_parts(geometry.filter(pa.array(spanning)).to_pylist()))

    def settle(self, rows: Iterable[pa.RecordBatch]) -> None:
        """Add the geometry of rows that came without it; read it only if it can change the limits.

        Args:
            rows: all rows, with the columns bbox and geometry.
        """
        if self._unsure and not self._go_round():
            for batch in rows:
                self.add_rows(batch["bbox"], batch["geometry"])
                if self._go_round():
                    break
        self._unsure = False

    def west_to_east(self) -> list[float] | None:
        """Return west, south, east, north; None if there are no footprints."""
        self._take_waiting()
        if self._south > self._north:
            return None
        west, east = _beside_the_widest_gap(_ROUND if self._unsure else self._arcs)
        return [west, self._south, east, self._north]

    def _take_waiting(self) -> None:
        limits = np.array(self._waiting, dtype=float).reshape(-1, 4).T
        self._waiting = []
        crossing = limits[0] > limits[2]
        self._take(limits[:, ~crossing])
        self._widen(limits[:, crossing])
        west, _, east, _ = limits[:, crossing]
        self._unite(np.stack([west, np.full_like(west, 180.0)]))
        self._unite(np.stack([np.full_like(east, -180.0), east]))

    def _take(self, limits: Floats) -> None:
        """Add boxes that do not cross the antimeridian, shape (4, boxes)."""
        self._widen(limits)
        self._unite(limits[::2])

    def _widen(self, limits: Floats) -> None:
        self._south = float(limits[1].min(initial=self._south))
        self._north = float(limits[3].max(initial=self._north))

    def _unite(self, arcs: Floats) -> None:
        if self._arcs.size:  # most new arcs are covered already and need no sorting
            at = np.maximum(np.searchsorted(self._arcs[0], arcs[0], "right") - 1, 0)
            arcs = arcs[:, (arcs[0] < self._arcs[0, at]) | (arcs[1] > self._arcs[1, at])]
        if arcs.size:
            self._arcs = _united(np.concatenate([self._arcs, arcs], axis=1))

    def _go_round(self) -> bool:
        return np.array_equal(self._arcs, _ROUND)


def _united(arcs: Floats) -> Floats:
    """Return arcs of longitudes, shape (2, arcs), sorted and merged, with gaps between them."""
    west, east = arcs[:, np.argsort(arcs[0])]
    east = np.maximum.accumulate(east)
    first = np.concatenate([[True], west[1:] - east[:-1] > _GAP])
    return np.stack([west[first], east[np.roll(first, -1)]])


def _beside_the_widest_gap(arcs: Floats) -> tuple[float, float]:
    """Return the limits of united arcs; in a tie, those that do not cross the antimeridian."""
    west, east = arcs
    gaps = west[1:] - east[:-1]
    at = int(gaps.argmax()) if len(gaps) else 0
    if len(gaps) and gaps[at] - (360.0 - (east[-1] - west[0])) > MIN_WIDTH:
        return float(west[at + 1]), float(east[at])
    return float(west[0]), float(east[-1])


def _parts(geometry: Sequence[bytes | None]) -> Floats:
    """Return the arcs of the parts of footprints that span -180 to 180, shape (2, parts)."""
    import shapely

    shapes = parsed(geometry)
    if np.isnan(shapely.bounds(shapes)).any():  # without a shape, its bbox counts
        return _ROUND
    found: Floats = shapely.bounds(shapely.get_parts(shapes)).T[::2]
    return found
