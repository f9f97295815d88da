"""Orders of a catalog's rows: an order gives each row a key, and the rows are sorted by this key.

The order is by path, or along a Hilbert curve over the Earth. Along the curve, rows near each
other in the file are near each other on the ground, so a filter by `bbox` reads few row groups.

Reference: D. Hilbert, "Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck", 1891.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.row_ops import row_keys
from rastermeta_async.model.settings import Order

Keys = Callable[[Any], Any]
"""Returns the keys of a batch or table, as bytes; each row of a catalog has its own key."""

_BITS = 16
"""Bits of each coordinate; a cell of the curve is 0.6 km wide at the equator."""

Cells = np.ndarray[Any, np.dtype[np.uint32]]


def keys_of(order: Order) -> Keys:
    """Return the function that computes the keys of an order."""
    return spatial_keys if order is Order.SPATIAL else row_keys


def spatial_keys(rows: pa.RecordBatch | pa.Table) -> Any:
    """Return a key for each row: the position of its bbox's centre on the curve, then `row_keys`.

    Rows without a footprint come last.
    """
    box = rows.column("bbox")
    if isinstance(box, pa.ChunkedArray):
        box = box.combine_chunks()
    west, south, east, north = (
        pc.fill_null(pc.struct_field(box, name), np.nan).to_numpy(zero_copy_only=False)
        for name in ("xmin", "ymin", "xmax", "ymax")
    )
    along = hilbert(_cells((west + east) / 2, 180.0), _cells((south + north) / 2, 90.0))
    along[np.isnan(west)] = np.iinfo(np.uint32).max
    prefix = along.astype(">u4")
    ends = np.arange(len(along) + 1, dtype=np.int32) * prefix.itemsize
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(prefix)]
    places = pa.Array.from_buffers(pa.binary(), len(along), buffers)
    return pc.binary_join_element_wise(places, row_keys(rows), b"")


def _cells(degrees: Any, limit: float) -> Cells:
    """Return the index of each coordinate among 2**16 equal parts from -limit to limit."""
    share = np.nan_to_num((degrees + limit) / (2 * limit))
    cells: Cells = np.minimum(share * 2**_BITS, 2**_BITS - 1).astype(np.uint32)
    return cells


def hilbert(x: Cells, y: Cells) -> Cells:
    """Return the positions of cells along the curve, which visits all 2**16 x 2**16 cells."""
    x, y = x.copy(), y.copy()
    along = np.zeros(len(x), dtype=np.uint32)
    for bit in range(_BITS - 1, -1, -1):
        right, upper = x >> bit & 1, y >> bit & 1
        along |= (3 * right ^ upper) << np.uint32(2 * bit)
        # The lower quarters are turned and mirrored, so that the curve connects all quarters.
        mirrored = (upper == 0) & (right == 1)
        ones = np.uint32(2**_BITS - 1)
        x[mirrored], y[mirrored] = ones - x[mirrored], ones - y[mirrored]
        turned = upper == 0
        x[turned], y[turned] = y[turned], x[turned]
    return along
