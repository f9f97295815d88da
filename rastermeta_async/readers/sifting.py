"""Tells rasters from other files: among paths that were found, what is no raster is no error.

A path that a user named has a row that says what is wrong with it. Of the paths that a walk, a
listing or ``find`` found, many are no rasters. Such a path gets a row of status ``sidecar`` if it
belongs to a raster, or ``no_raster`` if neither its name nor its first bytes are those of a raster.
A raster that is broken keeps its error row, and so does a path that cannot be read.

The rules are the same with every build of GDAL, and whatever drivers may open a file.
"""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache

from rastermeta_async.model.file_state import record_time, settled
from rastermeta_async.model.record import (
    ARCHIVE_NOT_READ,
    NO_RASTER,
    SIDECAR,
    Reading,
    Record,
    failure,
)
from rastermeta_async.model.urls import FoundPath, is_url
from rastermeta_async.readers.base import Reader
from rastermeta_async.readers.sidecars import STANDALONE_SUFFIXES, UNRELATED_SUFFIXES

_FOREIGN = "not recognized as being in a supported file format"
REFUSED = "RasterioIOError"
"""Error type of a file that GDAL does not open."""

RASTER_SUFFIXES = STANDALONE_SUFFIXES | frozenset(
    b"tf2 vrt j2c jpc jpf jpx cdf h4 hdf hdf4 he2 he4 grib1 ntf nitf nsf ecw sid jxl png jpg jpeg"
    b" jfif gif bmp webp heic heif avif xpm pix asc grd bil bip bsq flt dem ddf dt0 dt1 dt2 hgt ter"
    b" bt ers rst mpr mpl rgb sgi pnm pgm ppm pbm lbl cub rsw mtw rik mrf bag gtx gsb gvb byn kro"
    b" lcp blx xlb sdat sg-grd-z xyz hf2 sigdem fits fit fts kea bsb kap gxf isg n1 e1 e2"
    b" lan".split()
)
"""Endings of rasters (GDAL, "Raster drivers"), without those that any text or data may have."""

_DATA_SUFFIXES = RASTER_SUFFIXES | {b"dat", b"raw", b"bin", b""}
"""Endings of files that a header, world file or projection may belong to."""

_OTHER_SUFFIXES = (UNRELATED_SUFFIXES | {b"txt", b"xml", b"yaml", b"yml", b"ini"}) - RASTER_SUFFIXES
"""Endings of files that GDAL may take for a raster, e.g. columns of numbers, and then refuse."""

_MAGIC = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",  # TIFF 6.0, section 2; BigTIFF
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",  # ISO/IEC 15444-1, annexes I and A
    b"\x89HDF\r\n\x1a\n", b"\x0e\x03\x13\x01", b"CDF\x01", b"CDF\x02", b"CDF\x05",
    b"GRIB", b"EHFA_HEADER_TAG", b"NITF0", b"NSIF0", b"PCIDSK  ", b"msid", b"SIMPLE  =",
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"\xff\x0a",
    b"\0\0\0\x0cJXL \r\n\x87\n", b"<VRTDataset", b"RUU CROSS SYSTEM MAP FORMAT",
    b"Object = IsisCube", b"LBLSIZE=", b"DSBB", b"DSAA", b"DSRB",
)  # fmt: skip
"""First bytes of raster formats."""

_MAGIC_INSIDE = re.compile(rb"RIFF....WEBP|BM.{4}\0{4}|....ftyp(?:heic|heix|avif|mif1)", re.DOTALL)
HEAD_BYTES = 64

# What belongs to a raster, by its name in lower case.

_OF_WHOLE_NAME = (b".aux.xml", b".ovr", b".msk", b".aux")
"""Endings that are added to the whole name of a raster."""

_OF_STEM = (
    b".prj", b".qpj", b".rpb", b".imd", b".rpc", b"_rpc.txt", b".aux", b".rrd", b".ige", b".wld",
    b".tab", b".stx", b".clr", b".tfwx",
)  # fmt: skip
"""Endings that are added to the name of a raster without its own: such a file is not opened."""

_OF_WHOLE_NAME_IF_REFUSED = (b".xml",)
_OF_STEM_IF_REFUSED = (b".hdr", b".xml", b"_metadata.xml", b".met", b".sta")
"""The same of files that may be a raster, or the way to open one: GDAL is asked first."""

_OF_SCENE = (b"_mtl.txt", b"_mtl.xml", b"_mtl.json", b"_metadata.txt", b"_ang.txt", b"_meta.txt")
"""Endings that are added to what the names of several rasters begin with, before an underscore."""

_WORLD_FILE = re.compile(
    rb"\.(?:tf|jg|jp|pg|bp|gf|j2|sd|ew|bl|bq|nf|ig|wp|tiff?|jpe?g|png|jp2|bil|bsq|gif|bmp|ecw|sid)w\Z"
)
"""Endings of world files: letters of the raster's ending, or all of it, and a w
(gcore/gdal_misc.cpp)."""

_UNOPENED = (*_OF_WHOLE_NAME, *_OF_STEM, b"w")
"""Endings of which one ends the name of every file that may be told to be a sidecar unopened."""

_MOST = (b".tif", b".TIF", b".tiff", b".jp2")
"""Endings of most files, which are quickly told to be no sidecars."""

_MAX_NAMES = 65_536
"""Names looked at in one folder; a folder with more is asked for the most usual names only."""

_FOLDERS = 8
_USUAL = (b".tif", b".TIF", b".tiff", b".jp2", b".img", b".jpg", b".png", b"")


class SiftingReader:
    """Reads local files as another reader does, and says of paths that were found what is none.

    Args:
        reader: reads what may be a raster.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._reader.enter()

    def read(self, path: bytes) -> Reading:
        """See `Reader.read`."""
        if not isinstance(path, FoundPath):
            return self._reader.read(path)
        if not path.endswith(_MOST) and path.lower().endswith(_UNOPENED):
            row = _unopened_row(path)
            if row is not None:
                return row
        reading = self._reader.read(bytes(path))  # others do not know this type
        if isinstance(reading, list) or reading.error_type not in (REFUSED, ARCHIVE_NOT_READ):
            return reading
        return _sifted_file(path, reading)


def _unopened_row(path: bytes) -> Record | None:
    """Return the row of a file that belongs to a raster next to it; None: it does not."""
    owner = _owner_of(path, _OF_WHOLE_NAME, _OF_STEM, world_files=True)
    if owner is None:
        return None
    try:
        status = settled(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    row = failure(path, SIDECAR, "Sidecar", f"it belongs to {os.fsdecode(owner)}")
    return row._replace(file_size=status.st_size, mtime=record_time(status))


def _sifted_file(path: bytes, record: Record) -> Record:
    """Return the record of a local file that GDAL refuses, with the status that it deserves."""
    if path.lower().endswith(b".gdb") and os.path.isdir(path):  # GDAL has rasters of few of them
        return record._replace(status=NO_RASTER)
    if _owner_of(path, _OF_WHOLE_NAME_IF_REFUSED, _OF_STEM_IF_REFUSED, scenes=True):
        return record._replace(status=SIDECAR)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.pread(file, HEAD_BYTES, 0)
        finally:
            os.close(file)
    except OSError:
        return record
    return sifted(path, record, head)


def sifted(path: bytes, record: Record, head: bytes) -> Record:
    """Return the record of a file or object that GDAL refuses, with the status that it deserves.

    Args:
        path: its name tells, too.
        record: rasterio's.
        head: its first `HEAD_BYTES`, or all of them.
    """
    suffix = _suffix(_name(path))
    if suffix in RASTER_SUFFIXES or is_raster(head):
        return record
    if _FOREIGN in (record.error_message or "") or suffix in _OTHER_SUFFIXES or not head:
        status = SIDECAR if is_url(path) and _belongs_by_name(_name(path)) else NO_RASTER
        return record._replace(status=status)
    return record


def is_raster(head: bytes) -> bool:
    """Tell whether a file's first bytes are those of a raster format."""
    return head.startswith(_MAGIC) or _MAGIC_INSIDE.match(head) is not None


def belongs_to_a_raster(url: bytes) -> bool:
    """Tell whether an object belongs to a raster, by its name alone: a store is not asked.

    Only names count that hold the raster's whole name, such as ``a.tif.ovr``.
    """
    name = _name(url)
    return any(
        name.endswith(ending) and _suffix(name[: -len(ending)]) in RASTER_SUFFIXES
        for ending in _OF_WHOLE_NAME
    )


def sidecar_row(path: bytes) -> Record:
    """Return the row of an object that belongs to a raster."""
    return failure(path, SIDECAR, "Sidecar", "it belongs to a raster")


def _belongs_by_name(name: bytes) -> bool:
    return name.endswith((*_OF_WHOLE_NAME, *_OF_STEM)) or _WORLD_FILE.search(name) is not None


def _name(path: bytes) -> bytes:
    """Return the last part of a path or URL in lower case, without a URL's query."""
    path = path.partition(b"?")[0] if is_url(path) else path
    return path.rpartition(b"/")[2].lower()


def _suffix(name: bytes) -> bytes:
    stem, dot, suffix = name.rpartition(b".")
    return suffix if dot and stem else b""


def _owner_of(
    path: bytes,
    of_whole_name: tuple[bytes, ...],
    of_stem: tuple[bytes, ...],
    *,
    world_files: bool = False,
    scenes: bool = False,
) -> bytes | None:
    """Return the name, or what it begins with, of the raster to which a file belongs by its name.

    Args:
        path: of the file.
        of_whole_name: endings that are added to the whole name of a raster.
        of_stem: endings that are added to the stem of a raster's name.
        world_files: whether endings of world files count.
        scenes: whether endings count that are added to what several names begin with.
    """
    folder, slash, name = path.rpartition(b"/")
    place, lower = folder + slash, name.lower()
    for ending in of_whole_name:
        owner = name[: -len(ending)]
        if owner and lower.endswith(ending) and os.path.isfile(place + owner):
            return owner
    cuts = [len(ending) for ending in of_stem if lower.endswith(ending)]
    if world_files and (world := _WORLD_FILE.search(lower)):
        cuts.append(len(world[0]))
    for cut in cuts:
        stem = name[:-cut]
        if stem and _is_stem(place, stem):
            return stem
    if scenes:
        for ending in _OF_SCENE:
            if lower.endswith(ending) and _begins_a_stem(place, lower[: -len(ending)] + b"_"):
                return name[: -len(ending)]
    return None


def _is_stem(place: bytes, stem: bytes) -> bool:
    """Tell whether a raster in a folder has this name before its ending."""
    if os.path.isfile(place + stem + _USUAL[0]):
        return True
    stems = _stems_in(place)
    if stems is not None:
        return stem.lower() in stems
    return any(os.path.isfile(place + stem + ending) for ending in _USUAL)


def _begins_a_stem(place: bytes, start: bytes) -> bool:
    return any(stem.startswith(start) for stem in _stems_in(place) or ())


def _stems_in(place: bytes) -> frozenset[bytes] | None:
    """Return the names of all that may be rasters in a folder, in lower case without endings.

    None: it has more names than are looked at, or cannot be listed.
    """
    folder = place or b"."
    try:
        status = os.stat(folder)
        return _listed(folder, (status.st_dev, status.st_ino, status.st_mtime_ns))
    except (OSError, ValueError):
        return None


@lru_cache(_FOLDERS)
def _listed(folder: bytes, version: tuple[int, ...]) -> frozenset[bytes] | None:  # noqa: ARG001
    """See `_stems_in`; `version` differs after a change of the folder."""
    stems: set[bytes] = set()
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count == _MAX_NAMES:
                return None
            name = entry.name.lower()
            suffix = _suffix(name)
            if suffix in _DATA_SUFFIXES:
                stems.add(name[: -len(suffix) - 1] if suffix else name)
    return frozenset(stems)
