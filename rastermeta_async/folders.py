"""What a folder's listing tells about sidecar files, asked for once a folder.

Georeferencing, statistics, overviews and masks may stand next to a raster (``.aux.xml``, world
files, ``.ovr``, ``.msk``, product metadata). Asking for each possible name costs GDAL six to
eight failed look-ups a file, dear on a network disk; one listing answers for the whole folder.
"""

from __future__ import annotations

import os
from functools import lru_cache

MAX_FOLDERS = 1024
MAX_NAMES = 10_000
"""Names read of one folder; in a larger one GDAL looks for itself."""

STANDALONE_SUFFIXES = frozenset(
    b".tif .tiff .gtiff .btf .tf8 .jp2 .j2k .nc .nc4 .h5 .hdf5 .he5 .grb .grb2 .grib .grib2".split()
)
"""Names that are never part of another raster."""


class Folders:
    """Answers about folders, remembered for one run: a listing is not asked for twice."""

    def __init__(self) -> None:
        self._has_sidecars = lru_cache(MAX_FOLDERS)(_has_sidecars)

    def may_have_sidecars(self, path: bytes) -> bool:
        """Tell whether a raster's folder holds anything that might belong to it."""
        return self._has_sidecars(os.path.dirname(path) or b".")


def _has_sidecars(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries, 1):
                if number > MAX_NAMES:
                    return True
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix not in STANDALONE_SUFFIXES and not entry.is_dir():
                    return True
    except OSError:  # may be searched but not listed: GDAL then tries each name
        return True
    return False
