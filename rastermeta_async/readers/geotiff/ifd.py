"""Reads the IFDs of a TIFF file: the sizes and blocks of its images, and what files share.

Most files of an archive have the same structure. A mask removes from an IFD what may differ. If
the rest equals that of an earlier IFD, one look-up replaces the decoding.

References: TIFF 6.0 (Adobe, 1992), sections 2, 8, 15; libtiff, ``TIFFOpen(3)`` (strip
chopping); GDAL, "GTiff -- GeoTIFF File Format".
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import NamedTuple, Self

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.buffer import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    LONG8,
    MAX_ARRAY_BYTES,
    MAX_ENTRIES,
    RATIONAL,
    SHORT,
    SIZES,
    UNDEFINED,
    Entries,
    File,
    TiffEncoding,
    text,
    unpacker,
    value_bytes,
)
from rastermeta_async.readers.geotiff.cog import MAX_FIRST_IFD
from rastermeta_async.readers.geotiff.gdal_metadata import MAX_REMEMBERED, is_harmless
from rastermeta_async.readers.geotiff.ifd_cache import CachedIfds, Piece

MAX_IFDS = 64
MAX_SPARSE_BLOCKS = 1024
"""Blocks of an image that are checked to find one that is written."""
MAX_BANDS = 4096

_SHORTS, _LONGS, _TEXT = frozenset({SHORT}), frozenset({LONG}), frozenset({ASCII})
_RATIOS, _REALS, _RAW = frozenset({RATIONAL}), frozenset({DOUBLE}), frozenset({UNDEFINED})
_WHOLE = _SHORTS | _LONGS
_OPAQUE = _RAW | {BYTE}
_OFFSETS = _WHOLE | {LONG8}

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_X_RESOLUTION, _Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
SCALE, TIE_POINTS, MATRIX, METADATA, RPCS = 33550, 33922, 34264, 42112, 50844
NODATA = 42113

_KIND_SCALARS = {
    _SUBFILE: _LONGS, _COMPRESSION: _SHORTS, _PHOTOMETRIC: _SHORTS, 266: _SHORTS, 274: _SHORTS,
    _SAMPLES: _SHORTS, _PLANAR: _SHORTS, 317: _SHORTS,
}  # fmt: skip
"""Single numbers that belong to the kind: 266 fill order, 274 orientation, 317 predictor."""

_KIND_ARRAYS = {
    _BITS: _SHORTS, 297: _SHORTS, 338: _SHORTS, 339: _SHORTS, 530: _SHORTS, 532: _RATIOS,
    34735: _SHORTS, 34736: _REALS, 34737: _TEXT, NODATA: _TEXT, 50674: _LONGS,
}  # fmt: skip
"""Arrays that belong to the kind: 297 page number, 338 extra samples, 339 sample format, 530 and
532 YCbCr, 34735 to 34737 GeoKeys, 42113 GDAL_NODATA, 50674 LERC parameters."""

_EXIF, _GPS, _LEFT, _TOP = 34665, 34853, 286, 287
_OF_NO_EFFECT = {
    285: _TEXT, _LEFT: _RATIOS, _TOP: _RATIOS, 318: _RATIOS, 319: _RATIOS, 320: _SHORTS,
    347: _RAW, 700: _OPAQUE, 33723: _OPAQUE | _LONGS, 34377: _OPAQUE, _EXIF: _LONGS,
    34675: _OPAQUE, _GPS: _LONGS, 37724: _OPAQUE, RPCS: _REALS,
}  # fmt: skip
"""Tags whose type and count matter, but not their values: 285 page name, 318 white point, 319
primaries, 320 palette, 347 JPEG tables, 700 XMP, 33723 IPTC, 34377 and 37724 Photoshop, 34675 ICC
profile."""

_TEXTS = {
    269: "TIFFTAG_DOCUMENTNAME", 270: "TIFFTAG_IMAGEDESCRIPTION", 305: "TIFFTAG_SOFTWARE",
    306: "TIFFTAG_DATETIME", 315: "TIFFTAG_ARTIST", 316: "TIFFTAG_HOSTCOMPUTER",
    33432: "TIFFTAG_COPYRIGHT",
}  # fmt: skip
"""Tags that GDAL shows as metadata of the dataset, in GDAL's order."""

_RESOLUTIONS = {_X_RESOLUTION: "TIFFTAG_XRESOLUTION", _Y_RESOLUTION: "TIFFTAG_YRESOLUTION"}

_KNOWN: dict[int, frozenset[int]] = {
    **_KIND_SCALARS, **_KIND_ARRAYS, **_OF_NO_EFFECT,
    **dict.fromkeys(_TEXTS, _TEXT), **dict.fromkeys(_RESOLUTIONS, _RATIOS),
    **dict.fromkeys((_WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT), _WHOLE),
    **dict.fromkeys((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES), _OFFSETS),
    **dict.fromkeys((SCALE, TIE_POINTS, MATRIX), _REALS),
    RESOLUTION_UNIT: _SHORTS, METADATA: _TEXT,
}  # fmt: skip
"""Types that each tag may have. The decoder does not support other tags and types."""

_SINGLE = (
    *_KIND_SCALARS, _WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, RESOLUTION_UNIT,
    *_RESOLUTIONS, _LEFT, _TOP, _EXIF, _GPS,
)  # fmt: skip
"""Tags that have one value."""

_COMPRESSIONS = frozenset({1, 5, 7, 8, 32773, 32946, 34887, 34925, 50000})
"""None, LZW, JPEG, Deflate, PackBits, old Deflate, LERC, LZMA, ZSTD. GDAL opens files of these
compressions without reading pixels."""
_NO_COMPRESSION, _JPEG = 1, 7
_JPEG_BITS = 8
_CONTIGUOUS = 1
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType (TIFF 6.0, section 8)."""

_ALL_ROWS = 2**32 - 1
"""RowsPerStrip when one strip holds the whole image (TIFF 6.0, section 8)."""
_CHOPPED_STRIP_BYTES = 8192
_SPLIT_ROWS = 2000


_CODES = {SHORT: "H", LONG: "I", LONG8: "Q"}
"""`struct` codes of integer types."""


class Layout:
    """The tags and types of an IFD, and the index of each entry. Many files share a layout."""

    def __init__(self, order: TiffEncoding, tags: tuple[int, ...], types: tuple[int, ...]) -> None:
        if any(one >= following for one, following in itertools.pairwise(tags)):
            raise Unsupported("tags out of order")
        for tag, kind in zip(tags, types, strict=True):
            # A classic TIFF stores even one LONG8 outside the IFD; libtiff may not find it there.
            if kind not in _KNOWN.get(tag, ()) or (kind == LONG8 and not order.big):
                raise Unsupported(f"tag {tag} of type {kind}")
        self.order = order
        self.types = types
        self.at = {tag: index for index, tag in enumerate(tags)}
        self.tiled = _TILE_WIDTH in self.at
        wanted = (_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES) if self.tiled else (
            _ROWS, _STRIPS, _STRIP_BYTES)  # fmt: skip
        other = (_STRIPS, _STRIP_BYTES, _ROWS) if self.tiled else (_TILE_HEIGHT, _TILES)
        if not all(tag in self.at for tag in (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, *wanted)):
            raise Unsupported("tags missing")
        if any(tag in self.at for tag in other):
            raise Unsupported("strips and tiles")
        self.blocks_at, self.bytes_at = self.at[wanted[-2]], self.at[wanted[-1]]
        self.singles = self._indices(_SINGLE)
        self.arrays = self._indices(_KIND_ARRAYS)
        self.ignored = self._indices(_OF_NO_EFFECT)
        self.texts = [(self.at[tag], name) for tag, name in _TEXTS.items() if tag in self.at]
        self.resolutions = [
            (self.at[tag], name) for tag, name in _RESOLUTIONS.items() if tag in self.at
        ]
        self.shows_nothing = not (
            self.texts or self.resolutions or RESOLUTION_UNIT in self.at
        )  # fmt: skip
        measured = {*self.singles, *self.arrays, *self.ignored}
        self.counts_mask = order.mask(order.count_field, measured)

    def _indices(self, tags: Iterable[int]) -> list[int]:
        return [self.at[tag] for tag in tags if tag in self.at]

    def item_bytes(self, index: int) -> int:
        """Return the bytes of one value of an entry."""
        return SIZES[self.types[index]]


class _Shape:
    """A layout, and the value counts of the entries whose count does not vary by file."""

    def __init__(self, layout: Layout, entries: Entries) -> None:
        order = layout.order
        self.layout = layout
        if any(entries.count(index) != 1 for index in layout.singles):
            raise Unsupported("several values where there should be one")
        lengths = {
            index: entries.count(index) * layout.item_bytes(index)
            for index in (*layout.arrays, *layout.ignored)
        }
        if 0 in lengths.values():
            raise Unsupported("a value of no length")
        if any(lengths[index] > MAX_ARRAY_BYTES for index in layout.arrays):
            raise Unsupported("a long value")
        contents = {i: lengths[i] for i in layout.arrays if lengths[i] > order.inline}
        self.contents = sorted(contents)
        """Entries of the kind's arrays whose values are outside the IFD."""
        self.lengths = [contents[index] for index in self.contents]
        self.elsewhere = [(i, lengths[i]) for i in layout.ignored if lengths[i] > order.inline]
        """(entry, bytes) of the values outside the IFD that are not read."""
        self.taken = tuple(
            (index, lengths[index])
            for index in (*layout.arrays, *layout.ignored)
            # GDAL decides by the count whether it uses a palette or RPCs.
            if index in layout.arrays or layout.item_bytes(index) > 1
        )
        outside = {*layout.ignored, *self.contents}
        inside = {*layout.singles, *layout.arrays} - outside
        inside -= {index for index, _ in layout.resolutions}
        blocks = {layout.blocks_at, layout.bytes_at}
        self.values_mask = order.mask(order.value_field, inside)
        self.values_mask |= order.mask(order.count_field, blocks)
        self.span = order.span(len(layout.types))
        self.mask = order.tags_masks[len(layout.types)] | layout.counts_mask | self.values_mask
        """Bits that must be equal in two IFDs if both are to describe the same image."""
        self.offsets = order.offsets(self.contents, self.span)
        self.follower: _Shape | None = None
        """Shape of the IFD that followed the last IFD of this shape."""

    def piece(self, start: int, *, last: bool) -> Piece:
        """Return an IFD of this shape as a piece; the last one has no successor."""
        order = self.layout.order
        link = 8 * (self.span - order.inline)
        offsets = sum(
            1 << 8 * (order.entry_at(index) + order.value_field[0]) for index in self.contents
        )
        offset = (1 << 8 * order.inline) - 1
        moving = offsets if last else offsets | 1 << link
        return Piece(start, self.span, self.mask | offsets * offset | offset << link, moving)

    def seen(self, ifd: bytes, head: bytes) -> Image | None:
        """Return the image that an IFD of this shape describes; None if it is not cached."""
        parts = zip(self.offsets.unpack(ifd), self.lengths, strict=True)
        contents = tuple([head[offset : offset + length] for offset, length in parts])
        return _IMAGES.get((self, int.from_bytes(ifd, "little") & self.mask, contents))

    def image(self, file: File, ifd: bytes) -> Image:
        """Return the image that an IFD of this shape describes."""
        parts = zip(self.offsets.unpack(ifd), self.lengths, strict=True)
        contents = tuple([file.get(offset, length) for offset, length in parts])
        key = self, int.from_bytes(ifd, "little") & self.mask, contents
        image = _IMAGES.get(key)
        if image is None:
            image = Image(self, Entries(file.order, ifd), contents)
            if len(_IMAGES) >= MAX_REMEMBERED:
                _IMAGES.clear()
            _IMAGES[key] = image
        return image


_FIRST: dict[TiffEncoding, _Shape] = {}
"""Shape of the first IFD of the last file, a guess for the next file."""

_IMAGES: dict[tuple[_Shape, int, tuple[bytes, ...]], Image] = {}
"""Images by shape, by the IFD after the shape's `mask`, and by the arrays outside the IFD."""


class Array:
    """The values of an entry, inside or outside the IFD. Files that share an `Image` share it."""

    def __init__(self, entries: Entries, index: int) -> None:
        order = entries.order
        code = _CODES.get(entries.kind(index))
        if code is None:
            raise Unsupported("odd blocks")
        self.item = struct.Struct(order.sign + code)
        is_inside = entries.count(index) * self.item.size <= order.inline
        self.at = order.entry_at(index) + order.value_field[0]
        """Position in the IFD of the values, or of the offset of the values."""
        self.code = code if is_inside else order.pointer
        """`struct` code of what is at this position."""
        self.first = None if is_inside else self.item.unpack_from
        """Unpacks the first value from a file's bytes at an offset. None: it is in the IFD."""

    def is_at_hand(self, file: File, start: int) -> bool:
        """Whether the first value is in memory; `start` is its offset if it is outside the IFD."""
        return not self.first or file.is_at_hand(start, self.item.size)

    def values(self, file: File, ifd: bytes, count: int) -> list[int]:
        """Return the first `count` values."""
        order, length = file.order, count * self.item.size
        field = ifd[self.at : self.at + order.inline]
        content = file.get(order.number(field), length) if self.first else field[:length]
        return [number for (number,) in self.item.iter_unpack(content)]


class Blocks:
    """The blocks of an IFD's first band, and where their offsets and lengths are.

    Args:
        entries: entries of the IFD.
        offsets: index of the entry with the offsets of the blocks.
        lengths: index of the entry with the lengths of the blocks.
        count: number of blocks.
    """

    def __init__(self, entries: Entries, offsets: int, lengths: int, count: int) -> None:
        self.arrays = Array(entries, offsets), Array(entries, lengths)
        self._count = min(count, entries.count(offsets), entries.count(lengths))
        self._needs_length = entries.count(offsets) > 1 or entries.tag(offsets) != _STRIPS
        fields = [(array.at, array.code) for array in self.arrays]
        self.fields = unpacker(entries.order.sign, fields).unpack_from
        """Unpacks the values of both arrays, or their offsets, from the IFD."""

    def first(
        self, file: File, ifd: bytes, *, needed: bool = True, most: int = MAX_SPARSE_BLOCKS
    ) -> int | None:
        """Return the offset of the first block that is written; 0 if there is none.

        A written block has an offset and a length (``GTiffDataset::IsBlockAvailable``). This
        method never reads the file only for the length of block 0. It returns None instead of
        reading if `needed` is false, or if GDAL's ghost area says that the blocks are in order.

        Raises:
            Unsupported: the first `most` blocks are not written, or an array is not in the file.
        """
        offset, length = self.fields(ifd)
        offsets, lengths = self.arrays
        try:
            if offsets.first:
                (offset,) = offsets.first(file.head, offset)
            if lengths.first:
                (length,) = lengths.first(file.head, length)
        except (struct.error, OverflowError):  # one of them is not in the head
            if file.ghost.is_ordered or not needed:
                return None
            (offset,) = offsets.values(file, ifd, 1)
            if offset and lengths.is_at_hand(file, length):
                (length,) = lengths.values(file, ifd, 1)
        if offset and length:
            return offset  # type: ignore[no-any-return]  # what `struct` unpacks has no type
        return self._next(file, ifd, most)

    def _next(self, file: File, ifd: bytes, most: int) -> int:
        some = min(self._count, most)
        offsets, lengths = (array.values(file, ifd, some) for array in self.arrays)
        if not self._needs_length:  # libtiff computes the length of a single strip
            lengths = offsets
        pairs = zip(offsets, lengths, strict=True)
        written = next((offset for offset, length in pairs if offset and length), 0)
        if not written and some < self._count:
            raise Unsupported("many blocks that are not written")
        return written


class Image:
    """An image as its IFD describes it. Files with the same description share one."""

    def __init__(self, shape: _Shape, entries: Entries, contents: tuple[bytes, ...]) -> None:
        layout = shape.layout

        def number(tag: int, default: int) -> int:
            return entries.number(layout.at[tag]) if tag in layout.at else default

        self.width, self.height = number(_WIDTH, 0), number(_HEIGHT, 0)
        self.samples = number(_SAMPLES, 1)
        self.subfile = number(_SUBFILE, 0)
        if not (0 < self.width < 2**31 and 0 < self.height < 2**31):
            raise Unsupported("an odd size")
        if not 0 < self.samples <= MAX_BANDS:
            raise Unsupported("many bands")
        compression = number(_COMPRESSION, 0)
        if compression not in _COMPRESSIONS:
            raise Unsupported("a compression of which a file must be looked into")
        outside = dict(zip(shape.contents, contents, strict=True))
        bits_at = layout.at[_BITS]
        bits = entries.order.number(outside.get(bits_at, entries.content(bits_at, 2))[:2])
        if not bits or (compression == _JPEG and bits != _JPEG_BITS):
            raise Unsupported("odd bits")
        contiguous = number(_PLANAR, _CONTIGUOUS) == _CONTIGUOUS
        samples = self.samples if contiguous else 1
        if layout.tiled:
            self.block_width, self.block_height = number(_TILE_WIDTH, 0), number(_TILE_HEIGHT, 0)
        else:
            rows = number(_ROWS, 0)
            if 2**31 <= rows < _ALL_ROWS:  # the number of strips overflows in libtiff
                raise Unsupported("odd blocks")
            self.block_width, self.block_height = self.width, min(rows, self.height)
        if not (0 < self.block_width < 2**31 and 0 < self.block_height < 2**31):
            raise Unsupported("odd blocks")
        row_bytes = -(-self.block_width * bits * samples // 8)
        blocks = -(-self.width // self.block_width) * -(-self.height // self.block_height)
        planes = self.samples // samples
        self.blocks = Blocks(entries, layout.blocks_at, layout.bytes_at, blocks)
        found = entries.count(layout.blocks_at), entries.count(layout.bytes_at)
        if found != (blocks * planes, blocks * planes) or blocks * planes >= 2**31:
            raise Unsupported("odd blocks")
        if row_bytes * self.block_height >= 2**31:
            raise Unsupported("odd blocks")
        self.one_strip = 0
        """Bytes of the strip if it is the only one and not compressed; otherwise 0."""
        if not layout.tiled and blocks == 1:
            if contiguous and compression == _NO_COMPRESSION:
                # libtiff splits it into strips of 8 KiB (TIFFOpen(3), "strip chopping").
                self.one_strip = row_bytes * self.height
                rows = max(1, _CHOPPED_STRIP_BYTES // row_bytes)
                self.block_height = min(self.block_height, rows)
            if self.block_height == self.height > _SPLIT_ROWS:  # GTiffSplitBand
                raise Unsupported("one long strip")
        scalars = tuple(number(tag, -1) for tag in _KIND_SCALARS)
        taken = tuple(outside.get(i, entries.content(i, n)) for i, n in shape.taken)
        self.kind = _image_kind(layout, scalars, shape.taken, taken)
        self.has_unseen = bool(shape.elsewhere or self.one_strip)
        """Whether some values or the strip are not read, so that their extent must be checked."""
        self.rest: _Rest | None = None
        """The IFDs that followed a first IFD of this image."""
        self.is_common = False
        """Whether several files have it as first image; only then is `rest` worth learning."""


class _ImageKind:
    """All of an `Image` but the sizes. It equals only itself, so that comparing is fast."""


@lru_cache(MAX_REMEMBERED)
def _image_kind(*parts: Hashable) -> _ImageKind:  # noqa: ARG001  # they are the cache's key
    return _ImageKind()


@lru_cache(MAX_REMEMBERED)
def _layout(order: TiffEncoding, count: int, tags_and_types: int) -> Layout:
    raw = tags_and_types.to_bytes(order.span(count), "little")
    fields = [raw[at : at + 4] for at in map(order.entry_at, range(count))]
    tags = tuple(order.number(field[:2]) for field in fields)
    return Layout(order, tags, tuple(order.number(field[2:]) for field in fields))


@lru_cache(MAX_REMEMBERED)
def _shape(layout: Layout, counts: int) -> _Shape:
    ifd = counts.to_bytes(layout.order.span(len(layout.types)), "little")
    return _Shape(layout, Entries(layout.order, ifd))


_Found = tuple[int, bytes, _Shape, Image]
"""An IFD: its offset, its bytes, its shape, and its image."""


class Places(NamedTuple):
    """Offsets of the first image and its overviews."""

    ifds: list[int]
    blocks: list[int]
    """First blocks. Empty: they do not matter, or GDAL's ghost area says that they are in order."""

    @classmethod
    def of_first(
        cls,
        file: File,
        ifd: bytes,
        blocks: Blocks,
        *,
        is_alone: bool,
        most: int = MAX_SPARSE_BLOCKS,
    ) -> Self:
        """Return the places of the first image; for `most` see `Blocks.first`."""
        places = cls([file.first], [])
        if file.first <= MAX_FIRST_IFD:
            needed = not is_alone or file.first > file.header_bytes  # else no block precedes it
            block = blocks.first(file, ifd, needed=needed, most=most)
            if block is not None:
                places.blocks.append(block)
        return places

    def add(
        self, file: File, offset: int, ifd: bytes, blocks: Blocks, most: int = MAX_SPARSE_BLOCKS
    ) -> None:
        """Add the places of an overview."""
        self.ifds.append(offset)
        if self.blocks:
            block = blocks.first(file, ifd, most=most)
            if block is None:
                self.blocks.clear()
            else:
                self.blocks.append(block)


def images_of(file: File) -> tuple[Layout, Entries, tuple[Image, ...], Places]:
    """Return the first IFD's layout and entries, the image of each IFD, and the places.

    It guesses that the other IFDs are those that followed an equal first IFD before.
    """
    order = file.order
    if not file.first:
        raise Unsupported("no IFD")
    _, ifd, shape, image = _found(file, file.first, _FIRST.get(order))
    _FIRST[order] = shape
    link = order.number(ifd[-order.inline :])
    rest = image.rest
    if rest is not None and link and rest.cached.is_at(link, file.head):
        places = rest.places(file, ifd, link)
        return shape.layout, Entries(order, ifd), (image, *rest.images), places
    places = Places.of_first(file, ifd, image.blocks, is_alone=not link)
    images: tuple[Image, ...] = (image,)
    if link:
        others = _others(file, link, shape)
        images = (image, *[other for *_, other in others])
        for offset, other_ifd, _, other in others:
            if other.subfile == REDUCED:
                places.add(file, offset, other_ifd, other.blocks)
        if image.is_common:
            image.rest = _rest(file.head, image, others)
        image.is_common = True
    return shape.layout, Entries(order, ifd), images, places


def _found(file: File, offset: int, guess: _Shape | None) -> _Found:
    """Return the IFD at an offset; try the shape `guess` first.

    The IFD, as one large integer under the mask of the shape, is the key of the cached images.
    """
    image = None
    if guess is not None and offset + guess.span <= len(file.head):
        shape, ifd = guess, file.head[offset : offset + guess.span]
        image = shape.seen(ifd, file.head)
    if image is None:
        ifd = ifd_at(file, offset)
        shape = _shape_of(file.order, ifd)
        image = shape.image(file, ifd)
    if image.has_unseen:
        _check_places(file, ifd, shape, image)
    return offset, ifd, shape, image


def _others(file: File, offset: int, previous: _Shape) -> list[_Found]:
    """Return the IFDs after the first; the guess for each is the last file's IFD in that place."""
    order = file.order
    others: list[_Found] = []
    while offset:
        if len(others) == MAX_IFDS - 1:
            raise Unsupported("IFDs without end")
        found = _, ifd, shape, _ = _found(file, offset, previous.follower)
        previous.follower = shape
        if METADATA in shape.layout.at:
            _check_metadata_of_overview(file, shape.layout, Entries(order, ifd))
        others.append(found)
        previous = shape
        offset = order.number(ifd[-order.inline :])
    return others


class _Rest:
    """All IFDs that followed a first IFD, to recognise them in the next file."""

    def __init__(
        self, order: TiffEncoding, cached: CachedIfds, image: Image, others: list[_Found]
    ) -> None:
        self.cached = cached
        self.images = tuple([other for *_, other in others])
        start = others[0][0]
        self._image = image
        self._overviews = [
            (offset - start, len(ifd), other)
            for offset, ifd, _, other in others
            if other.subfile == REDUCED
        ]
        self._starts = [at for at, *_ in self._overviews]
        arrays = [(at, array) for at, _, other in self._overviews for array in other.blocks.arrays]
        fields = [(at + array.at, array.code) for at, array in arrays]
        self._fields = unpacker(order.sign, fields).unpack_from
        self._first = [array.first for array in image.blocks.arrays]
        self._first += [array.first for _, array in arrays]

    def places(self, file: File, ifd: bytes, start: int) -> Places:
        """Return the places in a file with this first IFD and the cached IFDs from `start` on."""
        head = file.head
        if file.first <= MAX_FIRST_IFD:
            fields = (*self._image.blocks.fields(ifd), *self._fields(head, start))
            try:
                numbers = [
                    unpack(head, field)[0] if unpack else field
                    for unpack, field in zip(self._first, fields, strict=True)
                ]
            except (struct.error, OverflowError):  # some are not in the head
                numbers = [] if file.ghost.is_ordered else [0]
            if 0 not in numbers:
                return Places([file.first, *[start + at for at in self._starts]], numbers[::2])
        places = Places.of_first(file, ifd, self._image.blocks, is_alone=False)
        for at, length, overview in self._overviews:
            other_ifd = head[start + at : start + at + length]
            places.add(file, start + at, other_ifd, overview.blocks)
        return places


def _rest(head: bytes, image: Image, others: list[_Found]) -> _Rest | None:
    """Return the IFDs after a first IFD as a cache; None if each file's have to be decoded."""
    order = others[0][2].layout.order
    offsets = [offset for offset, *_ in others]
    if order.byteorder == "big" or offsets != sorted(offsets):
        return None
    parts: list[Piece] = []
    for offset, ifd, shape, other in others:
        if other.has_unseen or METADATA in shape.layout.at:
            return None
        parts.append(shape.piece(offset, last=offset == offsets[-1]))
        places = zip(shape.offsets.unpack(ifd), shape.lengths, strict=True)
        parts += [Piece(at, length, (1 << 8 * length) - 1) for at, length in places]
    cached = CachedIfds.of(head, offsets[0], parts)
    return _Rest(order, cached, image, others) if cached else None


def ifd_at(file: File, offset: int) -> bytes:
    """Return the bytes of an IFD: the number of entries, the entries, the link to the next IFD."""
    order = file.order
    count = order.number(file.get(offset, order.count_bytes))
    if not 0 < count <= MAX_ENTRIES:
        raise Unsupported("an IFD of odd length")
    return file.get(offset, order.span(count))


def value_in_first_ifd(file: File, tag: int, limit: int) -> bytes:
    """Return the value of a tag whose type has one byte a value.

    Raises:
        Unsupported: the tag is missing, or the value is longer than the limit.
    """
    order = file.order
    ifd = ifd_at(file, file.first)
    for index in range(order.number(ifd[: order.count_bytes])):
        start = order.entry_at(index)
        if order.number(ifd[start : start + 2]) == tag:
            entries = Entries(order, ifd)
            if entries.count(index) > limit:
                raise Unsupported("a long value")
            return value_bytes(file, entries, index, entries.count(index))
    raise Unsupported("tags missing")


def _shape_of(order: TiffEncoding, ifd: bytes) -> _Shape:
    count = order.number(ifd[: order.count_bytes])
    number = int.from_bytes(ifd, "little")  # in either byte order: only positions matter
    layout = _layout(order, count, number & order.tags_masks[count])
    return _shape(layout, number & layout.counts_mask)


def _check_places(file: File, ifd: bytes, shape: _Shape, image: Image) -> None:
    """Raise Unsupported if values that are not read, or the only strip, reach beyond the file."""
    entries = Entries(file.order, ifd)
    for index, length in shape.elsewhere:
        if entries.offset(index) + length > file.size:
            raise Unsupported("values outside the file or all over it")
    if image.one_strip:
        end = entries.number(shape.layout.blocks_at) + image.one_strip
        if entries.number(shape.layout.bytes_at) != image.one_strip or end > file.size:
            raise Unsupported("odd blocks")


def _check_metadata_of_overview(file: File, layout: Layout, entries: Entries) -> None:
    """Raise Unsupported if GDAL may warn: it also parses the metadata of overviews and masks."""
    if not is_harmless(text(file, entries, layout.at[METADATA])):
        raise Unsupported("odd metadata of an overview")
