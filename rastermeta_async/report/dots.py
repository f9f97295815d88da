"""A map of the Earth for a terminal: braille patterns, a dot for each cell that has files.

Each character holds 2 x 4 dots (Unicode, "Braille Patterns", U+2800).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS, ROWS = 72, 18
"""Characters of the map: a dot is 2.5 degrees wide and high."""

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of the dot in each row and column of a character."""

_BLANK = 0x2800
_EDGES = ("180° W", "0°", "180° E")


class DotMap:
    """Where files are; `add` takes rows in any order."""

    def __init__(self) -> None:
        self._dots = np.zeros((4 * ROWS, 2 * COLUMNS), dtype=bool)

    def add(self, boxes: pa.Array) -> None:
        """Add the centres of boxes (column bbox); of those across the antimeridian, both ends."""
        there = boxes.drop_null()
        west, south, east, north = (
            np.asarray(pc.struct_field(there, name)) for name in ("xmin", "ymin", "xmax", "ymax")
        )
        is_wide = east - west >= 180
        left, right = (np.where(is_wide, end, (west + east) / 2) for end in (west, east))
        x, y = np.concatenate([left, right]), np.tile((south + north) / 2, 2)
        column = np.clip((x + 180) / 360 * 2 * COLUMNS, 0, 2 * COLUMNS - 1).astype(int)
        row = np.clip((90 - y) / 180 * 4 * ROWS, 0, 4 * ROWS - 1).astype(int)
        self._dots[row, column] = True

    def lines(self) -> Iterator[str]:
        """Yield the lines of the map, those without a dot at the poles left out, and a scale."""
        cells = self._dots.reshape(ROWS, 4, COLUMNS, 2)
        codes = _BLANK + np.einsum("rdcs,ds->rc", cells, _BITS)
        used = np.flatnonzero(self._dots.any(axis=1)) // 4
        if not len(used):
            return
        for row in range(int(used[0]), int(used[-1]) + 1):
            north = 90 - row * 180 // ROWS
            label = f"{abs(north)}° {'S' if north < 0 else 'N'}" if north else "0°"
            yield f"  {label:>5} │{''.join(map(chr, codes[row]))}│"
        first, middle, last = _EDGES
        room = COLUMNS - len(first) - len(middle) - len(last)
        yield f"{'':>9}{first}{'':>{room // 2}}{middle}{'':>{room - room // 2}}{last}"
