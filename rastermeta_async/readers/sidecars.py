"""Finds the files next to a raster that may say something about it, by their names alone.

Georeferencing, statistics, overviews and masks may be in sidecars (``.aux.xml``, world files,
``.ovr``, ``.msk``, product metadata). For each file that it opens, GDAL lists the folder to find
them, or tries each possible name. Here, one cached listing of a folder tells whether there is
anything to find at all. A new sidecar is found if its raster is read more than `MAX_AGE` later.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from threading import Lock

from rastermeta_async.model.file_state import TICK_SECONDS


class Tally:
    """A count of files and its first example; several threads may add to it."""

    def __init__(self) -> None:
        self.count = 0
        self.example = ""
        """The first file counted, and which sidecar was the reason."""
        self._lock = Lock()

    def add(self, count: int, example: str) -> None:
        """Add a number of files, one of which is the example."""
        with self._lock:
            self.count += count
            self.example = self.example or example

    def take(self) -> bytes:
        """Return what was added since the last call, for `add_taken` in another process."""
        with self._lock:
            count, self.count = self.count, 0
        return json.dumps((count, self.example)).encode() if count else b""

    def add_taken(self, content: bytes) -> None:
        """Add what `take` returned in another process."""
        if content:
            self.add(*json.loads(content))


SIDECARS = Tally()
"""Files not decoded because of sidecars, here and, in a run's process, in its workers."""


MAX_AGE = 1.0
"""Most seconds for which a folder counts as unchanged. Only a folder that changes all the time and
takes more than a tenth of a second to list counts as unchanged for longer."""

_PAUSE, _LONG_PAUSE = 100, 10
"""Pauses between checks of a folder, in multiples of the time that a check takes."""

MAX_KEPT = 65_536
"""Names in the cache, of all folders together (some 130 bytes each)."""

_MAX_KEPT_OF_ONE = MAX_KEPT // 4
"""Names of either sort in the cache for one folder; with more, any name counts as possible."""

_FOLDER_NAMES = 8
"""Names that an empty folder counts for: it takes about as much memory as so many names."""

MAX_NAMES = 1_000_000
"""Names looked at in one folder; a folder with more names counts as unknown."""

GDAL_MAX_NAMES = 1000
"""Names up to which GDAL lists a folder itself (``GDAL_READDIR_LIMIT_ON_OPEN``)."""

# The rules: what GDAL 3.10 looks for next to a TIFF, and next to a JP2, which is a part of it.

_OF_NAME = (
    b".aux.xml",  # gcore/gdalpamdataset.cpp
    b".ovr",  # gcore/gdaldefaultoverviews.cpp, also the next two
    b".msk",
    b".aux",
)
"""Endings that are added to the raster's whole name."""

_OF_STEM = (
    b".aux",  # gcore/gdaldefaultoverviews.cpp
    b".imd",  # gcore/mdreader/reader_digital_globe.cpp, also the next two
    b".rpb",
    b".xml",  # also reader_rdk1.cpp
    b"_rpc.txt",  # reader_geo_eye.cpp, reader_orb_view.cpp
    b"_metadata.xml",  # reader_rapid_eye.cpp
    b".rpc",  # reader_eros.cpp, reader_kompsat.cpp
    b".pass",  # reader_eros.cpp
)
"""Endings that are added to the raster's name without its last ending.

``.pvl`` (reader_orb_view.cpp) and ``.txt`` (reader_kompsat.cpp) are left out: they only count
together with one of these.
"""

_OF_ALL = (
    b"metadata.dim",  # reader_spot.cpp
    b"summary.txt",  # reader_alos.cpp
)
"""Names of files with metadata of all rasters in a folder."""

_ENDINGS = (
    *_OF_NAME, *_OF_STEM, *_OF_ALL, b"_mtl.txt", b"_metadata.txt", b".tab", b".wld", b"w",
)  # fmt: skip
"""Endings of the names from `_sidecar_names` and `_world_file_names`, except ``rpc*.txt``."""

_BEGINNINGS = (b"rpc", b"dim_")
"""Beginnings of the sidecar names that do not begin like the raster's name."""

_TILE = re.compile(rb"r\s*[+-]?\d+c\s*[+-]?\d")
"""Row and column of a tile, as C's ``sscanf`` reads them."""

_FORM = b"/".join(b"%b" + ending for ending in _OF_NAME + _OF_STEM)
"""Format of all these names at once, for speed; no name holds a slash."""


def _sidecar_names(name: bytes) -> list[bytes]:
    """Return names, in lower case, of files that may hold metadata, overviews or a mask of a TIFF.

    Where GDAL lists the folder, it compares names without regard to case.

    Args:
        name: of the TIFF, in lower case, without its folder.
    """
    stem = _stem(name)
    names = (_FORM % ((name,) * len(_OF_NAME) + (stem,) * len(_OF_STEM))).split(b"/")
    names += _OF_ALL
    names.append(stem.partition(b"_b")[0] + b"_mtl.txt")  # reader_landsat.cpp
    split = b"_rgb_" if b"_rgb_" in stem else b"_pan_"
    names.append(stem.partition(split)[0] + b"_metadata.txt")  # reader_geo_eye.cpp
    # reader_alos.cpp: these only count together with HDR…
    names += [b"rpc" + stem[cut:] + b".txt" for cut in (3, 6) if len(stem) >= cut]
    dot = stem.find(b".")
    while dot >= 0:
        names.append(stem[:dot] + b".pass")  # reader_eros.cpp
        dot = stem.find(b".", dot + 1)
    of_tile = stem[4:]
    at = max(of_tile.rfind(b"_"), 0)
    if _TILE.match(of_tile, at + 1):
        for part in (of_tile, of_tile[:at]):  # reader_pleiades.cpp
            names += (b"dim_" + part + b".xml", b"rpc_" + part + b".xml")
    return names


def _world_file_names(name: bytes) -> list[bytes]:
    """Return names of files that may place a TIFF if its header does not; see `_sidecar_names`.

    The rules are those of gcore/gdal_misc.cpp, ``GDALReadWorldFile2`` and ``GDALReadTabFile2``.
    """
    stem = _stem(name)
    suffix = name[len(stem) + 1 :]
    names = [stem + b".tab", stem + b".wld"]
    if len(suffix) > 1:
        names += (stem + b"." + suffix[:1] + suffix[-1:] + b"w", name + b"w")
    return names


def _stem(name: bytes) -> bytes:
    """Return a name without its last ending."""
    stem, dot, _ = name.rpartition(b".")
    return stem if dot else name


OVERVIEWS = b".ovr"
"""The ending of overview files; GDAL opens one as a raster if it is given by itself."""


def _is_sought_elsewhere(name: bytes) -> bool:
    """Whether GDAL also looks outside the folder of a file; its name is in lower case.

    For GDAL a backslash separates folders on all systems. reader_spot.cpp adds a backslash and the
    name of the metadata to the folder of an ``IMAGERY.TIF``: that file is next to the folder.
    """
    return name == b"imagery.tif" or b"\\" in name


# The same rules for files that are not known to be TIFFs.

STANDALONE_SUFFIXES = frozenset(
    b"tif tiff gtiff btf tf8 img jp2 j2k nc nc4 h5 hdf5 he5 grb grb2 grib grib2".split()
)
"""Files that are never part of another raster."""

_TRIED_AS_THEY_ARE = (b".aux.xml", b".tfw", b".wld", b".ovr", b".msk")
"""Endings in the spelling that GDAL tries first if it does not list the folder."""

UNRELATED_SUFFIXES = frozenset(
    b"json geojson csv md html htm pdf png jpg jpeg gif svg log md5 sha1 sha256 zip gz bz2 xz zst"
    b" 7z tar tgz py sh ipynb parquet gpkg kml kmz shp shx dbf cpg prj sbn sbx qix qml sld lyr"
    b" vrt rst pgm ppm pbm pnm".split()
)
"""No driver looks for such files next to such a raster, nor for names without a dot."""


class Listing(Enum):
    """How GDAL looks for sidecars: values of ``GDAL_DISABLE_READDIR_ON_OPEN``."""

    NOTHING_THERE = "EMPTY_DIR"
    LIST = "FALSE"
    """GDAL lists the folder and compares names without regard to case."""
    TRY_EACH_NAME = "TRUE"
    """GDAL tries some spellings only; it does so by itself in a large folder."""


class Neighbours(Enum):
    """What a folder holds besides a TIFF."""

    SIDECARS = auto()
    """Files that may say something about it."""
    WORLD_FILES = auto()
    """Files that may say where it lies, if its header does not."""
    OTHERS = auto()
    """Nothing about it; there are links, pipes or devices."""
    FILES = auto()
    """Nothing about it; there are only files and folders."""


@dataclass(frozen=True)
class _Folder:
    listing: Listing
    """How GDAL looks for sidecars by default."""
    sidecars: frozenset[bytes] | None
    """Names that may be sidecars of a TIFF, in lower case; None: any may be there."""
    words: frozenset[bytes] | None
    """First words of the names of TIFFs that may have these sidecars; None: any TIFF may."""
    groups: Mapping[bytes, bytes | None] | None
    """Possible sidecars of any raster, up to the first dot: from the name in lower case to its
    spelling, or to None if GDAL does not try this spelling. None: any name is possible."""
    only_files: bool
    """Whether the folder held only files and folders."""

    @property
    def size(self) -> int:
        """Names that the folder counts for in the cache."""
        return _FOLDER_NAMES + len(self.sidecars or ()) + len(self.groups or ())


_UNKNOWN = _Folder(Listing.TRY_EACH_NAME, None, None, None, only_files=False)


class _Known:
    """What is known of one folder, and until when that is valid."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = None
        """Version of the folder when it was listed; None: a later change may not show."""
        self.found = _UNKNOWN
        self.until = -math.inf
        self.asking = Lock()

    def ask(self, clock: Callable[[], float]) -> bool:
        """Find out what is in the folder now; return whether it was listed for that."""
        now = clock()
        if self.until > -math.inf:  # other threads do not ask meanwhile
            self.until = now + MAX_AGE
        version = _version(self._path)
        is_new = version is None or version != self._version
        if is_new:
            self.found = _look_into(self._path)
            self._version = version
        took = clock() - now
        self.until = now + took + min(took * _PAUSE, max(MAX_AGE, took * _LONG_PAUSE))
        return is_new


class Folders:
    """Answers questions about folders, from a cache with a short lifetime.

    A folder is checked for changes again after a hundred times as long as the check took, so checks
    cost a hundredth of the time at most. On a local disk it is checked for nearly every file, on a
    remote disk once a second (`MAX_AGE`). Only a folder that has changed is listed again. If the
    names of all folders do not fit, the cache drops the folders that were listed longest ago.

    Args:
        clock: returns the time in seconds since any fixed moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._sizes: dict[bytes, int] = {}
        """Names that each folder counts for; the folders are in the order of their listing."""
        self._kept = 0
        self._lock = Lock()

    def _folder(self, path: bytes) -> _Folder:
        known = self._known.get(path) or self._new(path)
        if self._clock() >= known.until:
            # Many threads may ask for a new folder at once; they do not wait for one that hangs.
            is_first = known.asking.acquire(timeout=MAX_AGE)
            try:
                if self._clock() >= known.until and known.ask(self._clock):
                    self._keep(path, known)
            finally:
                if is_first:
                    known.asking.release()
        return known.found

    def _new(self, path: bytes) -> _Known:
        with self._lock:
            return self._known.setdefault(path, _Known(path))

    def _keep(self, path: bytes, known: _Known) -> None:
        """Cache a folder; drop others if there is no room."""
        with self._lock:
            self._forget(path)
            self._known[path] = known
            self._sizes[path] = known.found.size
            self._kept += known.found.size
            while self._kept > MAX_KEPT:
                self._forget(next(iter(self._sizes)))

    def _forget(self, path: bytes) -> None:
        self._known.pop(path, None)
        self._kept -= self._sizes.pop(path, 0)

    def listing_on_open(self, path: bytes) -> Listing:
        """Return the cheapest way for GDAL to find the same sidecars of a raster as by default."""
        folder, name = _split(path)
        found = self._folder(folder)
        if found.sidecars is None or found.groups is None:
            return found.listing
        group, lower = _group(name), name.lower()
        if lower.rpartition(b".")[2] not in STANDALONE_SUFFIXES or _is_sought_elsewhere(lower):
            return found.listing
        sidecars = found.sidecars and found.sidecars.intersection(
            [*_sidecar_names(lower), *_world_file_names(lower)]
        )
        if group.lower() not in found.groups and not sidecars:
            return Listing.NOTHING_THERE
        # Only if the endings are in lower case: otherwise a.TIF may have an a.tif.ovr.
        as_tried = found.groups.get(group.lower()) == group and _has_lower_endings(name)
        of_group = all(_group(sidecar) == group.lower() for sidecar in sidecars)
        return Listing.TRY_EACH_NAME if as_tried and of_group else found.listing

    def neighbours(self, path: bytes) -> Neighbours:
        """Return what stands next to a TIFF that matters to GDAL or to the operating system."""
        folder, name = _split(path)
        return _neighbours(self._folder(folder), name.lower())


class ListedFolders:
    """The same for names that are known, such as those in an archive.

    Args:
        paths: of all files.
    """

    def __init__(self, paths: Iterable[bytes]) -> None:
        names: dict[bytes, list[bytes]] = {}
        for path in paths:
            folder, name = _split(path)
            names.setdefault(folder, []).append(name)
        self._folders = {
            folder: _found_in((name, None) for name in some) for folder, some in names.items()
        }

    def neighbours(self, path: bytes) -> Neighbours:
        """See `Folders.neighbours`."""
        folder, name = _split(path)
        return _neighbours(self._folders.get(folder, _UNKNOWN), name.lower())


def _neighbours(found: _Folder, name: bytes) -> Neighbours:
    """Return what stands in a folder next to a TIFF with a name in lower case."""
    if found.sidecars is None or _is_sought_elsewhere(name):
        return Neighbours.SIDECARS
    if name.endswith(OVERVIEWS):  # given by itself, it counts as a sidecar of its own
        return Neighbours.SIDECARS
    if found.sidecars and (found.words is None or _first_word(name) in found.words):
        if not found.sidecars.isdisjoint(_sidecar_names(name)):
            return Neighbours.SIDECARS
        if not found.sidecars.isdisjoint(_world_file_names(name)):
            return Neighbours.WORLD_FILES
    return Neighbours.FILES if found.only_files else Neighbours.OTHERS


def sidecars_of(path: bytes, neighbours: Neighbours) -> list[bytes]:
    """Return the names of the files next to a TIFF that may say something about it, sorted.

    The list is empty if there are no such files, or the folder cannot be listed.

    Args:
        path: of the TIFF.
        neighbours: which sidecars are known to be there: world files, or others.
    """
    folder, name = _split(path)
    rules = _world_file_names if neighbours is Neighbours.WORLD_FILES else _sidecar_names
    names = set(rules(name.lower()))
    try:
        with os.scandir(folder) as entries:
            some = itertools.islice(entries, MAX_NAMES)
            return sorted(entry.name for entry in some if entry.name.lower() in names)
    except OSError:
        return []


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Return a path's folder and its name there."""
    folder, slash, name = path.rpartition(b"/")
    return folder or slash or b".", name


def _group(name: bytes) -> bytes:
    return name.partition(b".")[0]


def _has_lower_endings(name: bytes) -> bool:
    endings = name.partition(b".")[2]
    return endings == endings.lower()


def _version(folder: bytes) -> tuple[int, ...] | None:
    """Return a value that differs after a change of the names in a folder.

    None: the folder has just changed; another change in the same clock tick would not show.
    """
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    if time.time() - status.st_ctime < TICK_SECONDS:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _look_into(folder: bytes) -> _Folder:
    try:
        with os.scandir(folder) as entries:
            return _found_in((entry.name, entry) for entry in entries)
    except (OSError, ValueError):  # no permission to list it, or a NUL byte in its name
        return _UNKNOWN


def _found_in(names: Iterable[tuple[bytes, os.DirEntry[bytes] | None]]) -> _Folder:
    """Return what is in a folder; a name without an entry is of a file."""
    count = 0
    only_files = True
    sidecars: set[bytes] | None = set()
    groups: dict[bytes, bytes | None] | None = {}
    for count, (spelt, entry) in enumerate(names, 1):
        if count > MAX_NAMES:
            return _UNKNOWN
        only_files = only_files and (entry is None or _is_plain(entry))
        name = spelt.lower()
        suffix = name.rpartition(b".")[2]
        if suffix in STANDALONE_SUFFIXES or suffix in UNRELATED_SUFFIXES:
            continue
        if sidecars is not None and _is_sidecar(name):
            sidecars.add(name)
            sidecars = sidecars if len(sidecars) <= _MAX_KEPT_OF_ONE else None
        if groups is not None and b"." in name:
            _add_to_group(groups, spelt)
            groups = groups if len(groups) <= _MAX_KEPT_OF_ONE else None
    # "." and ".." may count; near the limit GDAL counts for itself.
    listing = Listing.LIST if count <= GDAL_MAX_NAMES + 2 else Listing.TRY_EACH_NAME
    words = {_first_word(name) for name in sidecars or ()}
    of_all = any(name in _OF_ALL or name.startswith(_BEGINNINGS) for name in sidecars or ())
    return _Folder(
        listing,
        None if sidecars is None else frozenset(sidecars),
        None if of_all else frozenset(words),
        groups,
        only_files,
    )


def _is_plain(entry: os.DirEntry[bytes]) -> bool:
    return not entry.is_symlink() and (entry.is_file() or entry.is_dir())


def _is_sidecar(name: bytes) -> bool:
    return name.endswith(_ENDINGS) or (name.startswith(b"rpc") and name.endswith(b".txt"))


def _first_word(name: bytes) -> bytes:
    """Return the part before the first dot or underscore; all endings begin with one of these."""
    return name.partition(b".")[0].partition(b"_")[0]


def _add_to_group(groups: dict[bytes, bytes | None], name: bytes) -> None:
    """Add the group of rasters that a file may belong to."""
    group = _group(name)
    usual = name.endswith(_TRIED_AS_THEY_ARE) and _has_lower_endings(name)
    known = groups.get(group.lower(), group)
    groups[group.lower()] = group if usual and known == group else None
