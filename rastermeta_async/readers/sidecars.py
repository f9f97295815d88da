"""Which files next to a raster may say something about it, by their names alone.

Georeferencing, statistics, overviews and masks may stand next to a raster (``.aux.xml``, world
files, ``.ovr``, ``.msk``, product metadata). For each file that it opens, GDAL lists the folder
to find them, or tries each possible name; one listing that is remembered tells whether there
is anything to find at all. A file that appears next to a raster that is read later than `MAX_AGE`
after that is found.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from threading import Lock

from rastermeta_async.model.file_state import TICK_SECONDS


class Tally:
    """A count and its first example; several threads may add to it."""

    def __init__(self) -> None:
        self.count = 0
        self.example = ""
        """The first one, and which file was the reason."""
        self._lock = Lock()

    def add(self, count: int, example: str) -> None:
        """Add some, of which one is told."""
        with self._lock:
            self.count += count
            self.example = self.example or example

    def take(self) -> bytes:
        """Return what is new since the last time, for `add_taken` in another process."""
        with self._lock:
            count, self.count = self.count, 0
        return json.dumps((count, self.example)).encode() if count else b""

    def add_taken(self, content: bytes) -> None:
        """Add what another process took."""
        if content:
            self.add(*json.loads(content))


SIDECARS = Tally()
"""Those of this process; in that of a run, also those of its workers."""


MAX_AGE = 1.0
"""Seconds for which a folder is taken for unchanged, at most: longer only where it is listed for
longer than a tenth of a second, and changes all the time."""

_PAUSE, _LONG_PAUSE = 100, 10
"""So many times as long as to ask takes, nothing is asked."""

MAX_KEPT = 65_536
"""Names that are remembered, of all folders together (some 130 bytes each)."""

_MAX_KEPT_OF_ONE = MAX_KEPT // 4
"""Names of either sort that are remembered of one folder; where there are more, any may be."""

_FOLDER_NAMES = 8
"""Names that a folder without any counts for: its memory is about that of so many."""

MAX_NAMES = 1_000_000
"""Names looked at in one folder; what comes after them is not known."""

GDAL_MAX_NAMES = 1000
"""Names up to which GDAL lists a folder itself (``GDAL_READDIR_LIMIT_ON_OPEN``)."""

# The rules: what GDAL 3.10 looks for next to a TIFF.

_OF_NAME = (
    b".aux.xml",  # gcore/gdalpamdataset.cpp
    b".ovr",  # gcore/gdaldefaultoverviews.cpp, as the next two
    b".msk",
    b".aux",
)
"""What follows the raster's whole name."""

_OF_STEM = (
    b".aux",  # gcore/gdaldefaultoverviews.cpp
    b".imd",  # gcore/mdreader/reader_digital_globe.cpp, as the next two
    b".rpb",
    b".xml",  # also reader_rdk1.cpp
    b"_rpc.txt",  # reader_geo_eye.cpp, reader_orb_view.cpp
    b"_metadata.xml",  # reader_rapid_eye.cpp
    b".rpc",  # reader_eros.cpp, reader_kompsat.cpp
    b".pass",  # reader_eros.cpp
)
"""What follows the raster's name less its last ending.

What only counts together with one of these is left out: ``.pvl`` (reader_orb_view.cpp) and
``.txt`` (reader_kompsat.cpp).
"""

_OF_ALL = (
    b"metadata.dim",  # reader_spot.cpp
    b"summary.txt",  # reader_alos.cpp
)
"""Names of metadata of all rasters in a folder."""

_ENDINGS = (
    *_OF_NAME, *_OF_STEM, *_OF_ALL, b"_mtl.txt", b"_metadata.txt", b".tab", b".wld", b"w",
)  # fmt: skip
"""Endings of all the names that `_sidecar_names` and `_world_file_names` return, but for…"""

_BEGINNINGS = (b"rpc", b"dim_")
"""…those that begin like this: what follows is not how the raster's name begins."""

_TILE = re.compile(rb"r\s*[+-]?\d+c\s*[+-]?\d")
"""Row and column of a tile, as C's ``sscanf`` takes them."""

_FORM = b"/".join(b"%b" + ending for ending in _OF_NAME + _OF_STEM)
"""All names at once, for speed; none holds a slash."""


def _sidecar_names(name: bytes) -> list[bytes]:
    """Return what may hold metadata, overviews or a mask of a TIFF, in lower case.

    Where GDAL lists the folder, it compares names without regard to case.

    Args:
        name: of the TIFF in lower case, without its folder.
    """
    stem = _stem(name)
    names = (_FORM % ((name,) * len(_OF_NAME) + (stem,) * len(_OF_STEM))).split(b"/")
    names += _OF_ALL
    names.append(stem.partition(b"_b")[0] + b"_mtl.txt")  # reader_landsat.cpp
    split = b"_rgb_" if b"_rgb_" in stem else b"_pan_"
    names.append(stem.partition(split)[0] + b"_metadata.txt")  # reader_geo_eye.cpp
    # reader_alos.cpp: what only counts together with HDR…
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
    """Return what may place a TIFF that does not do so itself; see `_sidecar_names`.

    The rules are those of gcore/gdal_misc.cpp, ``GDALReadWorldFile2`` and ``GDALReadTabFile2``.
    """
    stem = _stem(name)
    suffix = name[len(stem) + 1 :]
    names = [stem + b".tab", stem + b".wld"]
    if len(suffix) > 1:
        names += (stem + b"." + suffix[:1] + suffix[-1:] + b"w", name + b"w")
    return names


def _stem(name: bytes) -> bytes:
    """Return a name less its last ending."""
    stem, dot, _ = name.rpartition(b".")
    return stem if dot else name


OVERVIEWS = b".ovr"
"""The ending of files with overviews, which GDAL takes for rasters where they are given."""


def _is_sought_elsewhere(name: bytes) -> bool:
    """Whether GDAL looks outside the folder, too.

    To GDAL a backslash separates folders on all systems; with one, reader_spot.cpp looks for the
    metadata of an ``IMAGERY.TIF`` next to its folder. The name is given in lower case.
    """
    return name == b"imagery.tif" or b"\\" in name


# The same for files of which it is not known that they are TIFFs.

STANDALONE_SUFFIXES = frozenset(
    b"tif tiff gtiff btf tf8 img jp2 j2k nc nc4 h5 hdf5 he5 grb grb2 grib grib2".split()
)
"""Files that are never part of another raster."""

_TRIED_AS_THEY_ARE = (b".aux.xml", b".tfw", b".wld", b".ovr", b".msk")
"""Endings in the spelling that GDAL tries first where it lists no folder."""

_UNRELATED_SUFFIXES = frozenset(
    b"json geojson csv md html htm pdf png jpg jpeg gif svg log md5 sha1 sha256 zip gz bz2 xz zst"
    b" 7z tar tgz py sh ipynb parquet gpkg kml kmz shp shx dbf cpg prj sbn sbx qix qml sld lyr"
    b" vrt rst pgm ppm pbm pnm".split()
)
"""Files that no driver looks for next to such a raster; names without a dot are none, either."""


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
    WORLD_FILES = auto()
    """Files that may say where it lies, unless it does so itself."""
    OTHERS = auto()
    """Nothing about it, but links, pipes or devices."""
    FILES = auto()
    """Nothing about it, and files and folders only."""


@dataclass(frozen=True)
class _Folder:
    listing: Listing
    """What GDAL does by default."""
    sidecars: frozenset[bytes] | None
    """Names that may be sidecars of a TIFF, in lower case; None: any may be there."""
    words: frozenset[bytes] | None
    """First words of the names of TIFFs that may have some of them; None: of all."""
    groups: Mapping[bytes, bytes | None] | None
    """What precedes the first dot of names that may be sidecars of any raster, in lower case, and
    as those spell it; None in place of a spelling: not as GDAL tries them. None: any."""
    only_files: bool
    """Whether nothing else than files and folders was in it."""

    @property
    def size(self) -> int:
        """Names that it counts for."""
        return _FOLDER_NAMES + len(self.sidecars or ()) + len(self.groups or ())


_UNKNOWN = _Folder(Listing.TRY_EACH_NAME, None, None, None, only_files=False)


class _Known:
    """What is known of one folder, and until when that is good."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = None
        """Of the folder when it was listed; None: a change since need not show."""
        self.found = _UNKNOWN
        self.until = -math.inf
        self.asking = Lock()

    def ask(self, clock: Callable[[], float]) -> bool:
        """Find out what is in the folder now; tell whether it was listed for that."""
        now = clock()
        if self.until > -math.inf:  # others do not ask at the same time
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
    """Answers about folders, which are remembered, but not for long.

    Whether a folder has changed is asked again after a hundred times as long as that takes, so it
    costs a hundredth of the time at most: on a local disk that is for nearly every file, on a far
    one each second (`MAX_AGE`). Then only what has changed is listed again. Where there is no
    room for the names of all folders, those that were listed longest ago are forgotten.

    Args:
        clock: tells the time, seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._sizes: dict[bytes, int] = {}
        """Names that each folder counts for, in the order in which they were listed."""
        self._kept = 0
        self._lock = Lock()

    def _folder(self, path: bytes) -> _Folder:
        known = self._known.get(path) or self._new(path)
        if self._clock() >= known.until:
            # Many threads come to a new folder at once; one that hangs is not waited for.
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
        """Remember a folder; forget others where there is no room."""
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
        """Return how GDAL finds all that belongs to a raster, as by default, at least cost."""
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
        # Only in lower case: else a.TIF may have an a.tif.ovr.
        as_tried = found.groups.get(group.lower()) == group and _has_lower_endings(name)
        of_group = all(_group(sidecar) == group.lower() for sidecar in sidecars)
        return Listing.TRY_EACH_NAME if as_tried and of_group else found.listing

    def neighbours(self, path: bytes) -> Neighbours:
        """Return what stands next to a TIFF, as far as GDAL and the system are concerned."""
        folder, name = _split(path)
        found = self._folder(folder)
        name = name.lower()
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

    None where there are none, or the folder cannot be listed.

    Args:
        path: of the TIFF.
        neighbours: what is known to be there: world files, or others.
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
    count = 0
    only_files = True
    sidecars: set[bytes] | None = set()
    groups: dict[bytes, bytes | None] | None = {}
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries, 1):
                if count > MAX_NAMES:
                    return _UNKNOWN
                only_files = only_files and _is_plain(entry)
                name = entry.name.lower()
                suffix = name.rpartition(b".")[2]
                if suffix in STANDALONE_SUFFIXES or suffix in _UNRELATED_SUFFIXES:
                    continue
                if sidecars is not None and _is_sidecar(name):
                    sidecars.add(name)
                    sidecars = sidecars if len(sidecars) <= _MAX_KEPT_OF_ONE else None
                if groups is not None and b"." in name:
                    _add_to_group(groups, entry.name)
                    groups = groups if len(groups) <= _MAX_KEPT_OF_ONE else None
    except (OSError, ValueError):  # may be searched but not listed; a name with a NUL byte
        return _UNKNOWN
    # "." and ".." may count; where it is close GDAL is left to count for itself.
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
    """Return what precedes the first dot or underscore, which all endings begin with."""
    return name.partition(b".")[0].partition(b"_")[0]


def _add_to_group(groups: dict[bytes, bytes | None], name: bytes) -> None:
    """Note which rasters a file may belong to."""
    group = _group(name)
    usual = name.endswith(_TRIED_AS_THEY_ARE) and _has_lower_endings(name)
    known = groups.get(group.lower(), group)
    groups[group.lower()] = group if usual and known == group else None
