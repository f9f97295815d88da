"""Decides from a few numbers of the header whether a TIFF is a cloud-optimised GeoTIFF.

The rules are those of rio-cogeo's ``cog_validate`` (not strict). Its errors are problems here; its
warning (no overviews) is not a problem. GDAL's ``validate_cloud_optimized_geotiff.py`` differs in
the following rules, where this module follows rio-cogeo:

- the first IFD may be anywhere up to byte 300, not only directly after GDAL's ghost area;
- blocks as wide as an image of more than 512 pixels are a problem, even if they are tiles; for
  GDAL only if they are wider than 1024;
- overviews must have a smaller width than the image, and must be in the order of their factors.

One rule differs from rio-cogeo. If the height of an image, divided by the factor of an overview, is
0, rio-cogeo ignores the overview; this module does not.

Both validators check ``KNOWN_INCOMPATIBLE_EDITION=YES``. GDAL marks with it a file that was changed
in place. Without this mark, GDAL's ghost area says that the blocks are in order. This module trusts
it if the check needs a further read. Neither validator checks masks, further pages, or bands after
the first. The first block of an image is the first block that is written: in sparse files, other
blocks may have no offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

SMALL = 512
"""An image with sides of at most so many pixels needs neither tiles nor overviews."""

MAX_FIRST_IFD = 300
"""Largest offset of a first IFD that counts as at the start; GDAL's ghost area is before it."""

EDITED = "KNOWN_INCOMPATIBLE_EDITION=YES"
"""GDAL writes this into the ghost area when it changes a COG in place."""

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
    """Decimation factor as in rasterio; 1 for the image."""
    wide_blocks: bool
    """See `has_wide_blocks`."""


def has_wide_blocks(width: int, height: int, block_width: int) -> bool:
    """Whether an image needs tiles, but its blocks are as wide as the image."""
    return block_width == width and (width > SMALL or height > SMALL)


def problems_of_levels(levels: Sequence[Level]) -> tuple[str, ...]:
    """Return the problems of the image and its overviews that do not depend on offsets."""
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
    """Return why a TIFF is no cloud-optimised GeoTIFF, one sentence a reason; empty if it is one.

    Args:
        of_levels: the result of `problems_of_levels`.
        ifds: offsets of the IFDs of the image and its overviews, in the overviews' order.
        blocks: offset of the first block of each of them; 0 if no block is written. The list is
            empty if the first IFD is after `MAX_FIRST_IFD`, because no other order is reported
            then, or if the blocks are known to be in order.
        edited: whether `EDITED` is in the ghost area.
        external: whether the overviews are in another file, so that `ifds` lacks them.
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
