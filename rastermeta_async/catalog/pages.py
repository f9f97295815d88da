"""What a column of a row group becomes in memory, told by the heads of its pages.

Neither the size of a Parquet file nor what its footer claims tells that: a page of some bytes may
be decompressed to gigabytes, and one text in a dictionary may stand in a million rows. The heads
are what a reader goes by, so what they say is sure.

They are in the compact protocol of Thrift. Whatever the bytes are, reading them ends, and takes no
more memory than the bytes do.

Reference: Apache Parquet, ``parquet.thrift``, "PageHeader"; Apache Thrift, "Thrift compact protocol
encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

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

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_VARINTS = frozenset({I16, I32, I64})
_VARINT_BITS = 64
_MAX_DEPTH = 64
"""Structures in each other; those of Parquet are fewer than ten."""

_DELTA_BYTE_ARRAY = 7
"""``Encoding`` by which a text may repeat the one before it: that has any length in two bytes."""


class ColumnChunk(NamedTuple):
    """A column of a row group."""

    size: int
    """Bytes of its decompressed pages."""
    largest: int
    """Bytes of the largest of them."""
    values: int
    """At the lowest level, nulls included."""
    has_dictionary: bool


def chunk_of(file: IO[bytes], column: Any) -> ColumnChunk:
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
    return ColumnChunk(size, largest, values, has_dictionary)


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
            (number + (head >> 4), head & 15, at + 1)
            if head >> 4
            else _read_field(data, at, number)
        )  # mostly as here: there are many of them
        if kind == I32:
            value, at = data[at], at + 1
            if value > 127:
                value, at = _read_varint(data, at - 1)
                if value > 0xFFFFFFFF:  # readers cut it: it means one thing here, another there
                    raise ValueError("a number of a page has more than 32 bits")
            numbers[number & 0xFFFF] = value >> 1 ^ -(value & 1)
        elif kind == STRUCT and not depth:
            inner[number & 0xFFFF], _, at = _structure(data, at, depth + 1)
        else:
            at = skip(data, at, kind)
    return _Structure(numbers, inner, at + 1)


def _read_field(data: bytes, at: int, before: int) -> tuple[int, int, int]:
    """Return number and kind of the field whose head is at a place, and where its value starts."""
    step, kind = data[at] >> 4, data[at] & 15
    if step:
        return before + step, kind, at + 1
    number, at = _read_varint(data, at + 1)
    return _unzigzag(number), kind, at


def _read_list(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the length and the kind of a list, and where its first element is."""
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _read_varint(data, at)
    if count > len(data):
        raise ValueError("a list is longer than all there is")
    return count, kind, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of 64 bits at most that is at a place, and where it ends."""
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > _VARINT_BITS:
            raise ValueError("a number has more than 64 bits")
    return value | byte << shift, at + 1


def skip(data: bytes, at: int, kind: int, depth: int = 0) -> int:
    """Return where the value that starts at a place ends."""
    if kind in _VARINTS:
        while data[at] > 127:
            at += 1
        return at + 1
    if kind == BINARY:
        length, at = _read_varint(data, at)
        return at + length
    if depth == _MAX_DEPTH:
        raise ValueError("structures are too deep in each other")
    if kind == STRUCT:
        while head := data[at]:
            at += 1
            if not head >> 4:  # the number stands for itself
                at = skip(data, at, I16)
            at = skip(data, at, head & 15, depth + 1)
        return at + 1
    if kind in (LIST, SET):
        count, inner, at = _read_list(data, at)
        if inner in (TRUE, FALSE):  # a byte each, but in a structure
            return at + count
        for _ in range(count):
            at = skip(data, at, inner, depth + 1)
        return at
    if kind in (TRUE, FALSE):
        return at  # it is in the head
    try:
        return at + {BYTE: 1, DOUBLE: 8}[kind]
    except KeyError:
        raise ValueError("a value has a kind that the format lacks") from None  # also a map


def _unzigzag(value: int) -> int:
    """Return a signed number."""
    return value >> 1 ^ -(value & 1)
