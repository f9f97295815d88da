"""Which blocks and overviews GDAL shows of a JPEG 2000 image.

The rules are those of GDAL's driver (frmts/opjlike/jp2opjlikedataset.cpp, ``Open``). An overview is
the image at a lower resolution; GDAL shows overviews until both sides have at most 128 pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.readers.geotiff.header import factor_of
from rastermeta_async.readers.jpeg2000.codestream import MAX_REMEMBERED, ImageSizes

_PREVIEW, _PREVIEW_TILE = 1024, 32
"""An image of so many pixels at most, in tiles of fewer pixels, is one block."""

_MOST_OF_PADDED, _MOST_OF_ONE_TILE = 2048, 1024
"""Longest side of a block in a tile that is larger than the image; in one that is the image."""

_LONGEST_LINE = 20 * 1024 * 1024
_SMALL = 128


class Shown(NamedTuple):
    """Blocks and overviews."""

    rule: str
    """The rule that applies, in a word: files of a kind follow the same one."""
    block_width: int
    block_height: int
    overviews: tuple[int, ...]
    """Decimation factors, ascending."""


@lru_cache(MAX_REMEMBERED)
def shown_as(sizes: ImageSizes, *, has_palette: bool) -> Shown:
    """Return the blocks and overviews of an image; with a palette it has no overviews."""
    rule, width, height = _blocks(sizes)
    if has_palette:
        return Shown(rule, width, height, ())
    return Shown(rule, width, height, _overviews(sizes, by_tiles=rule == "tiles"))


def _blocks(sizes: ImageSizes) -> tuple[str, int, int]:
    width, height, tile_width, tile_height, _ = sizes
    is_preview = max(width, height) <= _PREVIEW
    if is_preview and max(tile_width, tile_height) < _PREVIEW_TILE:
        return "preview", width, height
    if width < tile_width and height < tile_height:
        return "padded", min(width, _MOST_OF_PADDED), min(height, _MOST_OF_PADDED)
    if is_preview or (width, height) != (tile_width, tile_height):
        return "tiles", tile_width, tile_height
    if tile_height == 1 and tile_width < _LONGEST_LINE:
        return "line", tile_width, tile_height
    return "one tile", min(width, _MOST_OF_ONE_TILE), min(height, _MOST_OF_ONE_TILE)


def _overviews(sizes: ImageSizes, *, by_tiles: bool) -> tuple[int, ...]:
    width, height, tile_width, tile_height, resolutions = sizes
    factors: list[int] = []
    while len(factors) + 1 < resolutions and max(width, height) > _SMALL:
        if by_tiles:
            if tile_width % 2 or tile_height % 2:
                break
            tile_width, tile_height = tile_width // 2, tile_height // 2
        width, height = (width + 1) // 2, (height + 1) // 2
        factors.append(factor_of(sizes.width, width))
    return tuple(factors)
