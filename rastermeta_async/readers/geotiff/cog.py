"""Whether a TIFF is a cloud-optimised GeoTIFF, decided from a few numbers of its header.

The rules are those of rio-cogeo's ``cog_validate`` (not strict): its errors are the problems here,
its warning (no overviews) is none. GDAL's ``validate_cloud_optimized_geotiff.py`` has the same
rules but for these, in which rio-cogeo is followed:

- the first IFD may be anywhere up to byte 300, not only right behind GDAL's ghost area;
- blocks as wide as an image of more than 512 pixels are a problem, also where they are tiles; for
  GDAL only if they are wider than 1024;
- overviews are to be smaller than the image by their widths, in the order of their factors.

rio-cogeo passes over overviews of an image so flat that its height, divided by their factor, is 0;
here they count like others.

Both take notice of ``KNOWN_INCOMPATIBLE_EDITION=YES``, with which GDAL marks a file that was
changed in place. Until then GDAL's ghost area says that blocks are in order: that is believed where
a further read would have to tell it. Neither validator looks at masks, at further pages, or at
bands but the first. The first block of an image is the first that is written: those of sparse
files may have no place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

SMALL = 512
"""Pixels a side up to which an image needs neither tiles nor overviews."""

MAX_FIRST_IFD = 300
"""Offset up to which the first IFD is at the start; GDAL's ghost area lies before it."""

EDITED = "KNOWN_INCOMPATIBLE_EDITION=YES"
"""What GDAL writes into the ghost area when it changes a COG in place."""

NOT_TILED = "Its blocks are as wide as the image, which is larger than 512 pixels."
OVERVIEW_NOT_TILED = "An overview that is larger than 512 pixels has blocks as wide as itself."
EXTERNAL_OVERVIEWS = "Its overviews are in an .ovr file next to it."
EDITED_IN_PLACE = f"It was changed after it had been made a COG ({EDITED})."
LATE_IFD = "Its first IFD is not at the start of the file."
NOT_REDUCED = "An overview is not smaller than the image."
UNSORTED_OVERVIEWS = "Its overviews are not sorted from the largest to the smallest."
UNSORTED_IFDS = "The IFD of an overview is before that of a larger image."
EARLY_DATA = "The first block of the smallest image is before its IFD."
UNSORTED_DATA = "The first block of an overview is behind that of a larger image."


class Level(NamedTuple):
    """The image, or one of its overviews."""

    factor: int
    """By which it is decimated, as rasterio has it; 1: the image."""
    wide_blocks: bool
    """See `has_wide_blocks`."""


def has_wide_blocks(width: int, height: int, block_width: int) -> bool:
    """Whether an image should be tiled, and has blocks as wide as itself."""
    return block_width == width and (width > SMALL or height > SMALL)


def problems_of_levels(levels: Sequence[Level]) -> tuple[str, ...]:
    """Return what is wrong with the image and its overviews, wherever in the file they are."""
    image, *overviews = levels
    factors = [overview.factor for overview in overviews]
    found = {
        NOT_TILED: image.wide_blocks,
        OVERVIEW_NOT_TILED: any(overview.wide_blocks for overview in overviews),
        NOT_REDUCED: any(factor <= 1 for factor in factors),
        UNSORTED_OVERVIEWS: factors != sorted(factors),
    }
    return tuple([problem for problem, is_there in found.items() if is_there])


def cog_problems(
    of_levels: Iterable[str],
    ifds: list[int],
    blocks: list[int],
    *,
    edited: bool,
    external: bool = False,
) -> list[str]:
    """Return why a TIFF is no cloud-optimised GeoTIFF, a sentence a reason; empty: it is one.

    Args:
        of_levels: what `problems_of_levels` said.
        ifds: offset of the IFD of the image, and of its overviews in their order.
        blocks: offset of the first block of each, 0: none is written. None, where the first IFD
            is after `MAX_FIRST_IFD`, as then the order of all else is not told, or where blocks
            are known to be in order.
        edited: whether `EDITED` is in the ghost area.
        external: whether the overviews are in another file, and so not among these.
    """
    found = list(of_levels)
    if external:
        found.append(EXTERNAL_OVERVIEWS)
    if edited:
        found.append(EDITED_IN_PLACE)
    if ifds[0] > MAX_FIRST_IFD:
        found.append(LATE_IFD)
        return found
    if ifds != sorted(ifds):
        found.append(UNSORTED_IFDS)
    if 0 in blocks:
        blocks = [block for block in blocks if block]
    if blocks:
        if blocks[-1] < ifds[-1]:
            found.append(EARLY_DATA)
        if blocks != sorted(blocks, reverse=True):
            found.append(UNSORTED_DATA)
    return found
