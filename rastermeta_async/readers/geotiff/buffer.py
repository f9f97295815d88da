"""Reads the bytes of a TIFF file, and the numbers, IFD entries and values in them.

References: TIFF 6.0 (Adobe, 1992), section 2; the BigTIFF design (libtiff).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from rastermeta_async.model.record import readable
from rastermeta_async.readers.base import Foreign, ReadAt, Unsupported
from rastermeta_async.readers.geotiff.cog import EDITED
from rastermeta_async.readers.window import MAX_READS, Window

MAX_ENTRIES = 100
MAX_ARRAY_BYTES = 8 * 1024
"""Size of the largest value that is read, except for points and metadata."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, DOUBLE: 8, LONG8: 8}
"""Bytes of a value, by type."""


class TiffEncoding:
    """How a TIFF stores numbers and entries: classic or BigTIFF, in either byte order."""

    def __init__(self, byteorder: Literal["little", "big"], *, big: bool) -> None:
        self.byteorder: Literal["little", "big"] = byteorder
        self.sign = "<" if byteorder == "little" else ">"
        self.big = big
        self.inline = 8 if big else 4
        """Bytes of a value field, which are also the bytes of an offset."""
        self.pointer = "Q" if big else "I"
        """`struct` code of an offset."""
        self.count_bytes = 8 if big else 2
        self.entry = 20 if big else 12
        self.count_field = (4, self.inline)
        """(start, bytes) in an entry."""
        self.value_field = (4 + self.inline, self.inline)
        self.place = struct.Struct(self.sign + ("QQ" if big else "II"))
        """Unpacks the count field and the value field of an entry."""
        self.places = [self.entry_at(index) + 4 for index in range(MAX_ENTRIES)]
        """Position of these two fields in an IFD, by entry."""
        each = (self.mask((0, 4), [index]) for index in range(MAX_ENTRIES))
        length = (1 << 8 * self.count_bytes) - 1
        self.tags_masks = list(itertools.accumulate(each, initial=length))
        """Masks that keep the number of entries, tags and types, by number of entries."""

    def number(self, content: bytes) -> int:
        """Return the integer in some bytes."""
        return int.from_bytes(content, self.byteorder)

    def mask(self, field: tuple[int, int], indices: Iterable[int]) -> int:
        """Return the mask that keeps a field of some entries in an IFD as one large number."""
        start, size = field
        ones = (1 << 8 * size) - 1
        return sum(ones << 8 * (self.entry_at(index) + start) for index in indices)

    def entry_at(self, index: int) -> int:
        """Return the position in an IFD at which an entry starts."""
        return self.count_bytes + self.entry * index

    def offsets(self, indices: Sequence[int], span: int) -> struct.Struct:
        """Return a struct that unpacks the offsets of some entries, in order, from an IFD."""
        places = [self.entry_at(index) + self.value_field[0] for index in indices]
        return unpacker(self.sign, [*[(at, self.pointer) for at in places], (span, "0x")])

    def span(self, count: int) -> int:
        """Return the size of an IFD: the number of entries, `count` entries and the link."""
        return self.count_bytes + self.entry * count + self.inline


_ORDERS: dict[bytes, TiffEncoding] = {
    b"II*\0": TiffEncoding("little", big=False), b"MM\0*": TiffEncoding("big", big=False),
    b"II+\0": TiffEncoding("little", big=True), b"MM\0+": TiffEncoding("big", big=True),
}  # fmt: skip


def unpacker(sign: str, fields: Iterable[tuple[int, str]]) -> struct.Struct:
    """Return a struct that unpacks numbers from fields: (position, `struct` code), in order."""
    layout, done = sign, 0
    for at, code in fields:
        layout += f"{at - done}x{code}"
        done = at + struct.calcsize(sign + code)
    return struct.Struct(layout)


class Ghost(NamedTuple):
    """GDAL's description of a file's layout, between the header and the first IFD.

    See GDAL, "COG -- Cloud Optimized GeoTIFF generator", header ghost area.
    """

    is_ordered: bool
    """Whether all IFDs come first, and then the blocks from the smallest overview on."""
    is_edited: bool
    """Whether the file was changed later, so that the order may no longer hold."""


_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE="
_MAX_GHOST_BYTES = 512
"""Upper bound; the ghost area is about half as long."""


@lru_cache
def _ghost(area: bytes) -> Ghost:
    size, said = area[len(_GHOST) :][:6], area[len(_GHOST) + len("000000 bytes\n") :]
    if not area.startswith(_GHOST):
        return Ghost(is_ordered=False, is_edited=False)
    if not size.isdigit():
        raise Unsupported("an odd ghost area")
    said = said[: int(size)].partition(b"\0")[0]
    is_edited = EDITED.encode() in said
    return Ghost(b"LAYOUT=IFDS_BEFORE_DATA\n" in said and not is_edited, is_edited)


class File(Window):
    """Bytes of a TIFF file, and what its header says; for the arguments see `Window`."""

    def __init__(self, head: bytes, size: int, read_at: ReadAt, max_reads: int = MAX_READS) -> None:
        order = _ORDERS.get(head[:4])
        if order is None or len(head) < 16:
            raise Foreign("no TIFF")
        if order.big and (order.number(head[4:6]), order.number(head[6:8])) != (8, 0):
            raise Unsupported("an odd BigTIFF")
        super().__init__(head, size, read_at, max_reads)
        self.order = order
        self.first = order.number(head[8:16] if order.big else head[4:8])
        self.header_bytes = start = 16 if order.big else 8
        """Size of the header. The first IFD or GDAL's ghost area follows it."""
        self.ghost = _ghost(head[start : min(self.first, start + _MAX_GHOST_BYTES)])


class Entries(NamedTuple):
    """The entries of an IFD."""

    order: TiffEncoding
    ifd: bytes

    def place(self, index: int) -> tuple[int, int]:
        """Return the number of values of an entry, and their offset if they are outside it."""
        order = self.order
        place: tuple[int, int] = order.place.unpack_from(self.ifd, order.places[index])
        return place

    def count(self, index: int) -> int:
        """Return how many values an entry has."""
        return self.place(index)[0]

    def offset(self, index: int) -> int:
        """Return the offset of an entry's values."""
        return self.place(index)[1]

    def content(self, index: int, length: int) -> bytes:
        """Return the first bytes of the value field."""
        at = self.order.entry_at(index) + self.order.value_field[0]
        return self.ifd[at : at + min(length, self.order.inline)]

    def tag(self, index: int) -> int:
        """Return an entry's tag."""
        start = self.order.entry_at(index)
        return self.order.number(self.ifd[start : start + 2])

    def kind(self, index: int) -> int:
        """Return the type of an entry's values."""
        start = self.order.entry_at(index)
        return self.order.number(self.ifd[start + 2 : start + 4])

    def number(self, index: int) -> int:
        """Return the only value of an entry, an integer."""
        return self.order.number(self.content(index, SIZES[self.kind(index)]))


@lru_cache
def reals(sign: str, count: int) -> struct.Struct:
    """Return a struct that unpacks `count` doubles of a byte order."""
    return struct.Struct(f"{sign}{count}d")


def doubles(file: File, entries: Entries, index: int, count: int) -> tuple[float, ...]:
    """Return all values of an entry; raise Unsupported unless they are `count` finite doubles."""
    found, offset = entries.place(index)
    if found != count:
        raise Unsupported("odd georeferencing")
    values: tuple[float, ...] = reals(file.order.sign, count).unpack(file.get(offset, 8 * count))
    if not math.isfinite(sum(values)):  # the sum is not finite if one value is not
        raise Unsupported("odd georeferencing")
    return values


def value_bytes(file: File, entries: Entries, index: int, length: int) -> bytes:
    """Return the bytes of a value, inside or outside the IFD."""
    if length > file.order.inline:
        return file.get(entries.offset(index), length)
    return entries.content(index, length)


def text(file: File, entries: Entries, index: int, limit: int = MAX_ARRAY_BYTES) -> str:
    """Return an ASCII value as text; in practice it is mostly UTF-8 (see `readable`)."""
    length, offset = entries.place(index)
    if not 1 < length <= limit:
        raise Unsupported("an odd text")
    inside = length <= file.order.inline
    content = entries.content(index, length) if inside else file.get(offset, length)
    if content.find(0) != length - 1 or content[0] in b" \t\r\n":
        raise Unsupported("an odd text")
    return readable(content[:-1])
