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
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

HEAD_BYTES = 16 * 1024
"""How much of a file is to be read at first; most headers lie therein."""

READ_BYTES = 8 * 1024
"""Least size of a further read: an IFD at the end of a file is seldom alone."""

MAX_READS = 32
MAX_IFDS = 64
MAX_ENTRIES = 100
MAX_ARRAY_BYTES = 8 * 1024
"""Largest value, but for points and metadata, that is looked at."""
MAX_POINTS = 1024
MAX_SIZES = 64
MAX_REMEMBERED = 1024
"""IFDs of which is remembered how they are built."""
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
_NO_COMPRESSION, _JPEG = 1, 7
_JPEG_BITS = 8
_CONTIGUOUS = 1
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType (TIFF 6.0, section 8)."""

_CHOPPED_STRIP_BYTES = 8192
_SPLIT_ROWS = 2000


Tags = dict[str, str]


class NotPlain(Exception):  # noqa: N818  # a finding, not an error
    """The file is to be read by rasterio; the message is the reason, in a few words."""


class Metadata(NamedTuple):
    """What a ``GDAL_METADATA`` tag holds."""

    dataset: Tags
    """Tags of the dataset, default domain."""
    bands: dict[int, Tags]
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
    tags: Tags
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
    layout, entries, (image, *others) = _directories(file)
    overviews = []
    parts: list[Hashable] = []
    for part in others:
        if part.subfile == _REDUCED:
            overviews.append(_factor(image.width, part.width))
        elif part.subfile not in (_MASK, _MASK | _REDUCED):
            raise NotPlain("several pages")
        same_size = (part.width, part.height) == (image.width, image.height)
        if (known := (part.kind, same_size)) not in parts:
            parts.append(known)
    if len(overviews) > MAX_OVERVIEWS:
        raise NotPlain("many overviews")
    placement = _placement(file, layout, entries)
    metadata = _metadata(file, layout, entries, image.samples)
    described = (tuple(metadata.scales), tuple(metadata.offsets), metadata.asked)
    tags = _tags(file, layout, entries)
    if metadata.dataset and not tags.keys().isdisjoint(metadata.dataset):
        raise NotPlain("a tag given twice")
    kind = (image.kind, placement.kind, described, *parts)
    return Header(
        kind, image.width, image.height, image.block_height, image.block_width, tuple(overviews),
        placement.transform, tags, metadata,
    )  # fmt: skip


class Order:
    """How a TIFF stores numbers and entries: classic or BigTIFF, in either byte order."""

    def __init__(self, byteorder: Literal["little", "big"], *, big: bool) -> None:
        self.byteorder: Literal["little", "big"] = byteorder
        self.sign = "<" if byteorder == "little" else ">"
        self.big = big
        self.inline = 8 if big else 4
        """Bytes of a value field, and of an offset."""
        self.count_bytes = 8 if big else 2
        self.entry = 20 if big else 12
        self.count_field = (4, self.inline)
        """(start, bytes) in an entry."""
        self.value_field = (4 + self.inline, self.inline)
        self.place = struct.Struct(self.sign + ("QQ" if big else "II"))
        """Both fields of an entry."""
        each = (self.mask((0, 4), [index]) for index in range(MAX_ENTRIES))
        self.tags_masks = list(itertools.accumulate(each, initial=0))
        """Masks that leave tags and types, by number of entries."""

    def number(self, content: bytes) -> int:
        """Return the whole number in some bytes."""
        return int.from_bytes(content, self.byteorder)

    def mask(self, field: tuple[int, int], indices: Iterable[int]) -> int:
        """Return the mask that leaves a field of some entries of an IFD as one large number."""
        start, size = field
        ones = (1 << 8 * size) - 1
        return sum(ones << 8 * (self.entry * index + start) for index in indices)


_ORDERS: dict[bytes, Order] = {
    b"II*\0": Order("little", big=False), b"MM\0*": Order("big", big=False),
    b"II+\0": Order("little", big=True), b"MM\0+": Order("big", big=True),
}  # fmt: skip


class _File:
    """Bytes of a file, read as they are asked for."""

    def __init__(self, head: bytes, size: int, read_at: Callable[[int, int], bytes]) -> None:
        order = _ORDERS.get(head[:4])
        if order is None or len(head) < 16:
            raise NotPlain("no TIFF")
        if order.big and (order.number(head[4:6]), order.number(head[6:8])) != (8, 0):
            raise NotPlain("an odd BigTIFF")
        self.order = order
        self.size = size
        self.first = order.number(head[8:16] if order.big else head[4:8])
        self._head = head
        self._window = b""
        self._start = 0
        self._read_at = read_at
        self._reads = 0

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

    def __init__(self, order: Order, tags: tuple[int, ...], types: tuple[int, ...]) -> None:
        if any(one >= following for one, following in itertools.pairwise(tags)):
            raise NotPlain("tags out of order")
        for tag, kind in zip(tags, types, strict=True):
            if kind not in _KNOWN.get(tag, ()):
                raise NotPlain(f"tag {tag} of type {kind}")
        self.order = order
        self.types = types
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
        self.singles = self._indices(_SINGLE)
        self.arrays = self._indices(_KIND_ARRAYS)
        self.ignored = self._indices(_OF_NO_EFFECT)
        self.texts = [(self.at[tag], name) for tag, name in _TEXTS.items() if tag in self.at]
        self.resolutions = [
            (self.at[tag], name) for tag, name in _RESOLUTIONS.items() if tag in self.at
        ]
        self.shows_nothing = not (
            self.texts or self.resolutions or _RESOLUTION_UNIT in self.at
        )  # fmt: skip
        measured = {*self.singles, *self.arrays, *self.ignored}
        self.counts_mask = order.mask(order.count_field, measured)
        self.follower: _Shape | None = None
        """Shape of the IFD that came after one of this layout last; most files are alike."""

    def _indices(self, tags: Iterable[int]) -> list[int]:
        return [self.at[tag] for tag in tags if tag in self.at]

    def item_bytes(self, index: int) -> int:
        """Return the bytes of one value of an entry."""
        return _SIZES[self.types[index]]


class _Shape:
    """A layout, and how many values the entries have that do not differ from file to file."""

    def __init__(self, layout: _Layout, entries: _Entries) -> None:
        order = layout.order
        self.layout = layout
        if any(entries.count(index) != 1 for index in layout.singles):
            raise NotPlain("several values where there should be one")
        lengths = {
            index: entries.count(index) * layout.item_bytes(index)
            for index in (*layout.arrays, *layout.ignored)
        }
        if 0 in lengths.values():
            raise NotPlain("a value of no length")
        if any(lengths[index] > MAX_ARRAY_BYTES for index in layout.arrays):
            raise NotPlain("a long value")
        self.contents = [(i, lengths[i]) for i in layout.arrays if lengths[i] > order.inline]
        """Entry and length of arrays outside the IFD that the kind consists of."""
        self.elsewhere = [(i, lengths[i]) for i in layout.ignored if lengths[i] > order.inline]
        """Entry and length of what is not looked at."""
        self.taken = tuple(
            (index, lengths[index])
            for index in (*layout.arrays, *layout.ignored)
            # Of palettes and RPCs the count decides whether GDAL takes them.
            if index in layout.arrays or layout.item_bytes(index) > 1
        )
        outside = {*layout.ignored, *(index for index, _ in self.contents)}
        inside = {*layout.singles, *layout.arrays} - outside
        inside -= {index for index, _ in layout.resolutions}
        blocks = {layout.blocks_at, layout.bytes_at}
        self.values_mask = order.mask(order.value_field, inside)
        self.values_mask |= order.mask(order.count_field, blocks)
        self._length = len(entries.raw)
        self._mask = (
            order.tags_masks[len(layout.types)] | layout.counts_mask | self.values_mask
        )  # fmt: skip
        self._images: dict[int, _Image] = {}

    def image_of(self, raw: bytes) -> _Image | None:
        """Return what an IFD says that is of this shape and whose like was seen before."""
        if len(raw) != self._length:
            return None
        return self._images.get(int.from_bytes(raw, "little") & self._mask)

    def remember(self, number: int, image: _Image) -> None:
        """Keep what an IFD says, where no value outside it plays a part."""
        if len(self._images) >= MAX_SIZES:
            self._images.clear()
        self._images[number & self._mask] = image


class _Image:
    """What an IFD says of the pixels. Files that say the same share one."""

    def __init__(self, shape: _Shape, entries: _Entries, contents: tuple[bytes, ...]) -> None:
        layout = shape.layout

        def number(tag: int, default: int) -> int:
            return entries.number(layout.at[tag]) if tag in layout.at else default

        self.width, self.height = number(_WIDTH, 0), number(_HEIGHT, 0)
        self.samples = number(_SAMPLES, 1)
        self.subfile = number(_SUBFILE, 0)
        if not (0 < self.width < 2**31 and 0 < self.height < 2**31):
            raise NotPlain("an odd size")
        if not 0 < self.samples <= MAX_BANDS:
            raise NotPlain("many bands")
        compression = number(_COMPRESSION, 0)
        if compression not in _COMPRESSIONS:
            raise NotPlain("a compression of which a file must be looked into")
        outside = dict(zip((index for index, _ in shape.contents), contents, strict=True))
        bits_at = layout.at[_BITS]
        bits = entries.order.number(outside.get(bits_at, entries.content(bits_at, 2))[:2])
        if not bits or (compression == _JPEG and bits != _JPEG_BITS):
            raise NotPlain("odd bits")
        contiguous = number(_PLANAR, _CONTIGUOUS) == _CONTIGUOUS
        samples = self.samples if contiguous else 1
        if layout.tiled:
            self.block_width, self.block_height = number(_TILE_WIDTH, 0), number(_TILE_HEIGHT, 0)
        else:
            self.block_width, self.block_height = self.width, min(number(_ROWS, 0), self.height)
        if not (0 < self.block_width < 2**31 and 0 < self.block_height < 2**31):
            raise NotPlain("odd blocks")
        row_bytes = -(-self.block_width * bits * samples // 8)
        blocks = -(-self.width // self.block_width) * -(-self.height // self.block_height)
        planes = self.samples // samples
        found = entries.count(layout.blocks_at), entries.count(layout.bytes_at)
        if found != (blocks * planes, blocks * planes) or blocks * planes >= 2**31:
            raise NotPlain("odd blocks")
        if row_bytes * self.block_height >= 2**31:
            raise NotPlain("odd blocks")
        self.one_strip = 0
        """Bytes of the only strip, where it is one that is not compressed."""
        if not layout.tiled and blocks == 1:
            if contiguous and compression == _NO_COMPRESSION:
                # libtiff cuts it into strips of 8 KiB (TIFFOpen(3), "strip chopping").
                self.one_strip = row_bytes * self.height
                rows = max(1, _CHOPPED_STRIP_BYTES // row_bytes)
                self.block_height = min(self.block_height, rows)
            if self.block_height == self.height > _SPLIT_ROWS:  # GTiffSplitBand
                raise NotPlain("one long strip")
        scalars = tuple(number(tag, -1) for tag in _KIND_SCALARS)
        taken = tuple(outside.get(i, entries.content(i, n)) for i, n in shape.taken)
        self.kind = _image_kind(layout, scalars, shape.taken, taken)


class _ImageKind:
    """Stands for all that an `_Image` has but sizes; equal only to itself, and so quickly told."""


@lru_cache(MAX_REMEMBERED)
def _image_kind(*parts: Hashable) -> _ImageKind:  # noqa: ARG001  # they are the cache's key
    return _ImageKind()


class _Entries(NamedTuple):
    """The entries of an IFD."""

    order: Order
    raw: bytes

    def place(self, index: int) -> tuple[int, int]:
        """Return how many values an entry has, and where they are if not in the entry."""
        count, offset = self.order.place.unpack_from(self.raw, self.order.entry * index + 4)
        return count, offset

    def count(self, index: int) -> int:
        """Return how many values an entry has."""
        return self.place(index)[0]

    def offset(self, index: int) -> int:
        """Return where an entry's values are."""
        return self.place(index)[1]

    def content(self, index: int, length: int) -> bytes:
        """Return the first bytes of the value field."""
        at = self.order.entry * index + self.order.value_field[0]
        return self.raw[at : at + min(length, self.order.inline)]

    def number(self, index: int) -> int:
        """Return an entry's only value, a whole number."""
        start = self.order.entry * index
        kind = self.order.number(self.raw[start + 2 : start + 4])
        return self.order.number(self.content(index, _SIZES[kind]))


@lru_cache(MAX_REMEMBERED)
def _layout(order: Order, count: int, tags_and_types: int) -> _Layout:
    raw = tags_and_types.to_bytes(order.entry * count, "little")
    fields = [raw[at : at + 4] for at in range(0, len(raw), order.entry)]
    tags = tuple(order.number(field[:2]) for field in fields)
    return _Layout(order, tags, tuple(order.number(field[2:]) for field in fields))


@lru_cache(MAX_REMEMBERED)
def _shape(layout: _Layout, length: int, counts: int) -> _Shape:
    return _Shape(layout, _Entries(layout.order, counts.to_bytes(length, "little")))


@lru_cache(MAX_REMEMBERED)
def _image(
    shape: _Shape, length: int, types_and_values: int, contents: tuple[bytes, ...]
) -> _Image:
    entries = _Entries(shape.layout.order, types_and_values.to_bytes(length, "little"))
    return _Image(shape, entries, contents)


def _directories(file: _File) -> tuple[_Layout, _Entries, list[_Image]]:
    """Return the first IFD's layout and entries, and what each IFD says of its image."""
    order, number = file.order, int.from_bytes
    byteorder, count_bytes, entry, inline = (
        order.byteorder,
        order.count_bytes,
        order.entry,
        order.inline,
    )
    images: list[_Image] = []
    layout: _Layout | None = None
    offset = file.first
    while offset:
        if len(images) >= MAX_IFDS:
            raise NotPlain("IFDs without end")
        count = number(file.get(offset, count_bytes), byteorder)
        if not 0 < count <= MAX_ENTRIES:
            raise NotPlain("an IFD of odd length")
        length = entry * count
        content = file.get(offset + count_bytes, length + inline)
        raw = content[:length]
        known = layout.follower if layout is not None else None
        image = known.image_of(raw) if known is not None else None
        if known is None or image is None:
            known, image = _look_at(file, count, raw)
            if layout is not None:
                layout.follower = known
        layout = known.layout
        if not images:
            main = layout, _Entries(order, raw)
        elif _METADATA in layout.at:
            _check_metadata_of_overview(file, layout, _Entries(order, raw))
        images.append(image)
        offset = number(content[length:], byteorder)
    if not images:
        raise NotPlain("no IFD")
    return *main, images


def _look_at(file: _File, count: int, raw: bytes) -> tuple[_Shape, _Image]:
    """Decode an IFD. As one large number, it tells by a mask whether its like was seen before."""
    number = int.from_bytes(raw, "little")  # whatever the order: only the place matters
    tags_mask = file.order.tags_masks[count]
    layout = _layout(file.order, count, number & tags_mask)
    shape = _shape(layout, len(raw), number & layout.counts_mask)
    contents = _contents(file, raw, shape) if shape.contents else ()
    image = _image(shape, len(raw), number & (tags_mask | shape.values_mask), contents)
    if shape.elsewhere or image.one_strip:
        _check_places(file, raw, shape, image)
    elif not shape.contents:
        shape.remember(number, image)
    return shape, image


def _contents(file: _File, raw: bytes, shape: _Shape) -> tuple[bytes, ...]:
    entries = _Entries(file.order, raw)
    return tuple([file.get(entries.offset(index), length) for index, length in shape.contents])


def _check_places(file: _File, raw: bytes, shape: _Shape, image: _Image) -> None:
    """Raise NotPlain if values that are not looked at, or the only strip, are not in the file."""
    entries = _Entries(file.order, raw)
    for index, length in shape.elsewhere:
        if entries.offset(index) + length > file.size:
            raise NotPlain("values outside the file or all over it")
    if image.one_strip:
        end = entries.number(shape.layout.blocks_at) + image.one_strip
        if entries.number(shape.layout.bytes_at) != image.one_strip or end > file.size:
            raise NotPlain("odd blocks")


def _factor(width: int, reduced: int) -> int:
    """Return the decimation factor of an overview; rasterio rounds halves to even."""
    return round(width / reduced)


class _Placement(NamedTuple):
    kind: Hashable
    transform: tuple[float, ...] | None


def _placement(file: _File, layout: _Layout, entries: _Entries) -> _Placement:
    """Return where the raster lies (OGC GeoTIFF 1.1, section 7.2; GDAL's use of it)."""
    at = layout.at
    if _SCALE in at:
        if _TIE_POINTS not in at:
            raise NotPlain("odd georeferencing")
        scale_x, scale_y, scale_z = _doubles(file, entries, at[_SCALE], 3)
        column, row, level, x, y, z = _doubles(file, entries, at[_TIE_POINTS], 6)
        if not (_is_usual(scale_x) and _is_usual(scale_y) and scale_y > 0):
            raise NotPlain("odd georeferencing")
        transform = (x - column * scale_x, scale_x, 0.0, y - row * -scale_y, 0.0, -scale_y)
        # A height scale becomes that of the band under a vertical CRS.
        heights = _reals(file.order.sign, 3).pack(scale_z, level, z)  # 0.0 is not -0.0
        return _Placement(("scale", heights), transform)
    if _MATRIX in at:
        m = _doubles(file, entries, at[_MATRIX], 16)
        if m[1] or m[4]:
            raise NotPlain("rotated")
        if not (_is_usual(m[0]) and _is_usual(m[5])):
            raise NotPlain("odd georeferencing")
        return _Placement("matrix", (m[3], m[0], m[1], m[7], m[4], m[5]))
    if _TIE_POINTS in at:
        count, rest = divmod(entries.count(at[_TIE_POINTS]), 6)
        if rest or not 0 < count <= MAX_POINTS:
            raise NotPlain("odd georeferencing")
        _doubles(file, entries, at[_TIE_POINTS], 6 * count)
        return _Placement(("points", count), None)
    return _Placement(None, None)


def _is_usual(scale: float) -> bool:
    """Whether squaring it neither over- nor underflows: rasterio's `res` is the square's root."""
    return 1e-150 < abs(scale) < 1e150


@lru_cache
def _reals(sign: str, count: int) -> struct.Struct:
    return struct.Struct(f"{sign}{count}d")


def _doubles(file: _File, entries: _Entries, index: int, count: int) -> tuple[float, ...]:
    found, offset = entries.place(index)
    if found != count:
        raise NotPlain("odd georeferencing")
    content = file.get(offset, 8 * count)
    values: tuple[float, ...] = _reals(file.order.sign, count).unpack(content)
    if not all(map(math.isfinite, values)):
        raise NotPlain("odd georeferencing")
    return values


def _tags(file: _File, layout: _Layout, entries: _Entries) -> Tags:
    """Return what GDAL shows of the TIFF's own tags, in its order."""
    if layout.shows_nothing:
        return {}
    tags = {name: _text(file, entries, index) for index, name in layout.texts}
    for index, name in layout.resolutions:
        tags[name] = _resolution(file, _content(file, entries, index, 8))
    if _RESOLUTION_UNIT in layout.at:
        unit = entries.number(layout.at[_RESOLUTION_UNIT])
        if unit not in _UNITS:  # libtiff drops them
            raise NotPlain("an odd resolution")
        tags["TIFFTAG_RESOLUTIONUNIT"] = _UNITS[unit]
    return tags


def _resolution(file: _File, content: bytes) -> str:
    """Return a rational as C's ``%.8g`` of the nearest float shows it."""
    above, below = struct.unpack(file.order.sign + "II", content)
    if below == 0:
        raise NotPlain("an odd resolution")
    value = _as_float(above / below)
    if value != _as_float(_as_float(above) / _as_float(below)):
        raise NotPlain("an odd resolution")  # releases of libtiff differ in when they round
    return f"{value:.8g}"


def _as_float(value: float) -> float:
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def _content(file: _File, entries: _Entries, index: int, length: int) -> bytes:
    """Return the bytes of a value, wherever it is."""
    if length > file.order.inline:
        return file.get(entries.offset(index), length)
    return entries.content(index, length)


def _text(file: _File, entries: _Entries, index: int, limit: int = MAX_ARRAY_BYTES) -> str:
    """Return an ASCII value; GDAL takes it for UTF-8."""
    length, offset = entries.place(index)
    if not 1 < length <= limit:
        raise NotPlain("an odd text")
    inside = length <= file.order.inline
    content = entries.content(index, length) if inside else file.get(offset, length)
    if content.find(0) != length - 1 or content[0] in b" \t\r\n":
        raise NotPlain("an odd text")
    try:
        return content[:-1].decode()
    except UnicodeDecodeError:
        raise NotPlain("a text that is not UTF-8") from None


_HEAD = re.compile(
    r'  <Item name="([^"&<>=:\s](?:[^"&<>=:\n]*[^"&<>=:\s])?)"(?: sample="([0-9]{1,4})")?'
    r'(?: role="([a-z]+)")?(?: domain="([^"&<>\n]*)")?'
)
"""An item of the metadata up to its value, as GDAL writes it."""
_START, _END = "<GDALMetadata>\n", "</GDALMetadata>"
_BLANK = frozenset(["", *" \t\r\n\v\f"])
_NUMBER = re.compile(r"[-+]?\d{1,300}(?:\.\d{0,300})?(?:[eE][-+]?\d{1,3})?", re.ASCII)
_ENTITY = re.compile(r"&(?:(lt|gt|amp|quot|apos);)?")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_DOMAINS_OF_EFFECT = frozenset(
    ["color_profile", "exif", "imd", "imagery", "overviews", "proxyoverviewrequest", "rpc",
     "subdatasets", "tiff"]
)  # fmt: skip
_NAME_OF_EFFECT = re.compile(
    "area_or_point|tifftag_|internal_mask|nodata_values|overview_file|color_interp", re.IGNORECASE
)


def _metadata(file: _File, layout: _Layout, entries: _Entries, bands: int) -> Metadata:
    index = layout.at.get(_METADATA)
    if index is None:
        return NO_METADATA
    return _metadata_of(_text(file, entries, index, MAX_METADATA_BYTES), bands)


_HARMLESS = re.compile(
    r'<GDALMetadata>\s*(?:<Item(?: [a-z]+="[\w ]*")+>[\w .,:-]*</Item>\s*)*</GDALMetadata>\s*',
    re.ASCII,
)


def _check_metadata_of_overview(file: _File, layout: _Layout, entries: _Entries) -> None:
    """Raise NotPlain if GDAL, which parses also that of overviews and masks, might complain."""
    if not _is_harmless(_text(file, entries, layout.at[_METADATA])):
        raise NotPlain("odd metadata of an overview")


@lru_cache(MAX_REMEMBERED)
def _is_harmless(metadata: str) -> bool:
    return _HARMLESS.fullmatch(metadata) is not None


def _metadata_of(text: str, bands: int) -> Metadata:
    """Return the content of a ``GDAL_METADATA`` tag, if it is as GDAL writes it."""
    text = text.rstrip("\n")
    if not (text.startswith(_START) and text.endswith(_END)):
        raise NotPlain("metadata that GDAL would not write")
    body = text[len(_START) : -len(_END)]
    *items, rest = body.split("</Item>\n")
    brackets = 2 * len(items)  # of the items; there are to be no others
    if rest or not items or body.count("<") != brackets or body.count(">") != brackets:
        raise NotPlain("metadata that GDAL would not write")
    heads, _, values = zip(*[item.partition(">") for item in items], strict=True)
    if not _BLANK.isdisjoint([value[:1] for value in values]):
        raise NotPlain("a value that is empty or starts with a space")
    remembered = len(text) <= MAX_ARRAY_BYTES
    plan = _plan(heads) if remembered else _plan.__wrapped__(heads)
    if plan.bands > bands:
        raise NotPlain("metadata of no band")
    if "&" in body:
        values = tuple(_unescaped(_unescaped(value)) for value in values)  # GDAL does so twice
    metadata = Metadata(
        {name: values[at] for name, at in plan.dataset},
        {band: {name: values[at] for name, at in tags} for band, tags in plan.of_bands},
        {}, {}, {}, (),
    )  # fmt: skip
    return _with_roles(metadata, plan.roles, values) if plan.roles else metadata


class _Plan(NamedTuple):
    """Which value of a ``GDAL_METADATA`` tag is what. Files of one product share one."""

    dataset: list[tuple[str, int]]
    """(name, index of the value) of the dataset's tags."""
    of_bands: list[tuple[int, list[tuple[str, int]]]]
    """(band, the same of its tags)."""
    roles: list[tuple[int, str, int]]
    """(band, role, index of the value)."""
    bands: int
    """Highest band that is mentioned."""


@lru_cache(MAX_REMEMBERED)
def _plan(heads: tuple[str, ...]) -> _Plan:
    tags: dict[int, dict[str, tuple[str, int]]] = {}
    roles: dict[tuple[int, str], int] = {}
    found = most = 0
    for at, head in enumerate(heads):
        item = _HEAD.fullmatch(head)
        if item is None:
            raise NotPlain("metadata that GDAL would not write")
        name, sample, role, domain = item.groups()
        band = int(sample) + 1 if sample else 0
        most = max(band, most)
        if domain is not None:
            if role or _has_effect(domain.lower(), name.lower()):
                raise NotPlain("metadata of effect")
            continue
        if _NAME_OF_EFFECT.match(name) or (role and not band):
            raise NotPlain("metadata of effect")
        found += 1
        if role:
            roles[band, role] = at
        else:
            tags.setdefault(band, {})[name.lower()] = (name, at)
    if sum(map(len, tags.values())) + len(roles) != found:
        raise NotPlain("a tag given twice")
    dataset = list(tags.pop(0, {}).values())
    of_bands = [(band, list(items.values())) for band, items in tags.items()]
    return _Plan(dataset, of_bands, [(*key, at) for key, at in roles.items()], most)


def _has_effect(domain: str, name: str) -> bool:
    """Whether GDAL uses metadata of this domain and name, both in lower case, for the record."""
    of_pixels = domain == "image_structure" and name == "interleave"
    return of_pixels or not domain or domain in _DOMAINS_OF_EFFECT or domain[:4] == "xml:"


def _with_roles(
    metadata: Metadata, roles: list[tuple[int, str, int]], values: Sequence[str]
) -> Metadata:
    """Return the metadata with what stands for other properties of the bands than tags."""
    asked = []
    for band, role, at in roles:
        value = values[at]
        if role == "description":
            metadata.descriptions[band] = value
        elif role in ("scale", "offset"):
            number = float(value) if _NUMBER.fullmatch(value) else math.nan
            if not math.isfinite(number) or (number == 0 and value[0] == "-"):
                raise NotPlain("an odd number")
            (metadata.scales if role == "scale" else metadata.offsets)[band] = number
        elif role in ("unittype", "colorinterp"):
            asked.append((band, role, value))
        else:
            raise NotPlain("metadata of effect")
    return metadata._replace(asked=tuple(asked))


def _unescaped(value: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            raise NotPlain("an odd entity")
        return _ENTITIES[match[1]]

    return _ENTITY.sub(replaced, value)
