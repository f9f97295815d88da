"""What a folder's listing tells about sidecar files, asked for once a folder while it is the same.

Georeferencing, statistics, overviews and masks may stand next to a raster (``.aux.xml``, world
files, ``.ovr``, ``.msk``, product metadata). For each file that it opens, GDAL lists the folder
to find them, or tries each possible name; one listing that is remembered tells whether there
is anything to find at all. A file that appears next to a raster that is read later than `MAX_AGE`
after that is found.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from rastermeta_async.versions import TICK_SECONDS

MAX_FOLDERS = 128
MAX_AGE = 1.0
"""Seconds for which a folder is taken for unchanged, at most: longer only where it is listed for
longer than a tenth of a second, and changes all the time."""

_PAUSE, _LONG_PAUSE = 100, 10
"""So many times as long as to ask takes, nothing is asked."""

MAX_STEMS = 4096
"""Rasters with sidecars of their own that are remembered of one folder."""

MAX_NAMES = 1_000_000
"""Names looked at in one folder; what comes after them is not known."""

GDAL_MAX_NAMES = 1000
"""Names up to which GDAL lists a folder itself (``GDAL_READDIR_LIMIT_ON_OPEN``)."""

STANDALONE_SUFFIXES = frozenset(
    b".tif .tiff .gtiff .btf .tf8 .img .jp2 .j2k .nc .nc4 .h5 .hdf5 .he5 .grb .grb2 .grib"
    b" .grib2".split()
)
"""Names that are never part of another raster."""

_OWN_SUFFIXES = frozenset(b".aux .ovr .msk .tab .tfw .tifw .tiffw .tfwx .txt .wld .xml".split())
"""Sidecars of a TIFF that bear its name: GDAL's raster drivers page "GTiff", "Georeferencing"
and "Overviews"; ``.xml`` also covers ``.aux.xml`` (PAM) and ``.tif.xml``."""

_TRIED_AS_THEY_ARE = (b".aux.xml", b".tfw", b".wld", b".ovr", b".msk")
"""Endings in the spelling that GDAL tries first where it lists no folder."""

_PRODUCT_PREFIXES = (
    b"dim_", b"rpc", b"hdr", b"iim_", b"summary", b"metadata", b"readme", b"manifest",
)  # fmt: skip
"""How metadata of whole products is named (GDAL's metadata readers, ``gcore/mdreader``)."""

_PRODUCT_ENDINGS = (b"_mtl.txt", b"_metadata.txt")
"""The metadata of a Landsat or GeoEye scene, whose rasters have other names."""

_UNRELATED_SUFFIXES = frozenset(
    b".json .geojson .csv .md .html .htm .pdf .png .jpg .jpeg .gif .svg .log .md5 .sha1 .sha256"
    b" .zip .gz .bz2 .xz .zst .7z .tar .tgz .py .sh .ipynb .parquet .gpkg .kml .kmz .shp .shx"
    b" .dbf .cpg .prj .sbn .sbx .qix .qml .sld .lyr .vrt .rst .pgm .ppm .pbm .pnm".split()
) | {b""}
"""Files that tell GDAL nothing about a TIFF next to them."""

_ABOUT_FOLDER = (b"readme", b"license", b"copying", b"notice", b"changelog")
"""Texts for people."""


class Listing(Enum):
    """How GDAL is to look for sidecar files: ``GDAL_DISABLE_READDIR_ON_OPEN``."""

    NOTHING_THERE = "EMPTY_DIR"
    LIST = "FALSE"
    """Names are compared without regard to case."""
    TRY_EACH_NAME = "TRUE"
    """Only in some spellings; what GDAL does by itself in a large folder."""


class Neighbours(Enum):
    """What a folder holds besides a TIFF."""

    SIDECARS = auto()
    """Files that may say something about it."""
    OTHERS = auto()
    """Nothing about it, but links, pipes or devices."""
    FILES = auto()
    """Nothing about it, and files and folders only."""


@dataclass(frozen=True)
class _Folder:
    listing: Listing
    """Of a file of which no more is known."""
    stems: Mapping[bytes, bytes | None] | None
    """Names, up to the first dot and in lower case, of rasters that may have sidecars, and as
    those spell them; None in place of a spelling: not as GDAL tries them. None: all may."""
    only_files: bool
    """Whether nothing else than files and folders was in it."""


_UNKNOWN = _Folder(Listing.TRY_EACH_NAME, None, only_files=False)


class _Known:
    """What is known of one folder, and until when that is good."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._found = _UNKNOWN
        self._version: tuple[int, ...] | None = None
        """Of the folder when it was listed; None: a change since need not show."""
        self._until: float | None = None

    def found(self, clock: Callable[[], float]) -> _Folder:
        """Return it; ask again where it is too old."""
        now = clock()
        if self._until is None or now >= self._until:
            if self._until is not None:  # others do not ask at the same time
                self._until = now + MAX_AGE
            self._ask()
            took = clock() - now
            self._until = now + took + min(took * _PAUSE, max(MAX_AGE, took * _LONG_PAUSE))
        return self._found

    def _ask(self) -> None:
        version = _version(self._path)
        if version is None or version != self._version:
            self._found = _look_into(self._path)
            self._version = version


class Folders:
    """Answers about folders, which are remembered, but not for long.

    Whether a folder has changed is asked again after a hundred times as long as that takes, so it
    costs a hundredth of the time at most: on a local disk that is for nearly every file, on a far
    one each second (`MAX_AGE`). Then only what has changed is listed again.

    Args:
        clock: tells the time, seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known = lru_cache(MAX_FOLDERS)(_Known)

    def _folder(self, path: bytes) -> _Folder:
        return self._known(path).found(self._clock)

    def listing_on_open(self, path: bytes) -> Listing:
        """Return how GDAL finds all that belongs to a raster, as by default, at least cost."""
        folder, slash, name = path.rpartition(b"/")
        found = self._folder((folder or slash) or b".")
        suffix = os.path.splitext(name)[1].lower()
        if found.stems is None or suffix not in STANDALONE_SUFFIXES:
            return found.listing
        stem = _stem(name)
        if stem.lower() not in found.stems:
            return Listing.NOTHING_THERE
        as_tried = found.stems[stem.lower()] == stem and _has_lower_endings(name)
        return Listing.TRY_EACH_NAME if as_tried else found.listing

    def neighbours(self, path: bytes) -> Neighbours:
        """Return what stands next to a TIFF, as far as GDAL and the system are concerned."""
        folder, slash, name = path.rpartition(b"/")
        found = self._folder((folder or slash) or b".")
        if found.stems is None or (found.stems and _stem(name).lower() in found.stems):
            return Neighbours.SIDECARS
        return Neighbours.FILES if found.only_files else Neighbours.OTHERS


def _stem(name: bytes) -> bytes:
    return name.partition(b".")[0]


def _has_lower_endings(name: bytes) -> bool:
    """Whether what follows the stem is in lower case: else a.TIF may have an a.tif.ovr."""
    endings = name.partition(b".")[2]
    return endings == endings.lower()


def _version(folder: bytes) -> tuple[int, ...] | None:
    """Return what is another one after a change of a folder's names.

    None: it has just changed, and a further change in the same tick would leave no trace.
    """
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    if time.time() - status.st_ctime < TICK_SECONDS:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _look_into(folder: bytes) -> _Folder:
    names = 0
    sidecars = False
    only_files = True
    stems: dict[bytes, bytes | None] | None = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names += 1
                if names > MAX_NAMES:
                    return _UNKNOWN
                only_files = only_files and _is_plain(entry)
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix in STANDALONE_SUFFIXES or entry.is_dir():
                    continue
                sidecars = True
                if stems is not None and not _is_unrelated(entry.name, suffix):
                    of_all = _is_of_all(stems, entry.name, suffix)
                    stems = None if of_all or len(stems) > MAX_STEMS else stems
    except (OSError, ValueError):  # may be searched but not listed; a name with a NUL byte
        return _UNKNOWN
    # "." and ".." may count; where it is close GDAL is left to count for itself.
    listed = names <= GDAL_MAX_NAMES + 2
    listing = (
        Listing.NOTHING_THERE if not sidecars else Listing.LIST if listed else Listing.TRY_EACH_NAME
    )
    return _Folder(listing, stems, only_files)


def _is_plain(entry: os.DirEntry[bytes]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _is_unrelated(name: bytes, suffix: bytes) -> bool:
    return suffix in _UNRELATED_SUFFIXES or (
        suffix == b".txt" and name.lower().startswith(_ABOUT_FOLDER)
    )  # these have stems of their own, but "readme" is also a prefix of product metadata


def sidecars_of(path: bytes) -> list[bytes]:
    """Return the names of the files next to a TIFF that may say something about it, sorted.

    None where there are none, or the folder cannot be listed.
    """
    folder, slash, name = path.rpartition(b"/")
    found = []
    with suppress(OSError), os.scandir((folder or slash) or b".") as entries:
        for entry in itertools.islice(entries, MAX_NAMES):
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in STANDALONE_SUFFIXES or _is_unrelated(entry.name, suffix):
                continue
            stems: dict[bytes, bytes | None] = {}
            concerned = _is_of_all(stems, entry.name, suffix) or _stem(name).lower() in stems
            if concerned and not entry.is_dir():
                found.append(entry.name)
    return sorted(found)


def _is_of_all(stems: dict[bytes, bytes | None], name: bytes, suffix: bytes) -> bool:
    """Note which rasters a sidecar may belong to; True: all of the folder."""
    return suffix not in _OWN_SUFFIXES or not _add_stems(stems, name)


def _add_stems(stems: dict[bytes, bytes | None], name: bytes) -> bool:
    """Note which rasters a sidecar may belong to; False: all of the folder."""
    stem = _stem(name)
    if stem.lower().startswith(_PRODUCT_PREFIXES) or name.lower().endswith(_PRODUCT_ENDINGS):
        return False
    usual = name.endswith(_TRIED_AS_THEY_ARE) and _has_lower_endings(name)
    known = stems.get(stem.lower(), stem)
    stems[stem.lower()] = stem if usual and known == stem else None
    for ending in (b"_metadata", b"_rpc"):
        if stem.lower().endswith(ending):
            stems[stem.lower().removesuffix(ending)] = None
    return True
