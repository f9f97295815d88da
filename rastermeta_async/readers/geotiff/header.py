"""Decodes the header of a plain GeoTIFF from its bytes, without GDAL.

This module decodes what differs from file to file: sizes, blocks, overviews, georeferencing and
tags. The rest must come from rasterio: for example the CRS, the meaning of the bands and the value
of nodata. It depends on a few further tags, whose bytes make up `Header.kind`. rasterio gives the
same answer for all files of a kind, so one question for each kind is enough.

For an unusual file, the decoder raises `Unsupported` with the reason. It raises no other
exception, whatever the bytes are. The constants below bound the time and memory that it takes.

References: TIFF 6.0 (Adobe, 1992), sections 2, 8, 15; the BigTIFF design (libtiff); OGC GeoTIFF
1.1 (19-008r4), section 7; GDAL, "GTiff -- GeoTIFF File Format" (``GDAL_METADATA``,
``GDAL_NODATA``); libtiff, ``TIFFOpen(3)`` (strip chopping).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.buffer import Entries, File, doubles, reals, text, value_bytes
from rastermeta_async.readers.geotiff.cog import (
    Level,
    cog_problems,
    has_wide_blocks,
    problems_of_levels,
)
from rastermeta_async.readers.geotiff.gdal_metadata import (
    MAX_METADATA_BYTES,
    MAX_REMEMBERED,
    NO_METADATA,
    Metadata,
    Tags,
    metadata_of,
)
from rastermeta_async.readers.geotiff.ifd import (
    MASK,
    MATRIX,
    METADATA,
    REDUCED,
    RESOLUTION_UNIT,
    RPCS,
    SCALE,
    TIE_POINTS,
    Image,
    Layout,
    images_of,
)

MAX_POINTS = 1024

MAX_OVERVIEWS = 29
"""GDAL reads 30 at most (``GTiffDataset::ScanDirectories``)."""


class Header(NamedTuple):
    """What differs between files of the same kind."""

    kind: Hashable
    """Key of all other properties: files with an equal kind share them."""
    width: int
    height: int
    block_height: int
    block_width: int
    overviews: tuple[int, ...]
    """Decimation factors, in the file's order."""
    transform: tuple[float, ...] | None
    """Geotransform in GDAL's order, not rotated, as if pixels were areas; None if there is none."""
    tags: Tags
    """The TIFF's own tags, as GDAL shows them."""
    metadata: Metadata
    cog_problems: list[str]
    """Reasons why the file is no cloud-optimised GeoTIFF."""


def read_header(head: bytes, size: int, read_at: Callable[[int, int], bytes]) -> Header:
    """Decode the header of a TIFF file.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of it.
        size: bytes of the file.
        read_at: returns bytes from an offset on; returns fewer only at the end of the file.

    Raises:
        Unsupported: the file is no TIFF, or this module does not decode it.
    """
    file = File(head, size, read_at)
    layout, entries, images, places = images_of(file)
    image = images[0]
    pyramid = _pyramid(images)
    placed, transform = placement(file, layout.at, entries)
    metadata = _metadata(file, layout, entries, image.samples)
    described = (tuple(metadata.scales), tuple(metadata.offsets), metadata.asked)
    tags = _tags(file, layout, entries)
    if metadata.dataset and not tags.keys().isdisjoint(metadata.dataset):
        raise Unsupported("a tag given twice")
    kind = (image.kind, placed, described, pyramid.kind)
    return Header(
        kind, image.width, image.height, image.block_height, image.block_width,
        pyramid.overviews, transform, tags, metadata,
        cog_problems(pyramid.problems, places.ifds, places.blocks, edited=file.ghost.is_edited),
    )  # fmt: skip


_UNITS = {1: "1 (unitless)", 2: "2 (pixels/inch)", 3: "3 (pixels/cm)"}


class _Pyramid(NamedTuple):
    """What the IFDs after the first say together."""

    kind: Hashable
    overviews: tuple[int, ...]
    problems: tuple[str, ...]
    """See `cog.problems_of_levels`."""


@lru_cache(MAX_REMEMBERED)
def _pyramid(images: tuple[Image, ...]) -> _Pyramid:
    image, *others = images
    overviews = []
    levels = [Level(1, _has_wide_blocks(image))]
    kinds: list[Hashable] = []
    for other in others:
        if other.subfile == REDUCED:
            factor = factor_of(image.width, other.width)
            overviews.append(factor)
            levels.append(Level(factor, _has_wide_blocks(other)))
        elif other.subfile not in (MASK, MASK | REDUCED):
            raise Unsupported("several pages")
        same_size = (other.width, other.height) == (image.width, image.height)
        if (kind := (other.kind, same_size)) not in kinds:
            kinds.append(kind)
    if len(overviews) > MAX_OVERVIEWS:
        raise Unsupported("many overviews")
    return _Pyramid(tuple(kinds), tuple(overviews), problems_of_levels(levels))


def _has_wide_blocks(image: Image) -> bool:
    return has_wide_blocks(image.width, image.height, image.block_width)


def factor_of(width: int, reduced: int) -> int:
    """Return the decimation factor of an overview; rasterio rounds halves to even."""
    return round(width / reduced)


def placement(
    file: File, at: Mapping[int, int], entries: Entries
) -> tuple[Hashable, tuple[float, ...] | None]:
    """Return the georeferencing (OGC GeoTIFF 1.1, section 7.2, as GDAL uses it).

    The first item is the part of it that belongs to the kind. The second is `Header.transform`.

    Args:
        file: a TIFF.
        at: index of each entry of an IFD, by tag.
        entries: of that IFD.
    """
    if SCALE in at:
        if TIE_POINTS not in at:
            raise Unsupported("odd georeferencing")
        scale_x, scale_y, scale_z = doubles(file, entries, at[SCALE], 3)
        column, row, level, x, y, z = doubles(file, entries, at[TIE_POINTS], 6)
        if not (_is_usual(scale_x) and _is_usual(scale_y) and scale_y > 0):
            raise Unsupported("odd georeferencing")
        transform = (x - column * scale_x, scale_x, 0.0, y - row * -scale_y, 0.0, -scale_y)
        # Under a vertical CRS, GDAL uses the height scale as the scale of the band.
        heights = reals(file.order.sign, 3).pack(scale_z, level, z)  # 0.0 is not -0.0
        return ("scale", heights), transform
    if MATRIX in at:
        m = doubles(file, entries, at[MATRIX], 16)
        if m[1] or m[4]:
            raise Unsupported("rotated")
        if RPCS in at:  # RPCs give the footprint if the matrix is `UNPLACED`
            raise Unsupported("a matrix and RPCs")
        if not (_is_usual(m[0]) and _is_usual(m[5])):
            raise Unsupported("odd georeferencing")
        return "matrix", (m[3], m[0], m[1], m[7], m[4], m[5])
    if TIE_POINTS in at:
        count, rest = divmod(entries.count(at[TIE_POINTS]), 6)
        if rest or not 0 < count <= MAX_POINTS:
            raise Unsupported("odd georeferencing")
        doubles(file, entries, at[TIE_POINTS], 6 * count)
        return ("points", count), None
    return None, None


def _is_usual(scale: float) -> bool:
    """Whether the square neither overflows nor underflows: rasterio's `res` is its square root."""
    return 1e-150 < abs(scale) < 1e150


def _tags(file: File, layout: Layout, entries: Entries) -> Tags:
    """Return the TIFF's own tags as GDAL shows them, in GDAL's order."""
    if layout.shows_nothing:
        return {}
    tags = {name: text(file, entries, index) for index, name in layout.texts}
    for index, name in layout.resolutions:
        tags[name] = _resolution(file, value_bytes(file, entries, index, 8))
    if RESOLUTION_UNIT in layout.at:
        unit = entries.number(layout.at[RESOLUTION_UNIT])
        if unit not in _UNITS:  # libtiff drops such a unit
            raise Unsupported("an odd resolution")
        tags["TIFFTAG_RESOLUTIONUNIT"] = _UNITS[unit]
    return tags


def _resolution(file: File, content: bytes) -> str:
    """Return a rational as text: C's ``%.8g`` of the nearest 32-bit float."""
    above, below = struct.unpack(file.order.sign + "II", content)
    if below == 0:
        raise Unsupported("an odd resolution")
    value = _as_float(above / below)
    if value != _as_float(_as_float(above) / _as_float(below)):
        raise Unsupported("an odd resolution")  # libtiff's releases round at different steps
    return f"{value:.8g}"


def _as_float(value: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def _metadata(file: File, layout: Layout, entries: Entries, bands: int) -> Metadata:
    index = layout.at.get(METADATA)
    if index is None:
        return NO_METADATA
    return metadata_of(text(file, entries, index, MAX_METADATA_BYTES), bands)
