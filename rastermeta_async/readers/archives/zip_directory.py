"""Reads the directory of a ZIP archive, as far as a bounded number of members goes.

`zipfile` makes objects of a whole directory, which takes a gigabyte for 10^6 members.

Reference: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", sections 4.3.7, 4.3.12 to 4.3.16,
4.4.4, 4.5.3 and appendix D.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from rastermeta_async.readers.archives.deflated import RAW, DeflatedContent
from rastermeta_async.readers.archives.entries import (
    MAX_MEMBERS,
    ArchiveEntry,
    ArchiveError,
    MemberContent,
    StoredContent,
    plain_name,
)
from rastermeta_async.readers.base import HEAD_BYTES, ReadAt, Unsupported

TAIL_BYTES = 64 * 1024 + 22
"""Bytes at the end of an archive, in which its directory ends: 22 and a comment."""

MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
"""Longest directory that is read; GDAL keeps each in memory for as long as its process lives."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_ENCRYPTED, _UTF8 = 0x1, 0x800
_STORED, _DEFLATED = 0, 8
_ZIP64_EXTRA = 1
_FULL = 0xFFFFFFFF

_EXTRA_BYTES = 256
"""Room for the further fields of a local header in the same read as the head of its member."""


class _Directory(NamedTuple):
    """Where the directory is."""

    start: int
    size: int
    members: int
    """Their number, as the archive says."""
    before: int
    """Bytes before the archive, such as a program that unpacks it."""


class ZipArchive:
    """The members of a ZIP archive.

    Args:
        read_at: returns bytes of the archive.
        size: of the archive.

    Raises:
        ArchiveError: it is no such archive, or its directory is too long.
    """

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        self._size = size
        start = max(0, size - TAIL_BYTES)
        self._tail, self._tail_at = read_at(start, size - start), start
        self._directory = self._found()
        if self._directory.size > MAX_DIRECTORY_BYTES:
            raise ArchiveError(
                "TooManyMembers",
                f"it has {self._directory.members:,} members, and their directory "
                f"{self._directory.size:,} bytes; {MAX_DIRECTORY_BYTES:,} are read: unpack it",
            )
        self.knows_all = True

    def entries(self) -> Iterator[ArchiveEntry]:
        """See `Archive.entries`."""
        directory = self._directory
        content = self._bytes(directory.start, directory.size)
        at = count = 0
        while at + _ENTRY.size <= len(content) and count < MAX_MEMBERS:
            fields = _ENTRY.unpack_from(content, at)
            if fields[0] != b"PK\1\2":
                raise _damaged("its directory is not one")
            names = at + _ENTRY.size
            name_bytes, extra_bytes, comment_bytes = fields[10:13]
            at = names + name_bytes + extra_bytes + comment_bytes
            if at > len(content):
                raise _damaged("its directory is cut off")
            name = content[names : names + name_bytes]
            extra = content[names + name_bytes : names + name_bytes + extra_bytes]
            if name and not name.endswith((b"/", b"\\")):
                count += 1
                yield self._entry(name, fields, extra)
        self.knows_all = at + _ENTRY.size > len(content)

    def _found(self) -> _Directory:
        at = self._tail.rfind(b"PK\5\6")
        if at < 0 or at + _END.size > len(self._tail):
            raise _damaged("it has no directory")
        fields = _END.unpack_from(self._tail, at)
        count, size, offset = fields[4:7]
        end = self._tail_at + at
        # Some programs write the record of 64 bits also where it is not needed.
        end, count, size, offset = self._in_64_bits(end) or (end, count, size, offset)
        start = end - size
        if start < 0 or offset > start:
            raise _damaged("its directory lies outside of it")
        return _Directory(start, size, count, start - offset)

    def _in_64_bits(self, end: int) -> tuple[int, int, int, int] | None:
        """Return where the directory ends, the number of members, and its size and offset."""
        at = end - _LOCATOR.size
        if at < 0:
            return None
        sign, _, _, _ = _LOCATOR.unpack(self._bytes(at, _LOCATOR.size))
        at -= _END_64.size  # the record is right before its locator
        if sign != b"PK\6\7" or at < 0:
            return None
        fields = _END_64.unpack(self._bytes(at, _END_64.size))
        if fields[0] != b"PK\6\6":
            raise _damaged("its directory is not where it should be")
        return at, fields[7], fields[8], fields[9]

    def _bytes(self, start: int, size: int) -> bytes:
        """Return bytes of the archive, if possible from its tail.

        Raises:
            ArchiveError: the archive is shorter.
        """
        if start >= self._tail_at:
            content = self._tail[start - self._tail_at : start - self._tail_at + size]
        else:
            content = self._read_at(start, size)
        if len(content) < size:
            raise _damaged("it is cut off")
        return content

    def _entry(self, raw: bytes, fields: tuple[int, ...], extra: bytes) -> ArchiveEntry:
        flags, method, packed_size, size, start = (fields[at] for at in (3, 4, 8, 9, 16))
        sizes = _sizes_64(extra, size, packed_size, start)
        if sizes is None:
            raise _damaged("sizes are missing in its directory")
        size, packed_size, start = sizes
        name, problem = plain_name(_name(raw, is_utf8=bool(flags & _UTF8)))
        content: Callable[[], MemberContent] | None = None
        if flags & _ENCRYPTED:
            problem = ArchiveError("Encrypted", "it is encrypted: unpack it with its password")
        elif method in (_STORED, _DEFLATED):
            begin = self._directory.before + start
            content = partial(_Member, self._read_at, begin, packed_size, size, method)
        to_unpack = 0 if method == _STORED else size
        return ArchiveEntry(name, size, content, to_unpack, problem)


def _sizes_64(extra: bytes, *values: int) -> tuple[int, ...] | None:
    """Return values, those beyond 32 bits from an extra field; None: it lacks them."""
    if _FULL not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA:
            field = extra[at + 4 : at + 4 + length]
            numbers = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            found = [next(numbers, None) if value == _FULL else value for value in values]
            return None if None in found else tuple(one for one in found if one is not None)
        at += 4 + length
    return None


def _name(raw: bytes, *, is_utf8: bool) -> str:
    """Return a name as GDAL does, which takes names without a mark for those of DOS."""
    try:
        return raw.decode("utf-8" if is_utf8 else "cp437")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace")


def _damaged(what: str) -> ArchiveError:
    return ArchiveError("DamagedArchive", f"this is no ZIP archive, or a damaged one: {what}")


class _Member:
    """The bytes of a member; one read of the archive gives its local header and its head."""

    def __init__(
        self, read_at: ReadAt, start: int, packed_size: int, size: int, method: int
    ) -> None:
        self._archive = read_at
        self._start = start
        self._packed_size = packed_size
        self._size = size
        self._method = method
        self._content: MemberContent | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        """See `MemberContent.read_at`."""
        self._content = self._content or self._opened()
        return self._content.read_at(offset, size)

    def _opened(self) -> MemberContent:
        first = min(self._packed_size, HEAD_BYTES) + _LOCAL.size + _EXTRA_BYTES
        head = self._archive(self._start, first)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            raise Unsupported("its local header is damaged")
        name_bytes, extra_bytes = _LOCAL.unpack_from(head)[-2:]
        data = _LOCAL.size + name_bytes + extra_bytes
        start = self._start + data
        first_bytes = head[data:]

        def packed(offset: int, size: int) -> bytes:
            size = max(0, min(size, self._packed_size - offset))
            if offset + size <= len(first_bytes):
                return first_bytes[offset : offset + size]
            return self._archive(start + offset, size)

        if self._method == _STORED:
            return StoredContent(packed, 0, self._size)
        return DeflatedContent(packed, self._packed_size, self._size, RAW)
