"""What a column of a row group becomes in memory, told by the heads of its pages.

Neither the size of a Parquet file nor what its footer claims tells that: a page of some bytes may
be decompressed to gigabytes, and one text in a dictionary may stand in a million rows. The heads
are what a reader goes by, so what they say is sure.

Reference: Apache Parquet, ``parquet.thrift``, "PageHeader".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from rastermeta_async.catalog.compact import I32, STRUCT, read_field, read_varint, skip

_HEAD_BYTES = 512
_LONGEST_HEAD = 1024 * 1024
"""Bytes of a head of a page: of a usual one, and of any."""

_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
"""``PageType``."""
_TYPE, _SIZE, _STORED_SIZE = 1, 2, 3
_CONTENT = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}
_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}
"""Fields of ``PageHeader`` and of what it holds."""

_DELTA_BYTE_ARRAY = 7
"""``Encoding`` by which a text may repeat the one before it: that has any length in two bytes."""


class Chunk(NamedTuple):
    """A column of a row group."""

    size: int
    """Bytes of its decompressed pages."""
    largest: int
    """Bytes of the largest of them."""
    values: int
    """At the lowest level, nulls included."""
    has_dictionary: bool


def chunk_of(file: IO[bytes], column: Any) -> Chunk:
    """Return what the heads of a column's pages say.

    Args:
        file: the Parquet file.
        column: what its footer says of the column, a `pq.ColumnChunkMetaData`.

    Raises:
        ValueError: they make no sense, or there is an encoding whose size nothing tells.
    """
    size = largest = values = 0
    has_dictionary = False
    for kind, page, content in _heads(file, column):
        largest = max(largest, page)
        size += page
        count = content.get(_VALUES, 0)
        if content.get(_ENCODING.get(kind, 0)) == _DELTA_BYTE_ARRAY:
            raise ValueError("texts that repeat others (DELTA_BYTE_ARRAY) are not read")
        if not 0 <= count <= (page if kind == _DICTIONARY else count):
            raise ValueError("a page is damaged")
        if kind == _DICTIONARY:
            has_dictionary = True
        else:
            values += count
    return Chunk(size, largest, values, has_dictionary)


def _heads(file: IO[bytes], column: Any) -> Iterator[tuple[int, int, dict[int, int]]]:
    """Yield kind, bytes and what is in it of each page that a reader comes to."""
    at = column.data_page_offset
    first = column.dictionary_page_offset
    if first is not None and 0 < first < at:
        at = first
    end = at + column.total_compressed_size
    left = column.num_values
    while left > 0 and at < end:
        head = _head(file, at)
        number = head.numbers.get
        kind, size, stored = number(_TYPE, -1), number(_SIZE, -1), number(_STORED_SIZE, -1)
        if min(kind, size, stored) < 0:
            raise ValueError("the head of a page is damaged")
        content = head.inner.get(_CONTENT.get(kind, 0), {})
        yield kind, size, content
        if kind != _DICTIONARY:
            left -= content.get(_VALUES, 0)
        at += head.end + stored


class _Structure(NamedTuple):
    """What is read of a structure."""

    numbers: dict[int, int]
    """Its fields of 32 bits."""
    inner: dict[int, dict[int, int]]
    """Those of the structures in it."""
    end: int


def _head(file: IO[bytes], at: int) -> _Structure:
    """Return the head of the page that is at a place in a file."""
    for most in (_HEAD_BYTES, _LONGEST_HEAD):
        file.seek(at)
        try:
            return _structure(file.read(most), 0)
        except IndexError:  # there is more of it, or of the file there is no more
            continue
    raise ValueError("the head of a page is damaged")


def _structure(data: bytes, at: int, depth: int = 0) -> _Structure:
    """Return the structure that is at a place."""
    numbers: dict[int, int] = {}
    inner: dict[int, dict[int, int]] = {}
    number = 0
    while head := data[at]:
        number, kind, at = (
            (number + (head >> 4), head & 15, at + 1) if head >> 4 else read_field(data, at, number)
        )  # mostly as here: there are many of them
        if kind == I32:
            value, at = data[at], at + 1
            if value > 127:
                value, at = read_varint(data, at - 1)
                if value > 0xFFFFFFFF:  # readers cut it: it means one thing here, another there
                    raise ValueError("a number of a page has more than 32 bits")
            numbers[number & 0xFFFF] = value >> 1 ^ -(value & 1)
        elif kind == STRUCT and not depth:
            inner[number & 0xFFFF], _, at = _structure(data, at, depth + 1)
        else:
            at = skip(data, at, kind)
    return _Structure(numbers, inner, at + 1)
