"""A plain GeoTIFF's header, decoded from its bytes without GDAL.

What is decoded here is what differs from file to file: sizes, blocks, overviews, placement and
tags. All that rasterio must be asked for, such as the CRS, the meaning of the bands or the
parsing of nodata, depends on a few further tags, whose bytes make up `Header.kind`: files of the
same kind get the same answer, so it has to be asked for only once.

Whatever is unusual is not decoded: `NotPlain` is raised, and says why. No other exception is,
whatever the bytes are; the time and memory that they cost are bounded by the constants below.

References: TIFF 6.0 (Adobe, 1992), sections 2, 8, 15; the BigTIFF design (libtiff); OGC GeoTIFF
1.1 (19-008r4), section 7; GDAL, "GTiff -- GeoTIFF File Format" (``GDAL_METADATA``,
``GDAL_NODATA``); libtiff, ``TIFFOpen(3)`` (strip chopping).
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Callable, Hashable
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

HEAD_BYTES = 16 * 1024
"""How much of a file is to be read at first; most headers lie therein."""

READ_BYTES = 8 * 1024
"""Least size of a further read: an IFD at the end of a file is seldom alone."""

MAX_READS = 32
MAX_IFDS = 64
MAX_ENTRIES = 100
MAX_ARRAY_BYTES = 64 * 1024
"""Largest value, but for the metadata, that is looked at."""
MAX_METADATA_BYTES = 4 * 1024 * 1024
MAX_BANDS = 4096
MAX_OVERVIEWS = 29
"""GDAL takes notice of 30 (``GTiffDataset::ScanDirectories``)."""

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _DOUBLE, _LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
_SIZES = {
    _BYTE: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _UNDEFINED: 1, _DOUBLE: 8, _LONG8: 8
}  # fmt: skip
_SHORTS, _LONGS, _TEXT = frozenset({_SHORT}), frozenset({_LONG}), frozenset({_ASCII})
_RATIOS, _REALS, _RAW = frozenset({_RATIONAL}), frozenset({_DOUBLE}), frozenset({_UNDEFINED})
_WHOLE = _SHORTS | _LONGS
_OPAQUE = _RAW | {_BYTE}
_OFFSETS = _WHOLE | {_LONG8}

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_SCALE, _TIE_POINTS, _MATRIX, _METADATA = 33550, 33922, 34264, 42112

_KIND_SCALARS = {
    _SUBFILE: _LONGS, _COMPRESSION: _SHORTS, _PHOTOMETRIC: _SHORTS, 266: _SHORTS, 274: _SHORTS,
    _SAMPLES: _SHORTS, _PLANAR: _SHORTS, 317: _SHORTS,
}  # fmt: skip
"""Single numbers that the kind consists of: 266 fill order, 274 orientation, 317 predictor."""

_KIND_ARRAYS = {
    _BITS: _SHORTS, 297: _SHORTS, 338: _SHORTS, 339: _SHORTS, 530: _SHORTS, 532: _RATIOS,
    34735: _SHORTS, 34736: _REALS, 34737: _TEXT, 42113: _TEXT, 50674: _LONGS,
}  # fmt: skip
"""Arrays that the kind consists of: 297 page number, 338 extra samples, 339 sample format, 530
and 532 YCbCr, 34735 to 34737 GeoKeys, 42113 GDAL_NODATA, 50674 LERC parameters."""

_EXIF, _GPS, _LEFT, _TOP = 34665, 34853, 286, 287
_OF_NO_EFFECT = {
    285: _TEXT, _LEFT: _RATIOS, _TOP: _RATIOS, 318: _RATIOS, 319: _RATIOS, 320: _SHORTS,
    347: _RAW, 700: _OPAQUE, 33723: _OPAQUE | _LONGS, 34377: _OPAQUE, _EXIF: _LONGS,
    34675: _OPAQUE, _GPS: _LONGS, 37724: _OPAQUE, 50844: _REALS,
}  # fmt: skip
"""Tags of which only type and count matter: 285 page name, 318 white point, 319 primaries, 320
palette, 347 JPEG tables, 700 XMP, 33723 IPTC, 34377 and 37724 Photoshop, 34675 ICC profile,
50844 RPCs."""

_TEXTS = {
    269: "TIFFTAG_DOCUMENTNAME", 270: "TIFFTAG_IMAGEDESCRIPTION", 305: "TIFFTAG_SOFTWARE",
    306: "TIFFTAG_DATETIME", 315: "TIFFTAG_ARTIST", 316: "TIFFTAG_HOSTCOMPUTER",
    33432: "TIFFTAG_COPYRIGHT",
}  # fmt: skip
"""Tags that GDAL shows as metadata of the dataset, in its order."""

_RESOLUTIONS = {_X_RESOLUTION: "TIFFTAG_XRESOLUTION", _Y_RESOLUTION: "TIFFTAG_YRESOLUTION"}
_UNITS = {1: "1 (unitless)", 2: "2 (pixels/inch)", 3: "3 (pixels/cm)"}

_KNOWN: dict[int, frozenset[int]] = {
    **_KIND_SCALARS, **_KIND_ARRAYS, **_OF_NO_EFFECT,
    **dict.fromkeys(_TEXTS, _TEXT), **dict.fromkeys(_RESOLUTIONS, _RATIOS),
    **dict.fromkeys((_WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT), _WHOLE),
    **dict.fromkeys((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES), _OFFSETS),
    **dict.fromkeys((_SCALE, _TIE_POINTS, _MATRIX), _REALS),
    _RESOLUTION_UNIT: _SHORTS, _METADATA: _TEXT,
}  # fmt: skip
"""Types that a tag may have; what is not here is not plain."""

_SINGLE = (
    *_KIND_SCALARS, _WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _RESOLUTION_UNIT,
    *_RESOLUTIONS, _LEFT, _TOP, _EXIF, _GPS,
)  # fmt: skip
"""Tags that have one value."""

_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946, 34887, 34925, 50000})
"""None, LZW, JPEG, Deflate, PackBits, old Deflate, LERC, LZMA, ZSTD: opening files of these
looks at no pixel."""
_NO_COMPRESSION = 1
_CONTIGUOUS = 1
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType (TIFF 6.0, section 8)."""

_CHOPPED_STRIP_BYTES = 8192
_SPLIT_ROWS = 2000
_MOST_BLOCKS = 2**31 - 1


class NotPlain(Exception):  # noqa: N818  # a finding, not an error
    """The file is to be read by rasterio; the message is the reason, in a few words."""


class Metadata(NamedTuple):
    """What a ``GDAL_METADATA`` tag holds."""

    dataset: dict[str, str]
    """Tags of the dataset, default domain."""
    bands: dict[int, dict[str, str]]
    """Tags of the bands (1-based) that have any, default domain."""
    descriptions: dict[int, str]
    scales: dict[int, float]
    offsets: dict[int, float]
    asked: tuple[tuple[int, str, str], ...]
    """(band, role, value) of what rasterio is to interpret: units and colours."""


NO_METADATA = Metadata({}, {}, {}, {}, {}, ())


class Header(NamedTuple):
    """What differs between files of the same kind."""

    kind: Hashable
    """Stands for everything else."""
    width: int
    height: int
    block_height: int
    block_width: int
    overviews: tuple[int, ...]
    """Decimation factors, in the file's order."""
    transform: tuple[float, ...] | None
    """Geotransform, GDAL's order, not rotated, as if pixels were areas; None: there is none."""
    tags: dict[str, str]
    """What GDAL shows of the TIFF's own tags."""
    metadata: Metadata


def read_header(head: bytes, size: int, read_at: Callable[[int, int], bytes]) -> Header:
    """Decode the header of a TIFF file.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of it.
        size: bytes of the file.
        read_at: returns bytes from an offset on, fewer only at the end of the file.

    Raises:
        NotPlain: it is no TIFF, or not one to be decoded here.
    """
    file = _File(head, size, read_at)
    main, *others = _directories(file)
    image = _image(file, main)
    overviews = []
    kinds: dict[Hashable, None] = {}  # in order, each once
    for other in others:
        subfile = other.number(_SUBFILE, 0)
        part = _image(file, other)
        kinds[subfile, part.kind, part.size == image.size] = None
        if subfile == _REDUCED:
            overviews.append(_factor(image.size[0], part.size[0]))
        elif subfile not in (_MASK, _MASK | _REDUCED):
            raise NotPlain("several pages")
    if len(overviews) > MAX_OVERVIEWS:
        raise NotPlain("many overviews")
    placement = _placement(file, main)
    metadata = _metadata(file, main)
    described = (tuple(metadata.scales), tuple(metadata.offsets), metadata.asked)
    kind = (file.order, image.kind, placement.kind, described, tuple(kinds))
    tags = _tags(file, main)
    if metadata.dataset and not tags.keys().isdisjoint(metadata.dataset):
        raise NotPlain("a tag given twice")
    return Header(
        kind, *image.size, *image.block, tuple(overviews), placement.transform, tags, metadata
    )


class _File:
    """Bytes of a file, read as they are asked for."""

    def __init__(self, head: bytes, size: int, read_at: Callable[[int, int], bytes]) -> None:
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            raise NotPlain("no TIFF")
        self.order = order
        self.size = size
        self._head = head
        self._window = b""
        self._start = 0
        self._read_at = read_at
        self._reads = 0
        version, first = struct.unpack_from(order + "HI", head, 2)
        self.big = version == 43
        if self.big:
            offset_bytes, zero, first = struct.unpack_from(order + "HHQ", head, 4)
            if (offset_bytes, zero) != (8, 0):
                raise NotPlain("an odd BigTIFF")
        elif version != 42:
            raise NotPlain("no TIFF")
        self.first: int = first
        self.inline = 8 if self.big else 4

    def get(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, all of them."""
        end = offset + size
        if end <= len(self._head):
            return self._head[offset:end]
        if not (self._start <= offset and end <= self._start + len(self._window)):
            if end > self.size or self._reads >= MAX_READS:
                raise NotPlain("values outside the file or all over it")
            self._reads += 1
            self._window = self._read_at(offset, max(size, READ_BYTES))
            self._start = offset
            if len(self._window) < size:
                raise NotPlain("values outside the file or all over it")
        return self._window[offset - self._start : end - self._start]


class _Layout:
    """The tags and types of an IFD: where in it to find what. Many files share one."""

    def __init__(self, order: str, inline: int, tags: tuple[int, ...], types: tuple[int, ...]):
        if any(one >= following for one, following in itertools.pairwise(tags)):
            raise NotPlain("tags out of order")
        for tag, kind in zip(tags, types, strict=True):
            if kind not in _KNOWN.get(tag, ()):
                raise NotPlain(f"tag {tag} of type {kind}")
        self.at = {tag: index for index, tag in enumerate(tags)}
        self.tiled = _TILE_WIDTH in self.at
        wanted = (_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES) if self.tiled else (
            _ROWS, _STRIPS, _STRIP_BYTES)  # fmt: skip
        other = (_STRIPS, _STRIP_BYTES, _ROWS) if self.tiled else (_TILE_HEIGHT, _TILES)
        if not all(tag in self.at for tag in (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, *wanted)):
            raise NotPlain("tags missing")
        if any(tag in self.at for tag in other):
            raise NotPlain("strips and tiles")
        self.blocks_at, self.bytes_at = self.at[wanted[-2]], self.at[wanted[-1]]
        singles = [self.at[tag] for tag in _SINGLE if tag in self.at]
        self.singles = itemgetter(*singles)
        self.ones = (1,) * len(singles)
        self.scalars = itemgetter(*(self.at[tag] for tag in _KIND_SCALARS if tag in self.at))
        arrays = [tag for tag in _KIND_ARRAYS if tag in self.at]
        self.arrays = [(self.at[tag], _SIZES[types[self.at[tag]]]) for tag in arrays]
        ignored = [tag for tag in _OF_NO_EFFECT if tag in self.at]
        self.ignored = [(self.at[tag], _SIZES[types[self.at[tag]]]) for tag in ignored]
        self.texts = [(self.at[tag], name) for tag, name in _TEXTS.items() if tag in self.at]
        self.resolutions = [
            (self.at[tag], name) for tag, name in _RESOLUTIONS.items() if tag in self.at
        ]
        bits = [8 * _SIZES[kind] for kind in types]
        self.shifts = [0 if order == "<" else max(8 * inline - some, 0) for some in bits]
        self.masks = [(1 << some) - 1 for some in bits]


@lru_cache(1024)
def _layout(order: str, inline: int, tags: tuple[int, ...], types: tuple[int, ...]) -> _Layout:
    return _Layout(order, inline, tags, types)


class _Directory(NamedTuple):
    """One IFD; `counts` and `values` are those of its entries, in order."""

    layout: _Layout
    counts: tuple[int, ...]
    values: tuple[int, ...]
    """The value/offset fields as whole numbers."""

    def number(self, tag: int, default: int) -> int:
        """Return a single number."""
        index = self.layout.at.get(tag)
        return default if index is None else self.number_at(index)

    def number_at(self, index: int) -> int:
        """Return the single number of an entry."""
        return self.values[index] >> self.layout.shifts[index] & self.layout.masks[index]


@lru_cache(2 * MAX_ENTRIES)
def _entries(order: str, big: bool, count: int) -> struct.Struct:
    return struct.Struct(order + ("HHQQ" if big else "HHII") * count + ("Q" if big else "I"))


def _directories(file: _File) -> list[_Directory]:
    found: list[_Directory] = []
    seen = set()
    offset = file.first
    count_bytes = 8 if file.big else 2
    while offset:
        if offset in seen or len(found) >= MAX_IFDS:
            raise NotPlain("IFDs without end")
        seen.add(offset)
        (count,) = struct.unpack(
            file.order + ("Q" if file.big else "H"), file.get(offset, count_bytes)
        )
        if not 0 < count <= MAX_ENTRIES:
            raise NotPlain("an IFD of odd length")
        entries = _entries(file.order, file.big, count)
        *fields, offset = entries.unpack(file.get(offset + count_bytes, entries.size))
        layout = _layout(file.order, file.inline, tuple(fields[::4]), tuple(fields[1::4]))
        directory = _Directory(layout, tuple(fields[2::4]), tuple(fields[3::4]))
        if layout.singles(directory.counts) != layout.ones:
            raise NotPlain("several values where there should be one")
        found.append(directory)
    if not found:
        raise NotPlain("no IFD")
    return found


class _Image(NamedTuple):
    """What an IFD says of the pixels."""

    kind: Hashable
    size: tuple[int, int]
    """(width, height)."""
    block: tuple[int, int]
    """(height, width)."""


def _image(file: _File, directory: _Directory) -> _Image:
    layout, counts, values = directory
    size = width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    samples = directory.number(_SAMPLES, 1)
    if not (0 < width < 2**31 and 0 < height < 2**31 and 0 < samples <= MAX_BANDS):
        raise NotPlain("an odd size")
    if directory.number(_COMPRESSION, 0) not in _COMPRESSIONS:
        raise NotPlain("a compression of which a file must be looked into")
    block = _block(file, directory, width, height, samples)
    kind: list[Hashable] = [layout, samples, layout.scalars(values)]
    for index, item in layout.arrays:
        count = counts[index]
        length = count * item
        if not 0 < length <= MAX_ARRAY_BYTES:
            raise NotPlain("a long value")
        kind.append(count)
        kind.append(values[index] if length <= file.inline else file.get(values[index], length))
    for index, item in layout.ignored:
        length = counts[index] * item
        if length == 0 or (length > file.inline and values[index] + length > file.size):
            raise NotPlain("values outside the file or all over it")
        # Of RPCs and palettes the count decides whether GDAL takes them.
        kind.append(counts[index] if item > 1 else 0)
    return _Image(tuple(kind), size, block)


def _block(
    file: _File, directory: _Directory, width: int, height: int, samples: int
) -> tuple[int, int]:
    """Return the block's (height, width) as GDAL has it.

    A single strip that is not compressed is cut into strips of 8 KiB (libtiff's default).
    """
    layout = directory.layout
    bits = _bits(file, directory)
    contiguous = directory.number(_PLANAR, _CONTIGUOUS) == _CONTIGUOUS
    if layout.tiled:
        block_width = directory.number(_TILE_WIDTH, 0)
        block_height = directory.number(_TILE_HEIGHT, 0)
        if not (0 < block_width <= 65536 and 0 < block_height <= 65536):
            raise NotPlain("odd tiles")
    else:
        block_width, block_height = width, min(directory.number(_ROWS, 0), height)
        if block_height == 0:
            raise NotPlain("odd strips")
    row_bytes = -(-block_width * bits * (samples if contiguous else 1) // 8)
    blocks = -(-width // block_width) * -(-height // block_height)
    if not contiguous:
        blocks *= samples
    expected = (blocks, blocks)
    found = (directory.counts[layout.blocks_at], directory.counts[layout.bytes_at])
    if found != expected or blocks > _MOST_BLOCKS or row_bytes * block_height >= 2**31:
        raise NotPlain("odd blocks")
    if not layout.tiled and blocks == 1:
        uncompressed = directory.number(_COMPRESSION, 0) == _NO_COMPRESSION
        if uncompressed and contiguous:
            end = directory.number_at(layout.blocks_at) + row_bytes * height
            if directory.number_at(layout.bytes_at) != row_bytes * height or end > file.size:
                raise NotPlain("odd blocks")
            block_height = min(block_height, max(1, _CHOPPED_STRIP_BYTES // row_bytes))
        if block_height == height > _SPLIT_ROWS:  # GTiffSplitBand
            raise NotPlain("one long strip")
    return block_height, block_width


def _bits(file: _File, directory: _Directory) -> int:
    """Return the bits of the first sample."""
    index = directory.layout.at[_BITS]
    length = 2 * directory.counts[index]
    if length <= file.inline:
        return directory.number_at(index)
    if length > MAX_ARRAY_BYTES:
        raise NotPlain("a long value")
    (bits,) = struct.unpack(file.order + "H", file.get(directory.values[index], 2))
    return int(bits)


def _factor(width: int, reduced: int) -> int:
    """Return the decimation factor of an overview, as rasterio rounds it."""
    return math.floor(0.5 + width / reduced)


class _Placement(NamedTuple):
    kind: Hashable
    transform: tuple[float, ...] | None


def _placement(file: _File, directory: _Directory) -> _Placement:
    """Return where the raster lies (OGC GeoTIFF 1.1, section 7.2; GDAL's use of it)."""
    at, counts = directory.layout.at, directory.counts
    scale, points, matrix = at.get(_SCALE), at.get(_TIE_POINTS), at.get(_MATRIX)
    if scale is not None:
        if points is None or (counts[scale], counts[points]) != (3, 6):
            raise NotPlain("odd georeferencing")
        scale_x, scale_y, scale_z = _doubles(file, directory, scale)
        column, row, level, x, y, z = _doubles(file, directory, points)
        if scale_x == 0 or scale_y <= 0:
            raise NotPlain("odd georeferencing")
        transform = (x - column * scale_x, scale_x, 0.0, y - row * -scale_y, 0.0, -scale_y)
        # A height scale becomes that of the band under a vertical CRS.
        return _Placement(("scale", scale_z, level, z), transform)
    if matrix is not None:
        if counts[matrix] != 16:
            raise NotPlain("odd georeferencing")
        m = _doubles(file, directory, matrix)
        if m[1] or m[4]:
            raise NotPlain("rotated")
        return _Placement("matrix", (m[3], m[0], m[1], m[7], m[4], m[5]))
    if points is not None:
        count, rest = divmod(counts[points], 6)
        if rest or not 0 < count <= 10_000:
            raise NotPlain("odd georeferencing")
        _doubles(file, directory, points)
        return _Placement(("points", count), None)
    return _Placement(None, None)


def _doubles(file: _File, directory: _Directory, index: int) -> tuple[float, ...]:
    count = directory.counts[index]
    content = file.get(directory.values[index], 8 * count)
    values: tuple[float, ...] = struct.unpack(f"{file.order}{count}d", content)
    if not all(map(math.isfinite, values)):
        raise NotPlain("odd georeferencing")
    return values


def _tags(file: _File, directory: _Directory) -> dict[str, str]:
    """Return what GDAL shows of the TIFF's own tags, in its order."""
    layout = directory.layout
    tags = {name: _text(file, directory, index) for index, name in layout.texts}
    for index, name in layout.resolutions:
        content = _content(file, directory, index, 8)
        above, below = struct.unpack(file.order + "II", content)
        if below == 0:
            raise NotPlain("an odd resolution")
        tags[name] = _resolution(above, below)
    if _RESOLUTION_UNIT in layout.at:
        unit = directory.number(_RESOLUTION_UNIT, 0)
        tags["TIFFTAG_RESOLUTIONUNIT"] = _UNITS.get(unit, str(unit))
    return tags


def _resolution(above: int, below: int) -> str:
    """Return a rational as C's ``%.8g`` of the nearest float shows it."""
    single = struct.Struct("f")
    (value,) = single.unpack(single.pack(above / below))
    # Releases of libtiff differ in when they round.
    (first,), (second,) = single.unpack(single.pack(above)), single.unpack(single.pack(below))
    (other,) = single.unpack(single.pack(first / second))
    if value != other:
        raise NotPlain("an odd resolution")
    return f"{value:.8g}"


def _content(file: _File, directory: _Directory, index: int, length: int) -> bytes:
    """Return the bytes of a value."""
    value = directory.values[index]
    if length > file.inline:
        return file.get(value, length)
    order = "little" if file.order == "<" else "big"
    return value.to_bytes(file.inline, order)[:length]  # type: ignore[arg-type]  # a Literal


def _text(file: _File, directory: _Directory, index: int, limit: int = MAX_ARRAY_BYTES) -> str:
    """Return an ASCII value; GDAL takes it for UTF-8."""
    length = directory.counts[index]
    if not 1 < length <= limit:
        raise NotPlain("an odd text")
    content = _content(file, directory, index, length)
    if content.find(0) != length - 1 or content[0] in b" \t\r\n":
        raise NotPlain("an odd text")
    try:
        return content[:-1].decode()
    except UnicodeDecodeError:
        raise NotPlain("a text that is not UTF-8") from None


_ITEM = (
    r'  <Item name="([^"&<>=:\s](?:[^"&<>=:\n]*[^"&<>=:\s])?)"(?: sample="(\d{1,4})")?'
    r'(?: role="([a-z]+)")?(?: domain="([^"&<>\n]*)")?>([^\s<][^<]*)</Item>\n'
)
_ITEMS = re.compile(_ITEM)
_DOCUMENT = re.compile(rf"<GDALMetadata>\n(?:{_ITEM})*</GDALMetadata>\n?")
_NUMBER = re.compile(r"[-+]?\d{1,300}(?:\.\d{0,300})?(?:[eE][-+]?\d{1,3})?")
_ENTITY = re.compile(r"&(?:(lt|gt|amp|quot|apos);)?")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_DOMAINS_OF_EFFECT = frozenset(
    ["color_profile", "exif", "imd", "imagery", "overviews", "proxyoverviewrequest", "rpc",
     "subdatasets", "tiff"]
)  # fmt: skip
_NAMES_OF_EFFECT = re.compile(
    r"area_or_point|tifftag_|internal_mask|nodata_values|overview_file|color_interp", re.IGNORECASE
)


def _metadata(file: _File, directory: _Directory) -> Metadata:
    index = directory.layout.at.get(_METADATA)
    if index is None:
        return NO_METADATA
    return _metadata_of(
        _text(file, directory, index, MAX_METADATA_BYTES), directory.number(_SAMPLES, 1)
    )


def _metadata_of(text: str, bands: int) -> Metadata:
    """Return the content of a ``GDAL_METADATA`` tag, if it is as GDAL writes it."""
    if _DOCUMENT.fullmatch(text) is None:
        raise NotPlain("metadata that GDAL would not write")
    found = Metadata({}, {}, {}, {}, {}, ())
    asked = []
    items = 0
    for name, sample, role, domain, value in _ITEMS.findall(text):
        if "&" in value:
            value = _unescaped(_unescaped(value))  # GDAL does so twice
        band = int(sample) + 1 if sample else 0
        if band > bands or (role and not band):
            raise NotPlain("metadata of no band")
        if domain:
            if domain.lower() in _DOMAINS_OF_EFFECT or domain.lower().startswith("xml:"):
                raise NotPlain("metadata of effect")
        elif role:
            items += 1
            if role == "description":
                found.descriptions[band] = value
            elif role in ("scale", "offset"):
                target = found.scales if role == "scale" else found.offsets
                if not _NUMBER.fullmatch(value):
                    raise NotPlain("an odd number")
                target[band] = float(value)
            elif role in ("unittype", "colorinterp"):
                asked.append((band, role, value))
            else:
                raise NotPlain("metadata of effect")
        else:
            if _NAMES_OF_EFFECT.match(name):
                raise NotPlain("metadata of effect")
            tags = found.bands.setdefault(band, {}) if band else found.dataset
            tags[name] = value
            items += 1
    tables: list[dict[Any, Any]] = [found.dataset, *found.bands.values()]
    unique = sum(len({name.lower() for name in tags}) for tags in tables)
    unique += len({(band, role) for band, role, _ in asked})
    unique += len(found.descriptions) + len(found.scales) + len(found.offsets)
    if unique != items:
        raise NotPlain("a tag given twice")
    return found._replace(asked=tuple(asked))


def _unescaped(value: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            raise NotPlain("an odd entity")
        return _ENTITIES[match[1]]

    return _ENTITY.sub(replaced, value)
