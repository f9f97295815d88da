"""Folders that are one raster: Zarr stores, ESRI grids and geodatabases.

A walk gives such a folder as one input, and GDAL opens it as one dataset; a listing of the files
inside would give a thousand. In object stores, Zarr stores are such inputs. References: Zarr v2,
"Metadata"; Zarr v3, "Metadata documents"; GDAL, "AIG -- Arc/Info Binary Grid".
"""

from __future__ import annotations

import os
import re

_FIRST_MARKS = (b".zgroup", b".zarray")
"""Names of metadata of Zarr v2, which a sorted listing has before all else in the store."""

ZARR_MARKS = (b"zarr.json", *_FIRST_MARKS)
"""Names of files that make a folder a Zarr store, in lower case."""

_MARKS = (*ZARR_MARKS, b"hdr.adf")
"""Names of files that only such a folder has, in lower case."""

_LONGEST = max(map(len, _MARKS))
_ZARR = b".zarr"
_ENDINGS = (_ZARR, b".gdb")
"""Endings of the names of such folders, in lower case."""

_UP_TO_STORE = re.compile(rf".*?[^/]{re.escape(_ZARR.decode())}(?=/)", re.IGNORECASE | re.DOTALL)
"""The part of a key up to the first folder with this ending."""

_RASTERS = (b".tif", b".tiff", b".jp2", b".img", b".vrt", b".nc")
"""Endings of files that no such folder has; next to a mark they mean that it is any folder."""


def is_raster_name(folder: bytes) -> bool:
    """Tell whether a folder is one raster by its name."""
    return folder.lower().endswith(_ENDINGS)


def may_be_store(url: bytes) -> bool:
    """Tell whether a URL may be that of a Zarr store: its name has this ending, or none."""
    name = url.rpartition(b"/")[2].lower()
    return b"?" not in name and (name.endswith(_ZARR) or b"." not in name)


class StoreUrl(bytes):
    """The URL of a Zarr store: GDAL may open the objects in it."""

    __slots__ = ()


class ListedStores:
    """Finds Zarr stores among the keys of a listing, which are given in their order.

    A store is known by a name that ends in ``.zarr``, or by the metadata of version 2, which come
    first. Those of version 3 come after the data.
    """

    def __init__(self) -> None:
        self._found = ""
        self._last = ""

    def is_next(self, store: str) -> bool:
        """Tell whether a store is another one than the last time: its keys follow each other."""
        is_next, self._last = store != self._last, store
        return is_next

    def store_of(self, key: str) -> str | None:
        """Return the key of the store that an object lies in; None: it lies in none.

        A GeoTIFF or the like is in none, wherever it lies.
        """
        folder, _, text = key.rpartition("/")
        name = text.encode()
        if is_raster_file(name):
            return None
        if found := _UP_TO_STORE.match(key):
            return found[0]
        if not (self._found and key.startswith(self._found)):
            self._found = f"{folder}/" if folder and name in _FIRST_MARKS else ""
        return self._found.removesuffix("/") or None


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
