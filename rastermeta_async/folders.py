"""What a folder's listing tells about sidecar files, asked for once a folder.

Georeferencing, statistics, overviews and masks may stand next to a raster (``.aux.xml``, world
files, ``.ovr``, ``.msk``, product metadata). For each file that it opens, GDAL lists the folder
to find them, or tries each possible name; one listing that is remembered tells whether there
is anything to find at all.
"""

from __future__ import annotations

import os
from enum import Enum
from functools import lru_cache

MAX_FOLDERS = 1024
MAX_NAMES = 10_000
"""Names looked at in one folder; what comes after them is not known."""

GDAL_MAX_NAMES = 1000
"""Names up to which GDAL lists a folder itself (``GDAL_READDIR_LIMIT_ON_OPEN``)."""

STANDALONE_SUFFIXES = frozenset(
    b".tif .tiff .gtiff .btf .tf8 .jp2 .j2k .nc .nc4 .h5 .hdf5 .he5 .grb .grb2 .grib .grib2".split()
)
"""Names that are never part of another raster."""


class Listing(Enum):
    """How GDAL is to look for sidecar files: ``GDAL_DISABLE_READDIR_ON_OPEN``."""

    NOTHING_THERE = "EMPTY_DIR"
    LIST = "FALSE"
    """Names are compared without regard to case."""
    TRY_EACH_NAME = "TRUE"
    """Only in some spellings; what GDAL does by itself in a large folder."""


class Folders:
    """Answers about folders, remembered for one run: a listing is not asked for twice."""

    def __init__(self) -> None:
        self._listing_in = lru_cache(MAX_FOLDERS)(_listing_in)

    def listing_on_open(self, path: bytes) -> Listing:
        """Return how GDAL finds all that belongs to a raster, as by default, at least cost."""
        return self._listing_in(os.path.dirname(path) or b".")


def _listing_in(folder: bytes) -> Listing:
    names = 0
    sidecars = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names += 1
                suffix = os.path.splitext(entry.name)[1].lower()
                sidecars = sidecars or not (suffix in STANDALONE_SUFFIXES or entry.is_dir())
                # "." and ".." may count; where it is close GDAL is left to count for itself.
                if names > MAX_NAMES or (sidecars and names > GDAL_MAX_NAMES + 2):
                    return Listing.TRY_EACH_NAME
    except OSError:  # may be searched but not listed
        return Listing.TRY_EACH_NAME
    return Listing.LIST if sidecars else Listing.NOTHING_THERE
