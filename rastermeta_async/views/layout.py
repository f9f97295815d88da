"""How a raster's pixels lie in its file, in words."""

from __future__ import annotations

TIFFS = ("GTiff", "COG")
"""Drivers of the format that these words are about; others keep to themselves how pixels lie."""


def layout_of(tiled: bool | None, overviews: bool) -> str:
    """Return the layout in words."""
    blocks = "blocks" if tiled is None else "tiles" if tiled else "strips"
    return f"{blocks} and overviews" if overviews else f"{blocks}, no overviews"


def cog_in_words(cog: bool | None) -> str:
    """Return whether a TIFF is a cloud-optimised GeoTIFF."""
    return "not told" if cog is None else "yes" if cog else "no"
