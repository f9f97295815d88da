"""Folders that are one raster: Zarr stores, ESRI grids and geodatabases.

A walk gives such a folder as one input, and GDAL opens it as one dataset; a listing of the files
inside would give a thousand. References: Zarr v2, "Metadata"; Zarr v3, "Metadata documents"; GDAL,
"AIG -- Arc/Info Binary Grid".
"""

from __future__ import annotations

import os

_MARKS = (b".zgroup", b".zarray", b"zarr.json", b"hdr.adf")
"""Names of files that only such a folder has, in lower case."""

_LONGEST = max(map(len, _MARKS))
_ENDINGS = (b".zarr", b".gdb")
"""Endings of the names of such folders, in lower case."""


_RASTERS = (b".tif", b".tiff", b".jp2", b".img", b".vrt", b".nc")
"""Endings of files that no such folder has; next to a mark they mean that it is any folder."""


def is_raster_name(folder: bytes) -> bool:
    """Tell whether a folder is one raster by its name."""
    return folder.lower().endswith(_ENDINGS)


def is_mark(name: bytes) -> bool:
    """Tell whether a file of this name makes its folder one raster."""
    return len(name) <= _LONGEST and name.lower() in _MARKS


def is_raster_file(name: bytes) -> bool:
    """Tell whether a file of this name makes its folder any folder, whatever marks are there."""
    return name.lower().endswith(_RASTERS)


def is_raster_folder(path: bytes) -> bool:
    """Tell whether a folder is one raster; the disk is asked for one name after the other."""
    return is_raster_name(path) or _mark_in(path) is not None


def folder_time(path: bytes) -> int:
    """Return when a folder, or the file that makes it a raster, has changed, in nanoseconds.

    What changes inside a Zarr store's arrays changes neither.

    Raises:
        OSError, ValueError: the disk does not say.
    """
    mark = _mark_in(path)
    paths = [path] if mark is None else [path, mark]
    return max(os.stat(path).st_mtime_ns for path in paths)


def _mark_in(folder: bytes) -> bytes | None:
    for mark in _MARKS:
        if os.path.isfile(path := os.path.join(folder, mark)):
            return path
    return None
