"""Sorts rasters into groups that GDAL can show as one mosaic each.

A mosaic has one CRS, pixel size, number of bands and nodata value, and its bands have their data
types; all its rasters are upright, as the GTI driver reads them (GDAL, "GTI -- GDAL Raster Tile
Index").
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.text import name_in_wkt

COLUMNS = ("filepath", "filepath_bytes", "member", "subdataset", "status", "crs", "crs_wkt",
           "transform", "count", "width", "height", "bands")  # fmt: skip
"""Columns that tell where a raster is, and of what kind."""

DATA_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float32": "Float32",
    "float64": "Float64", "complex_int16": "CInt16", "complex_int32": "CInt32",
    "complex64": "CFloat32", "complex128": "CFloat64",
}  # fmt: skip
"""GDAL's names of data types."""

_COLORS = frozenset(["gray", "red", "green", "blue", "alpha", "undefined"])
"""Colour interpretations that need no table of colours."""

_DIGITS = 9
"""Pixel sizes that agree in so many digits are the same: over 10^6 pixels that is 0.001 pixel."""

_SHARED = ("color_interp", "scale", "offset", "unit")
"""Fields of bands that a mosaic has where all of its rasters have the same."""

Codes = np.ndarray[Any, np.dtype[np.int64]]
Bands = Sequence[dict[str, Any]]


class Kind(NamedTuple):
    """What all rasters of a mosaic have in common."""

    crs: str
    """A code, or WKT where no code is exact."""
    pixel: tuple[float, float]
    """Width and height, units of the CRS, to `_DIGITS` digits."""
    dtypes: tuple[str, ...]
    """Data type of each band, in NumPy's terms."""
    nodata: tuple[str, ...]
    """Nodata value of each band, in GDAL's terms; NONE: it has none."""

    @property
    def file_name(self) -> str:
        """Name for the file of the mosaic; no other kind has the same."""
        digest = hashlib.blake2b(repr(self).encode(), digest_size=6).hexdigest()
        sizes = dict.fromkeys(f"{size:g}" for size in self.pixel)
        types = set(self.dtypes)
        dtype = types.pop() if len(types) == 1 else "mixed"
        words = [name_in_wkt(self.crs) or self.crs, "x".join(sizes), f"{len(self.dtypes)}x{dtype}"]
        safe = [re.sub(r"[^A-Za-z0-9.]+", "-", word)[:40].strip("-.") for word in words]
        return f"{'_'.join(safe)}_{digest}.gti.gpkg"


@dataclass
class Mosaic:
    """Rasters of one kind."""

    number: int
    kind: Kind
    pixel: tuple[float, float]
    """Exact width and height of a pixel of the first raster."""
    shared: dict[str, list[Any]]
    """Values of each band, by field, as far as all rasters have the same."""
    masked: bool = False
    """Whether a raster has a mask of its own."""

    def add(self, bands: Bands) -> None:
        """Take a raster's bands into account."""
        self.masked = self.masked or any(band["mask_flags"] == ["per_dataset"] for band in bands)
        self.shared = {
            name: values
            for name, values in self.shared.items()
            if values == [band[name] for band in bands]
        }

    def metadata(self, bounds: tuple[float, float, float, float]) -> dict[str, str]:
        """Return the layer metadata that GTI reads.

        Args:
            bounds: left, bottom, right, top of all rasters, units of the CRS.

        Raises:
            TooLargeError: it has too many columns or rows.
        """
        left, bottom, right, top = bounds
        width, height = self.pixel
        about = {
            "RESX": repr(width), "RESY": repr(height),
            "XSIZE": _pixels(right - left, width), "YSIZE": _pixels(top - bottom, height),
            "GEOTRANSFORM": ",".join(map(repr, (left, width, 0.0, top, 0.0, -height))),
            "BAND_COUNT": str(len(self.kind.dtypes)),
            "DATA_TYPE": _one_or_all([DATA_TYPES[dtype] for dtype in self.kind.dtypes]),
            "NODATA": _one_or_all(self.kind.nodata),
            "SORT_FIELD": "location",
            "MASK_BAND": "YES" if self.masked else "NO",
        }  # fmt: skip
        colors = self.shared.get("color_interp", [None])
        if _COLORS.issuperset(colors):
            about["COLOR_INTERPRETATION"] = _one_or_all(colors)
        return about | dict(self._scaling())

    def _scaling(self) -> Iterator[tuple[str, str]]:
        """Yield the scales, offsets and units of bands where they mean something."""
        for number, scale in enumerate(self.shared.get("scale", ()), 1):
            if scale != 1.0:
                yield f"BAND_{number}_SCALE", repr(scale)
        for number, offset in enumerate(self.shared.get("offset", ()), 1):
            if offset != 0.0:
                yield f"BAND_{number}_OFFSET", repr(offset)
        for number, unit in enumerate(self.shared.get("unit", ()), 1):
            if unit and unit.isprintable():  # XML holds it, which has no control characters
                yield f"BAND_{number}_UNITTYPE", unit


class TooLargeError(Exception):
    """A mosaic has more columns or rows than GDAL can count."""


_MOST_PIXELS = 2**31 - 1
_NEARLY = 0.01
"""Part of a pixel by which the size of a mosaic may differ from a whole number by rounding."""


def _pixels(length: float, size: float) -> str:
    """Return how many pixels a length has; a part of a pixel counts as one."""
    count = length / size
    if not count < _MOST_PIXELS:
        raise TooLargeError
    return str(max(math.ceil(count - _NEARLY), 1))


def _one_or_all(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else ",".join(values)


class Mosaics:
    """All mosaics of a catalog, by kind."""

    def __init__(self) -> None:
        self._found: dict[Kind, Mosaic] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Mosaic]:
        return iter(self._found.values())

    def numbers_of(self, rows: pa.RecordBatch) -> list[int]:
        """Return for each row the number of its mosaic; a kind that is new makes a mosaic.

        Args:
            rows: upright rasters, with the columns `COLUMNS`.
        """
        crs = pc.coalesce(rows["crs_wkt"], rows["crs"])
        numbers = rows["transform"].flatten().to_numpy().reshape(-1, 6)
        sizes = numbers[:, [1, 5]]
        columns = [_codes(crs), *sizes.view(np.int64).T, *_band_codes(rows["bands"])]
        _, first, which = np.unique(
            np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
        )
        found = [
            self._number_of(crs[at].as_py(), sizes[at], rows["bands"][at].as_py())
            for at in first.tolist()
        ]
        return [found[at] for at in which.reshape(-1).tolist()]

    def _number_of(self, crs: str, size: Sequence[float], bands: Bands) -> int:
        pixel = (float(size[0]), -float(size[1]))
        kind = Kind(
            crs,
            (_rounded(pixel[0]), _rounded(pixel[1])),
            tuple(band["dtype"] for band in bands),
            tuple(_nodata(band["nodata"]) for band in bands),
        )
        mosaic = self._found.get(kind)
        if mosaic is None:
            shared = {name: [band[name] for band in bands] for name in _SHARED}
            mosaic = self._found[kind] = Mosaic(len(self._found), kind, pixel, shared)
        mosaic.add(bands)
        return mosaic.number


def _rounded(size: float) -> float:
    return float(f"{size:.{_DIGITS}g}")


def _nodata(value: float | None) -> str:
    return "NONE" if value is None else repr(value)


def _codes(values: pa.Array) -> Codes:
    """Return a number for each value, the same for equal values."""
    codes: Codes = values.dictionary_encode("encode").indices.to_numpy().astype(np.int64)
    return codes


def _band_codes(bands: pa.Array) -> Iterator[Codes]:
    """Yield for each field of the bands a number for each row, the same for equal fields."""
    ends = np.cumsum([0, *pc.list_value_length(bands).to_pylist()])
    values = bands.flatten()
    fields = [values.field(name) for name in ("dtype", "nodata", *_SHARED)]
    for field in (*fields, pc.binary_join(values.field("mask_flags"), ",")):
        texts = pa.array(map(str, _codes(field).tolist()), pa.string())
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), texts)
        yield _codes(pc.binary_join(lists, ","))
