"""How a TIFF is stored, as far as GDAL tells: in tiles or strips, and whether it is a COG.

GDAL shows where IFDs and blocks are as metadata of its bands in the domain ``TIFF``
(``GTiffRasterBand::GetMetadataItem``). It does not show whether blocks as wide as the image are
tiles: that is told by the bytes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, BinaryIO, NamedTuple

from rastermeta_async.cog import (
    EDITED,
    MAX_FIRST_IFD,
    Level,
    can_be_large,
    cog_problems,
    has_wide_blocks,
    problems_of_levels,
)
from rastermeta_async.tiff.bytes import NotPlain, has_tiles

MAX_BLOCKS = 16_384
"""Blocks of an image that are looked at to find one that is written."""

GTIFF = "GTiff"
"""GDAL's driver, also of files that its driver COG made."""

Reopen = Callable[..., Any]
"""Opens a dataset again, with an open option of GDAL as argument by name."""


class Structure(NamedTuple):
    """Columns of a record."""

    tiled: bool | None = None
    cog: bool | None = None
    cog_problems: list[str] | None = None


def structure_of(dataset: Any, path: bytes | None, reopen: Reopen) -> Structure:
    """Return how an open dataset is stored.

    Args:
        dataset: what rasterio opened.
        path: the file; None: it is an object, and `tiled` is null where only bytes tell it.
        reopen: opens the same file.
    """
    if dataset.driver != GTIFF:
        return Structure(dataset.is_tiled if dataset.count else None)
    factors = dataset.overviews(1)
    external = bool(factors) and _has_external_overviews(dataset, path)
    images = [_Image(dataset, None, 1, reopen)]
    if not external:
        images += [_Image(dataset, level, factor, reopen) for level, factor in enumerate(factors)]
    ifds = [image.number("IFD_OFFSET") for image in images]
    problems = cog_problems(
        problems_of_levels([Level(image.factor, image.has_wide_blocks) for image in images]),
        ifds,
        [image.first_block for image in images] if ifds[0] <= MAX_FIRST_IFD else [],
        edited=_is_edited(dataset),
        external=external,
    )
    return Structure(_is_tiled(dataset, path), not problems, problems)


class _Image:
    """The image of a dataset, or one of its overviews: then it is opened only if it must be."""

    def __init__(self, dataset: Any, level: int | None, factor: int, reopen: Reopen) -> None:
        self.factor = factor
        self._dataset = dataset
        self._level = level
        self._reopen = reopen

    def number(self, name: str) -> int:
        """Return a number that GDAL has under a name; 0: it has none."""
        return int(self._dataset.get_tag_item(name, "TIFF", 1, self._level) or 0)

    @cached_property
    def _shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the image, and of a block."""
        if self._level is None:
            return self._dataset.shape, self._dataset.block_shapes[0]
        with self._reopen(driver=GTIFF, OVERVIEW_LEVEL=self._level) as overview:
            return overview.shape, overview.block_shapes[0]

    @property
    def has_wide_blocks(self) -> bool:
        """See `Level`."""
        if self._level is not None and (
            not can_be_large(max(self._dataset.shape), self.factor)
            or self.number("BLOCK_OFFSET_1_0")  # a second one in the first row
        ):
            return False
        (height, width), (_, block_width) = self._shapes
        return has_wide_blocks(width, height, block_width)

    @property
    def first_block(self) -> int:
        """Offset of the first block that is written; 0: there is none."""
        return self.number("BLOCK_OFFSET_0_0") or self._next_block()

    def _next_block(self) -> int:
        (height, width), (block_height, block_width) = self._shapes
        rows, columns = -(-height // block_height), -(-width // block_width)
        places = itertools.product(range(rows), range(columns))
        offsets = (
            self.number(f"BLOCK_OFFSET_{column}_{row}")
            for row, column in itertools.islice(places, MAX_BLOCKS)
        )
        return next(filter(None, offsets), 0)


def _is_edited(dataset: Any) -> bool:
    try:
        return EDITED in (dataset.get_tag_item("GDAL_STRUCTURAL_METADATA", "TIFF") or "")
    except UnicodeDecodeError:  # GDAL wrote no such thing
        return False


def _has_external_overviews(dataset: Any, path: bytes | None) -> bool:
    try:
        return any(name.lower().endswith(".ovr") for name in dataset.files)
    except UnicodeDecodeError:  # rasterio cannot say names that are not UTF-8
        return path is not None and any(map(os.path.exists, (path + b".ovr", path + b".OVR")))


def _is_tiled(dataset: Any, path: bytes | None) -> bool | None:
    (height, width), (block_height, block_width) = dataset.shape, dataset.block_shapes[0]
    if block_width != width or block_height > height:  # as no strip is
        return True
    if path is not None:
        try:
            with open(path, "rb") as file:
                return has_tiles(partial(_read_at, file))
        except (OSError, NotPlain):
            return None
    return True if dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG" else None


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
