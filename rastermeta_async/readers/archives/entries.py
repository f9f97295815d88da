"""What an archive holds: its members, and what all kinds of archives have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rastermeta_async.model.record import readable
from rastermeta_async.readers.base import ReadAt, Unsupported

MAX_MEMBERS = 10_000
"""Members that are looked at in one archive."""

MAX_UNPACKED = 1024 * 1024 * 1024
"""Bytes of a compressed member that GDAL may have to unpack to read its header."""


class ArchiveError(Exception):
    """An archive cannot be read; the message says why, without its name."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Error type of its row."""


class MemberContent(Protocol):
    """The bytes of a member."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes; see `ReadAt`.

        Raises:
            Unsupported: they are too far from the beginning of compressed bytes, or damaged.
        """
        ...


@dataclass(frozen=True)
class ArchiveEntry:
    """A member of an archive."""

    name: str
    """Its name as GDAL has it: without ``./`` at its beginning, and with slashes."""
    size: int
    """Bytes, unpacked."""
    open: Callable[[], MemberContent] | None
    """Returns its bytes, without those that were read before; None: only GDAL can unpack them."""
    to_unpack: int = 0
    """Bytes that GDAL may have to unpack to read its header."""
    problem: ArchiveError | None = None
    """Why nothing can read it."""


class Archive(Protocol):
    """An open archive."""

    knows_all: bool
    """Whether `entries` yields all members; GDAL looks at all before it opens one."""

    def entries(self) -> Iterator[ArchiveEntry]:
        """Yield the members that are files, in the order of the archive, `MAX_MEMBERS` at most.

        Of a compressed archive, an entry can only be opened before the next one is asked for.

        Raises:
            ArchiveError: the archive is damaged, or no such archive.
        """
        ...


_LONGEST_NAME = 65_535
"""Characters of a name, as many as a ZIP archive may have."""


def plain_name(name: str) -> tuple[str, ArchiveError | None]:
    """Return a member's name as GDAL has it, and what is wrong with it."""
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    shown = readable(name).replace("\0", r"\x00")
    if shown == name and len(name) <= _LONGEST_NAME:
        return name, None
    message = "its name is too long, not UTF-8, or has a NUL byte: unpack it"
    return shown[:_LONGEST_NAME], ArchiveError("InvalidName", message)


class StoredContent:
    """Bytes of an archive that are stored as they are.

    Args:
        read_at: returns bytes of the archive.
        start: offset of the first byte.
        size: number of bytes.
    """

    def __init__(self, read_at: ReadAt, start: int, size: int) -> None:
        self._read_at = read_at
        self._start = start
        self._size = size

    def read_at(self, offset: int, size: int) -> bytes:
        """See `MemberContent.read_at`."""
        size = min(size, self._size - offset)
        return self._read_at(self._start + offset, size) if size > 0 else b""


class HeadContent:
    """The first bytes of a member; others cannot be read.

    Args:
        head: the first bytes.
        size: bytes of the member.
    """

    def __init__(self, head: bytes, size: int) -> None:
        self._head = head
        self._size = size

    def read_at(self, offset: int, size: int) -> bytes:
        """See `MemberContent.read_at`."""
        return taken(self._head, self._size, offset, size)


def taken(head: bytes, whole: int, offset: int, size: int) -> bytes:
    """Return bytes of something `whole` bytes long of which only the first bytes are at hand."""
    end = min(offset + size, whole)
    if end > len(head):
        raise Unsupported("far from the beginning of compressed bytes")
    return head[offset:end]
