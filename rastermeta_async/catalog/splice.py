"""Parquet files put together as they are: row groups are copied, only the footer is made anew.

To decode rows and encode them again takes some 10 us a row; a row group that stays as it is may
be copied instead. Its bytes do not depend on where they are; the footer, which says where that
is, is a Thrift structure whose offsets have to be moved. No library of the field does that from
Python.

Reference: Apache Parquet, "File Format" and ``parquet.thrift`` (numbers of the fields).
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import IO, NamedTuple

from rastermeta_async.catalog.compact import (
    LIST,
    STRUCT,
    encoded,
    field_head,
    read_field,
    read_list,
    read_varint,
    skip,
    unzigzag,
    zigzag,
)
from rastermeta_async.catalog.digest import VerifiedFile
from rastermeta_async.catalog.names import SCRATCH_END, SCRATCH_START

MAGIC = b"PAR1"
COPY_BYTES = 512 * 1024
"""At once; larger blocks of memory would be mapped anew each time (see `memory`)."""
_IN_MEMORY = 2 * 1024 * 1024
"""Bytes of the new footer that are not kept in a file."""

_VERSION, _SCHEMA, _ROWS, _GROUPS, _KEY_VALUES, _CREATED_BY, _ORDERS = range(1, 8)
"""Fields of ``FileMetaData``."""


class _Move(Enum):
    """What becomes of a field in another file."""

    SHIFTED = auto()
    """It says where in the file something is."""
    DROPPED = auto()
    """It is not true there, and may be left out."""


_Moves = dict[int, "_Moves | _Move"]

_COLUMN: _Moves = {
    9: _Move.SHIFTED, 10: _Move.SHIFTED, 11: _Move.SHIFTED, 14: _Move.DROPPED, 15: _Move.DROPPED,
}  # fmt: skip
"""``ColumnMetaData``: data, index and dictionary pages. Bloom filters, and the page indexes below,
lie outside of the group and stay behind."""
_CHUNK: _Moves = {2: _Move.SHIFTED, 3: _COLUMN, **dict.fromkeys((4, 5, 6, 7), _Move.DROPPED)}
"""``ColumnChunk``."""
_GROUP: _Moves = {1: _CHUNK, 5: _Move.SHIFTED, 7: _Move.DROPPED}
"""``RowGroup``: its columns, where it is, and its number."""


class Group(NamedTuple):
    """A row group in a file."""

    start: int
    end: int
    """Bytes of the file that it is in."""
    pieces: list[bytes | int]
    """What the footer says of it: bytes, and between them offsets in the file."""


class Footer(NamedTuple):
    """The footer of a Parquet file."""

    fields: dict[int, bytes]
    """Of ``FileMetaData`` as they are encoded, by number."""
    groups: list[Group]

    def is_like(self, other: Footer) -> bool:
        """Tell whether two files have the same columns, written by the same program."""
        same = (_SCHEMA, _CREATED_BY, _ORDERS)
        return all(self.fields.get(number) == other.fields.get(number) for number in same)


def read_footer(file: VerifiedFile | io.BytesIO) -> Footer:
    """Return the footer of an open file.

    Raises:
        ValueError: it is no Parquet file.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    length, magic = struct.unpack("<I4s", file.read(8).rjust(8))
    start = size - 8 - length
    if magic != MAGIC or start < len(MAGIC):
        raise ValueError("no Parquet file")
    file.seek(start)
    try:
        return _footer(file.read(length), start)
    except (IndexError, KeyError) as error:
        raise ValueError("a Parquet file whose footer is damaged") from error


def read_group(file: VerifiedFile | io.BytesIO, group: Group) -> Iterator[bytes]:
    """Yield the bytes of a row group of an open file.

    Raises:
        ValueError: the file ends before the group does.
    """
    file.seek(group.start)
    left = group.end - group.start
    while left:
        content = file.read(min(left, COPY_BYTES))
        if not content:
            raise ValueError("it ends too early")
        yield content
        left -= len(content)


def _footer(content: bytes, end: int) -> Footer:
    fields: dict[int, bytes] = {}
    groups: list[list[bytes | int]] = []
    at = number = 0
    while content[at]:
        number, kind, at = read_field(content, at, number)
        start = at
        if number == _GROUPS:
            count, _, at = read_list(content, at)
            for _ in range(count):
                pieces = _Pieces(content, at)
                groups.append(pieces.of(_GROUP))
                at = pieces.at
        else:
            at = skip(content, at, kind)
            fields[number] = content[start:at]
    return Footer(fields, _placed(groups, end))


def _placed(groups: list[list[bytes | int]], end: int) -> list[Group]:
    """Return groups that follow each other up to a place; one without rows has no pages."""
    placed = []
    for pieces in reversed(groups):
        start = min((piece for piece in pieces if isinstance(piece, int)), default=end)
        placed.append(Group(start, end, pieces))
        end = start
    return placed[::-1]


class _Pieces:
    """A structure, taken apart where something in it is another in another file."""

    def __init__(self, data: bytes, at: int) -> None:
        self.at = at
        """What comes next."""
        self._data = data
        self._begin = at
        self._found: list[bytes | int] = []

    def of(self, moves: _Moves) -> list[bytes | int]:
        """Return the structure that comes next: bytes, and between them the offsets in it."""
        self._structure(moves)
        self._cut(self.at, self.at)
        return self._found

    def _structure(self, moves: _Moves) -> None:
        data = self._data
        number = before = 0
        while data[self.at]:
            head = self.at
            number, kind, at = read_field(data, head, number)
            move = moves.get(number)
            if move is _Move.DROPPED:
                self.at = skip(data, at, kind)
                self._cut(head, self.at)
                continue
            if data[head] >> 4 not in (0, number - before):  # there was one that is dropped
                self._cut(head, at)
                self._found.append(field_head(number, number - before, kind))
            before = number
            self.at = at
            if isinstance(move, dict):
                self._structures(kind, move)
                continue
            self.at = skip(data, at, kind)
            if move is _Move.SHIFTED and (value := read_varint(data, at)[0]):  # 0 is none
                self._cut(at, self.at)
                self._found.append(unzigzag(value))
        self.at += 1

    def _structures(self, kind: int, moves: _Moves) -> None:
        """Go over a structure, or a list of such."""
        count = 1
        if kind == LIST:
            count, _, self.at = read_list(self._data, self.at)
        for _ in range(count):
            self._structure(moves)

    def _cut(self, end: int, begin: int) -> None:
        """Take what there is up to an end; the next bytes begin elsewhere."""
        self._found.append(self._data[self._begin : end])
        self._begin = begin


class Splicer:
    """A Parquet file that is made of row groups of others.

    Args:
        out: takes the bytes.
        like: footer of a file as it is to be, whatever its groups.
        scratch: folder for a file that is gone in the end.
    """

    def __init__(self, out: io.RawIOBase | IO[bytes], like: Footer, scratch: str) -> None:
        self._out = out
        self._like = like
        self._size = 0
        self._write(MAGIC)
        self._groups = 0
        # Some kilobytes a group.
        self._metas = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # see close
            _IN_MEMORY, dir=scratch, prefix=SCRATCH_START, suffix=SCRATCH_END
        )

    def add(self, group: Group, content: Iterable[bytes]) -> None:
        """Add a row group, which has the columns that the file is to have, with its content."""
        by = self._size - group.start
        meta = [
            piece if isinstance(piece, bytes) else encoded(zigzag(piece + by))
            for piece in group.pieces
        ]
        for some in content:
            self._write(some)
        self._metas.write(b"".join(meta))
        self._groups += 1

    def finish(self, rows: int, metadata: Mapping[bytes, bytes]) -> None:
        """Write the footer.

        Args:
            rows: of all groups together.
            metadata: of the file, by key.
        """
        start = self._size
        fields = self._like.fields
        pairs = b"".join(_pair(*item) for item in metadata.items())
        self._write(b"\x15" + fields[_VERSION] + b"\x19" + fields[_SCHEMA])
        self._write(b"\x16" + encoded(zigzag(rows)))
        self._write(b"\x19" + _list_head(self._groups))
        self._metas.seek(0)
        while content := self._metas.read(COPY_BYTES):
            self._write(content)
        self._write(b"\x19" + _list_head(len(metadata)) + pairs)
        self._write(b"\x18" + fields[_CREATED_BY] + b"\x19" + fields[_ORDERS] + b"\0")
        self._write(struct.pack("<I", self._size - start) + MAGIC)

    def close(self) -> None:
        """Remove what is on the disk besides."""
        self._metas.close()

    def _write(self, content: bytes) -> None:
        self._out.write(content)
        self._size += len(content)


def _list_head(count: int) -> bytes:
    """Return the head of a list of structures."""
    return bytes([count << 4 | STRUCT]) if count < 15 else bytes([240 | STRUCT]) + encoded(count)


def _pair(key: bytes, value: bytes) -> bytes:
    """Return a ``KeyValue``."""
    return b"".join(b"\x18" + encoded(len(text)) + text for text in (key, value)) + b"\0"
