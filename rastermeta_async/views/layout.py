"""How a raster's pixels lie in its file, and whether that is like a cloud-optimised GeoTIFF."""

from __future__ import annotations

SMALL = 512
"""Pixels a side up to which a cloud-optimised GeoTIFF needs no overviews."""

TIFFS = ("GTiff", "COG")
"""Drivers of the format that these words are about; others keep to themselves how pixels lie."""

LIKE_A_COG = ("tiles and overviews (like a COG)", "small tiles (like a COG)")


def layout_of(tiled: bool | None, overviews: bool, width: int | None, height: int | None) -> str:
    """Return the layout in words."""
    if is_like_a_cog(tiled, overviews, width, height):
        return LIKE_A_COG[0] if overviews else LIKE_A_COG[1]
    if tiled:
        return "tiles, no overviews"
    return "strips and overviews" if overviews else "strips, no overviews"


def is_like_a_cog(
    tiled: bool | None, overviews: bool, width: int | None, height: int | None
) -> bool:
    """Whether there are tiles, and overviews where these are of use.

    The order of the file's parts, which also matters to one, is not in the catalog.
    """
    return bool(tiled) and (overviews or max(width or 0, height or 0) <= SMALL)
