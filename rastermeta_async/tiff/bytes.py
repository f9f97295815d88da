"""Bytes of a TIFF file, and what stands in them: numbers, entries of IFDs, values.

References: TIFF 6.0 (Adobe, 1992), section 2; the BigTIFF design (libtiff).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from rastermeta_async.record import readable

READ_BYTES = 8 * 1024
"""Least size of a further read: an IFD at the end of a file is seldom alone."""

MAX_READS = 32
MAX_ENTRIES = 100
MAX_ARRAY_BYTES = 8 * 1024
"""Largest value, but for points and metadata, that is looked at."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, DOUBLE: 8, LONG8: 8}
"""Bytes of a value, by type."""


class NotPlain(Exception):  # noqa: N818  # a finding, not an error
    """The file is to be read by rasterio; the message is the reason, in a few words."""


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
        self.places = [self.entry_at(index) + 4 for index in range(MAX_ENTRIES)]
        """Where they are, by entry."""
        each = (self.mask((0, 4), [index]) for index in range(MAX_ENTRIES))
        length = (1 << 8 * self.count_bytes) - 1
        self.tags_masks = list(itertools.accumulate(each, initial=length))
        """Masks that leave tags and types, by number of entries."""

    def number(self, content: bytes) -> int:
        """Return the whole number in some bytes."""
        return int.from_bytes(content, self.byteorder)

    def mask(self, field: tuple[int, int], indices: Iterable[int]) -> int:
        """Return the mask that leaves a field of some entries of an IFD as one large number."""
        start, size = field
        ones = (1 << 8 * size) - 1
        return sum(ones << 8 * (self.entry_at(index) + start) for index in indices)

    def entry_at(self, index: int) -> int:
        """Return where in an IFD an entry starts."""
        return self.count_bytes + self.entry * index

    def offsets(self, indices: Sequence[int], span: int) -> struct.Struct:
        """Return what unpacks the offsets of some entries, in their order, from an IFD."""
        layout, done = self.sign, 0
        for index in indices:
            start = self.entry_at(index) + self.value_field[0]
            layout += f"{start - done}x{'Q' if self.big else 'I'}"
            done = start + self.inline
        return struct.Struct(f"{layout}{span - done}x")

    def span(self, count: int) -> int:
        """Return the bytes of an IFD of so many entries: their number, they, and the link."""
        return self.count_bytes + self.entry * count + self.inline


_ORDERS: dict[bytes, Order] = {
    b"II*\0": Order("little", big=False), b"MM\0*": Order("big", big=False),
    b"II+\0": Order("little", big=True), b"MM\0+": Order("big", big=True),
}  # fmt: skip


class File:
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
        self.head = head
        self._window = b""
        self._start = 0
        self._read_at = read_at
        self._reads = 0

    def get(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, all of them."""
        end = offset + size
        if end <= len(self.head):
            return self.head[offset:end]
        if not (self._start <= offset and end <= self._start + len(self._window)):
            if end > self.size or self._reads >= MAX_READS:
                raise NotPlain("values outside the file or all over it")
            self._reads += 1
            self._window = self._read_at(offset, max(size, READ_BYTES))
            self._start = offset
            if len(self._window) < size:
                raise NotPlain("values outside the file or all over it")
        return self._window[offset - self._start : end - self._start]


class Entries(NamedTuple):
    """The entries of an IFD."""

    order: Order
    ifd: bytes

    def place(self, index: int) -> tuple[int, int]:
        """Return how many values an entry has, and where they are if not in the entry."""
        order = self.order
        place: tuple[int, int] = order.place.unpack_from(self.ifd, order.places[index])
        return place

    def count(self, index: int) -> int:
        """Return how many values an entry has."""
        return self.place(index)[0]

    def offset(self, index: int) -> int:
        """Return where an entry's values are."""
        return self.place(index)[1]

    def content(self, index: int, length: int) -> bytes:
        """Return the first bytes of the value field."""
        at = self.order.entry_at(index) + self.order.value_field[0]
        return self.ifd[at : at + min(length, self.order.inline)]

    def number(self, index: int) -> int:
        """Return an entry's only value, a whole number."""
        start = self.order.entry_at(index)
        kind = self.order.number(self.ifd[start + 2 : start + 4])
        return self.order.number(self.content(index, SIZES[kind]))


@lru_cache
def reals(sign: str, count: int) -> struct.Struct:
    """Return what unpacks so many doubles, of a byte order."""
    return struct.Struct(f"{sign}{count}d")


def doubles(file: File, entries: Entries, index: int, count: int) -> tuple[float, ...]:
    """Return so many doubles, all of an entry, all finite."""
    found, offset = entries.place(index)
    if found != count:
        raise NotPlain("odd georeferencing")
    values: tuple[float, ...] = reals(file.order.sign, count).unpack(file.get(offset, 8 * count))
    if not math.isfinite(sum(values)):  # as none is that has one that is not
        raise NotPlain("odd georeferencing")
    return values


def value_bytes(file: File, entries: Entries, index: int, length: int) -> bytes:
    """Return the bytes of a value, wherever it is."""
    if length > file.order.inline:
        return file.get(entries.offset(index), length)
    return entries.content(index, length)


def text(file: File, entries: Entries, index: int, limit: int = MAX_ARRAY_BYTES) -> str:
    """Return an ASCII value, which is mostly UTF-8; see `readable`."""
    length, offset = entries.place(index)
    if not 1 < length <= limit:
        raise NotPlain("an odd text")
    inside = length <= file.order.inline
    content = entries.content(index, length) if inside else file.get(offset, length)
    if content.find(0) != length - 1 or content[0] in b" \t\r\n":
        raise NotPlain("an odd text")
    return readable(content[:-1])
