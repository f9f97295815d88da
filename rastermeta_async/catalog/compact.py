"""The compact protocol of Thrift, which the footers and the heads of pages of Parquet are in.

Of bytes that make no sense nothing is believed: what is read ends, and takes no more memory than
the bytes do.

Reference: Apache Thrift, "Thrift compact protocol encoding".
"""

from __future__ import annotations

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_VARINTS = frozenset({I16, I32, I64})
_VARINT_BITS = 64
_MAX_DEPTH = 64
"""Structures in each other; those of Parquet are fewer than ten."""


def read_field(data: bytes, at: int, before: int) -> tuple[int, int, int]:
    """Return number and kind of the field whose head is at a place, and where its value starts."""
    step, kind = data[at] >> 4, data[at] & 15
    if step:
        return before + step, kind, at + 1
    number, at = read_varint(data, at + 1)
    return unzigzag(number), kind, at


def read_list(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the length and the kind of a list, and where its first element is."""
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = read_varint(data, at)
    if count > len(data):
        raise ValueError("a list is longer than all there is")
    return count, kind, at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
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
        length, at = read_varint(data, at)
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
        count, inner, at = read_list(data, at)
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


def encoded(value: int) -> bytes:
    """Return a number as it is written."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def unzigzag(value: int) -> int:
    """Return a signed number."""
    return value >> 1 ^ -(value & 1)


def zigzag(value: int) -> int:
    """Return a signed number as one that is not."""
    return value << 1 ^ value >> 63


def field_head(number: int, step: int, kind: int) -> bytes:
    """Return the head of a field."""
    return bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + encoded(zigzag(number))
