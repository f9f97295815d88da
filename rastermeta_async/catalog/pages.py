"""Find how much memory a column of a row group takes, from its page headers.

Neither the size of a Parquet file nor its footer tells this: a page of some bytes may decompress to
gigabytes, and a million rows may have the same text of a dictionary. Readers rely on the page
headers, so what the headers say is reliable.

Page headers use the compact protocol of Thrift. Whatever the bytes are, parsing them ends, and
takes no more memory than the bytes do.

Reference: Apache Parquet, ``parquet.thrift``, "PageHeader"; Apache Thrift, "Thrift compact protocol
encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

_HEAD_BYTES = 512
_LONGEST_HEAD = 1024 * 1024
"""Bytes of a usual page header, and of the largest that is accepted."""

_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
"""``PageType``."""
_TYPE, _SIZE, _STORED_SIZE = 1, 2, 3
_CONTENT = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}
_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}
"""Numbers of fields in ``PageHeader`` and in the structures within it."""

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_VARINTS = frozenset({I16, I32, I64})
_VARINT_BITS = 64
_MAX_DEPTH = 64
"""Limit of nested structures; Parquet nests fewer than ten."""

_DELTA_BYTE_ARRAY = 7
"""``Encoding`` in which a text may repeat the one before: two bytes may mean a text of any size."""


class ColumnChunk(NamedTuple):
    """The size of a column in a row group."""

    size: int
    """Bytes of all decompressed pages."""
    largest: int
    """Bytes of the largest decompressed page."""
    values: int
    """Number of values at the lowest level, including nulls."""
    has_dictionary: bool


def chunk_of(file: IO[bytes], column: Any) -> ColumnChunk:
    """Return the size of a column from its page headers.

    Args:
        file: the Parquet file.
        column: the column's `pq.ColumnChunkMetaData` from the footer.

    Raises:
        ValueError: a header is damaged, or an encoding does not tell the size of its values.
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
    """Yield each page that a reader reads: its type, decompressed bytes, and fields of the type."""
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
    """The parsed fields of a structure."""

    numbers: dict[int, int]
    """I32 fields, by field number."""
    inner: dict[int, dict[int, int]]
    """I32 fields of the structures in it, by field numbers."""
    end: int


def _head(file: IO[bytes], at: int) -> _Structure:
    """Return the header of the page at a position in a file."""
    for most in (_HEAD_BYTES, _LONGEST_HEAD):
        file.seek(at)
        try:
            return _structure(file.read(most), 0)
        except IndexError:  # the header is longer, or the file ends here
            continue
    raise ValueError("the head of a page is damaged")


def _structure(data: bytes, at: int, depth: int = 0) -> _Structure:
    """Return the structure at a position."""
    numbers: dict[int, int] = {}
    inner: dict[int, dict[int, int]] = {}
    number = 0
    while head := data[at]:
        number, kind, at = (
            (number + (head >> 4), head & 15, at + 1)
            if head >> 4
            else _read_field(data, at, number)
        )  # the usual case is inlined, as there are many fields
        if kind == I32:
            value, at = data[at], at + 1
            if value > 127:
                value, at = _read_varint(data, at - 1)
                if value > 0xFFFFFFFF:  # readers truncate it in different ways
                    raise ValueError("a number of a page has more than 32 bits")
            numbers[number & 0xFFFF] = value >> 1 ^ -(value & 1)
        elif kind == STRUCT and not depth:
            inner[number & 0xFFFF], _, at = _structure(data, at, depth + 1)
        else:
            at = skip(data, at, kind)
    return _Structure(numbers, inner, at + 1)


def _read_field(data: bytes, at: int, before: int) -> tuple[int, int, int]:
    """Return the number and kind of the field at a position, and where its value starts."""
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
    """Return the number (at most 64 bits) at a position, and where it ends."""
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
        if shift > _VARINT_BITS:
            raise ValueError("a number has more than 64 bits")
    return value | byte << shift, at + 1


def skip(data: bytes, at: int, kind: int, depth: int = 0) -> int:
    """Return where the value at a position ends."""
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
            if not head >> 4:  # the field number follows the header
                at = skip(data, at, I16)
            at = skip(data, at, head & 15, depth + 1)
        return at + 1
    if kind in (LIST, SET):
        count, inner, at = _read_list(data, at)
        if inner in (TRUE, FALSE):  # one byte each in a list
            return at + count
        for _ in range(count):
            at = skip(data, at, inner, depth + 1)
        return at
    if kind in (TRUE, FALSE):
        return at  # the field header holds the value
    try:
        return at + {BYTE: 1, DOUBLE: 8}[kind]
    except KeyError:
        raise ValueError("a value has a kind that the format lacks") from None  # for MAP, too


def _unzigzag(value: int) -> int:
    """Return the signed number that a zigzag code stands for."""
    return value >> 1 ^ -(value & 1)
