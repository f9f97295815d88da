"""Keep the outlines of a catalog's footprints as long as there are few different ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rastermeta_async.footprints.limits import parsed
from rastermeta_async.report.places import Codes

MAX_OUTLINES = 500
"""Different outlines; of more none is kept."""

_MAX_BYTES = 1024 * 1024
_DIGITS = 4
"""Digits of degrees: 11 m."""


class Outlines:
    """Collects different outlines, each with the cell of its centre."""

    def __init__(self) -> None:
        self._cells: dict[bytes, int] | None = {}
        self._bytes = 0

    def add(self, cells: Codes, geometry: pa.Array) -> None:
        """Add the outlines of rows; those that belong to no cell do not count.

        Args:
            cells: codes of the finest cells, see `places.cells_of`.
            geometry: column geometry.
        """
        if self._cells is None:
            return
        encoded = geometry.dictionary_encode()
        if len(encoded.dictionary) > len(cells) // 2 > MAX_OUTLINES:
            self._cells = None
            return
        at = np.asarray(encoded.indices.fill_null(-1))
        _, first = np.unique(at, return_index=True)
        for row in first[at[first] >= 0].tolist():
            if cells[row] >= 0:
                self._put(encoded.dictionary[int(at[row])].as_py(), int(cells[row]))

    def _put(self, geometry: bytes, cell: int) -> None:
        if self._cells is None or geometry in self._cells:
            return
        self._cells[geometry] = cell
        self._bytes += len(geometry)
        if len(self._cells) > MAX_OUTLINES or self._bytes > _MAX_BYTES:
            self._cells = None

    @property
    def are_few(self) -> bool:
        """Whether there are some, but not too many."""
        return bool(self._cells)

    def shapes(self) -> list[tuple[int, list[Any]]]:
        """Return the finest cell and the polygons of each outline; empty: there are too many.

        Polygons are those of GeoJSON, but their rings are clockwise, as D3 wants them on a sphere.
        """
        if self._cells is None:
            return []
        shapes = parsed(self._cells)
        pairs = zip(self._cells.values(), shapes, strict=True)
        return [(cell, _clockwise(shape)) for cell, shape in pairs if shape is not None]


def _clockwise(shape: Any) -> list[Any]:
    import shapely

    parts = shapely.get_parts(shapely.orient_polygons(shape, exterior_cw=True))
    return [[np.round(shapely.get_coordinates(part.exterior), _DIGITS).tolist()] for part in parts]
