"""Tells how a TIFF that rasterio reads is stored: in tiles or strips, and whether it is a COG.

GDAL does not tell whether blocks as wide as the image are tiles. For an object, GDAL would fetch
the offsets of the blocks while it holds Python's GIL. So this module reads the bytes itself,
whatever else the file holds. The overviews that it finds must be those that GDAL finds.

References: TIFF 6.0, sections 2, 8, 15; ``GTiffDataset::ScanDirectories`` (which images are
overviews).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from rastermeta_async.readers.base import HEAD_BYTES, ReadAt, Unsupported
from rastermeta_async.readers.geotiff.buffer import BYTE, LONG, LONG8, SHORT, Entries, File
from rastermeta_async.readers.geotiff.cog import (
    Level,
    cog_problems,
    has_wide_blocks,
    problems_of_levels,
)
from rastermeta_async.readers.geotiff.header import factor_of
from rastermeta_async.readers.geotiff.ifd import MASK, REDUCED, Blocks, Places, ifd_at

GTIFF = "GTiff"
"""GDAL's driver that reads TIFFs, including files that its driver COG wrote."""

MAX_READS = 2048
MAX_BLOCKS = 2**18
"""Blocks of an image that are checked to find one that is written."""

_SUBFILE, _WIDTH, _HEIGHT, _SAMPLES, _ROWS, _SUB_IFDS = 254, 256, 257, 277, 278, 330
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_WHOLE = {BYTE: "B", SHORT: "H", LONG: "I", 13: "I", LONG8: "Q", 18: "Q"}
"""`struct` codes of integer types, including the types for offsets of IFDs."""


class Structure(NamedTuple):
    """Columns of a record; None where nothing is known."""

    tiled: bool | None = None
    cog: bool | None = None
    cog_problems: list[str] | None = None


def structure_of(dataset: Any, path: bytes | None) -> Structure:
    """Return how an open dataset is stored; all None for a TIFF that is an object.

    Args:
        dataset: dataset that rasterio opened.
        path: path of the file; None for an object.
    """
    if dataset.driver != GTIFF:
        if not dataset.count:
            return Structure()
        # The same as rasterio's `is_tiled`, which is deprecated and warns.
        return Structure(tiled=dataset.block_shapes[0][1] != dataset.width)
    factors = dataset.overviews(1)
    with suppress(OSError, Unsupported):
        if path is not None:
            external = bool(factors) and _has_external_overviews(dataset, path)
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return structure_of_bytes(size, partial(_read_at, file), factors, external)
    return Structure()


def has_more_images(path: bytes, most: int) -> bool:
    """Tell whether a file is a TIFF with more than `most` images in its chain of IFDs.

    If the chain cannot be read to its end, only the images read so far count.
    """
    with suppress(OSError, Unsupported), open(path, "rb") as content:
        size = os.fstat(content.fileno()).st_size
        read_at = partial(_read_at, content)
        file = File(read_at(0, min(size, HEAD_BYTES)), size, read_at, 2 * most)
        order, at = file.order, file.first
        seen: set[int] = set()
        while at and at not in seen:
            if len(seen) == most:
                return True
            seen.add(at)
            entries = order.number(file.get(at, order.count_bytes))
            at = order.number(file.get(at + order.entry_at(entries), order.inline))
    return False


def structure_of_bytes(
    size: int, read_at: ReadAt, factors: Sequence[int], external: bool = False
) -> Structure:
    """Return how a TIFF is stored.

    Args:
        size: bytes of the file.
        read_at: returns bytes of the file; its exceptions are passed on.
        factors: decimation factors of the overviews that GDAL finds.
        external: whether there are overviews in another file.

    Raises:
        Unsupported: the file is damaged, or GDAL finds other overviews.
    """
    file = File(read_at(0, min(size, HEAD_BYTES)), size, read_at, MAX_READS)
    image = _Image(file, file.first)
    overviews = _overviews(file, image, len(factors))
    found = [factor_of(image.width, overview.width) for overview in overviews]
    if overviews and found != list(factors):
        raise Unsupported("other overviews than GDAL finds")
    is_alone = not (image.successor or image.sub_ifds)
    places = Places.of_first(file, image.ifd, image.blocks, is_alone=is_alone, most=MAX_BLOCKS)
    for overview in overviews:
        places.add(file, overview.start, overview.ifd, overview.blocks, MAX_BLOCKS)
    levels = [Level(1, image.has_wide_blocks)]
    levels += [
        Level(factor, overview.has_wide_blocks)
        for factor, overview in zip(found, overviews, strict=True)
    ]
    problems = cog_problems(
        problems_of_levels(levels), places.ifds, places.blocks,
        edited=file.ghost.is_edited, external=external or len(found) < len(factors),
    )  # fmt: skip
    return Structure(image.is_tiled, not problems, problems)


def _overviews(file: File, image: _Image, count: int) -> list[_Image]:
    """Return the first `count` overviews, in the order in which GDAL finds them."""
    found: list[_Image] = []
    others = _others(file, image)
    while len(found) < count and (other := next(others, None)):
        if other.is_overview_of(image):
            found.append(other)
    return found


def _others(file: File, image: _Image) -> Iterator[_Image]:
    for start in image.sub_ifds:
        yield _Image(file, start)
    seen = {image.start}
    while image.successor and image.successor not in seen:
        image = _Image(file, image.successor)
        seen.add(image.start)
        yield image


class _Image:
    """The image that the IFD at an offset describes."""

    def __init__(self, file: File, start: int) -> None:
        self.start = start
        self.ifd = ifd_at(file, start)
        self._file = file
        self._entries = Entries(file.order, self.ifd)
        count = (len(self.ifd) - file.order.count_bytes) // file.order.entry
        self._at = {self._entries.tag(index): index for index in range(count)}
        self.successor = file.order.number(self.ifd[-file.order.inline :])
        self.width, self.height = self._number(_WIDTH), self._number(_HEIGHT)
        if not (self.width and self.height):
            raise Unsupported("an odd size")
        self.is_tiled = _TILE_WIDTH in self._at
        self.sub_ifds = self._values(_SUB_IFDS)

    def is_overview_of(self, image: _Image) -> bool:
        """Whether this is an overview of the image, and not of a mask."""
        kind = self._number(_SUBFILE) & (REDUCED | MASK)
        return kind == REDUCED and self._number(_SAMPLES, 1) == image._number(_SAMPLES, 1)

    @property
    def has_wide_blocks(self) -> bool:
        """See `Level`."""
        block_width = self._number(_TILE_WIDTH) if self.is_tiled else self.width
        return has_wide_blocks(self.width, self.height, block_width)

    @property
    def blocks(self) -> Blocks:
        """The blocks of the first band."""
        tags = (_TILES, _TILE_BYTES) if self.is_tiled else (_STRIPS, _STRIP_BYTES)
        if not all(tag in self._at for tag in tags):
            raise Unsupported("tags missing")
        width = self._number(_TILE_WIDTH) if self.is_tiled else self.width
        height = self._number(_TILE_HEIGHT) if self.is_tiled else self._number(_ROWS, self.height)
        if not (width and height):
            raise Unsupported("odd blocks")
        count = -(-self.width // width) * -(-self.height // height)
        return Blocks(self._entries, self._at[tags[0]], self._at[tags[1]], count)

    def _number(self, tag: int, default: int = 0) -> int:
        return next(iter(self._values(tag, 1)), default)

    def _values(self, tag: int, most: int = 64) -> tuple[int, ...]:
        """Return the first `most` integers of an entry; none if there is no such entry."""
        if tag not in self._at:
            return ()
        entries, order, index = self._entries, self._file.order, self._at[tag]
        code = _WHOLE.get(entries.kind(index))
        if code is None:
            raise Unsupported(f"tag {tag} of an odd type")
        item = struct.Struct(order.sign + code)
        count = entries.count(index)
        length = item.size * count
        content = entries.content(index, length)
        if length > order.inline:
            content = self._file.get(entries.offset(index), item.size * min(count, most))
        return tuple([number for (number,) in item.iter_unpack(content)][:most])


def _has_external_overviews(dataset: Any, path: bytes) -> bool:
    try:
        return any(name.lower().endswith(".ovr") for name in dataset.files)
    except UnicodeDecodeError:  # rasterio cannot return names that are not UTF-8
        return any(map(os.path.exists, (path + b".ovr", path + b".OVR")))


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
