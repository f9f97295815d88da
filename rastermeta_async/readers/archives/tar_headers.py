"""Goes through the headers of a tar archive, which may be compressed."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, cast

from rastermeta_async.readers.archives.deflated import MAX_HEAD_BYTES, UnpackedStream
from rastermeta_async.readers.archives.entries import (
    MAX_MEMBERS,
    ArchiveEntry,
    ArchiveError,
    HeadContent,
    MemberContent,
    StoredContent,
    plain_name,
)
from rastermeta_async.readers.base import HEAD_BYTES, ReadAt, Unsupported

MAX_STREAM_BYTES = 64 * 1024 * 1024 * 1024
"""Bytes of a compressed archive that are unpacked to find its members."""

_MAX_READ = 1024 * 1024
"""Most bytes of one read: of a header with long names."""

_AHEAD_BYTES = HEAD_BYTES + 4 * tarfile.BLOCKSIZE
"""Bytes of a read: those of a header, with a long name if need be, and of the head after it."""

_MAX_HEADERS = 2 * MAX_MEMBERS
"""Headers that are looked at, also of folders and links."""


class TarArchive:
    """The members of a tar archive.

    Args:
        read_at: returns bytes of the archive.
        size: of the archive.
        packed: whether it is compressed with gzip.
        on_block: called for each header, and from time to time while it is unpacked.
    """

    def __init__(
        self, read_at: ReadAt, size: int, *, packed: bool, on_block: Callable[[], None]
    ) -> None:
        stream = UnpackedStream(read_at, size, MAX_STREAM_BYTES, on_block)
        self._read_at = stream.read_at if packed else _Ahead(read_at).read_at
        self._packed = packed
        self._on_block = on_block
        self.knows_all = True

    def entries(self) -> Iterator[ArchiveEntry]:
        """See `Archive.entries`."""
        count = headers = 0
        try:
            file = _Forwards(self._read_at)
            with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:") as archive:
                while (header := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps all
                    self._on_block()
                    headers += 1
                    if count == MAX_MEMBERS or headers == _MAX_HEADERS:
                        self.knows_all = False
                        return
                    if header.isreg():
                        count += 1
                        yield self._entry(header)
                # `tarfile` takes a damaged header for the end; at a real end there are zeros.
                if self._read_at(archive.offset, tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("a header in it is damaged or cut off")
        except (tarfile.TarError, zlib.error, EOFError, ValueError, RecursionError) as error:
            raise _damaged(str(error)) from error

    def _entry(self, header: tarfile.TarInfo) -> ArchiveEntry:
        name, problem = plain_name(header.name)
        if header.sparse is not None:
            problem = ArchiveError("SparseMember", "it is stored without its zeros: unpack it")
        if problem:
            return ArchiveEntry(name, header.size, None, problem=problem)
        start, size = header.offset_data, header.size
        to_unpack = start + size if self._packed else 0
        return ArchiveEntry(name, size, partial(self._content, start, size), to_unpack)

    def _content(self, start: int, size: int) -> MemberContent:
        if not self._packed:
            return StoredContent(self._read_at, start, size)
        try:
            return HeadContent(self._read_at(start, min(size, MAX_HEAD_BYTES)), size)
        except EOFError as error:
            raise Unsupported(str(error)) from error


def _damaged(what: str) -> ArchiveError:
    return ArchiveError("DamagedArchive", f"this is no tar archive, or a damaged one: {what}")


class _Ahead:
    """Reads a header together with the first bytes of its member, as a store takes long to answer.

    Args:
        read_at: returns bytes of the archive.
    """

    def __init__(self, read_at: ReadAt) -> None:
        self._archive = read_at
        self._window = b""
        self._start = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """See `ReadAt`."""
        at = offset - self._start
        if at < 0 or at + size > len(self._window):
            if size > _AHEAD_BYTES:
                return self._archive(offset, size)
            self._window, self._start = self._archive(offset, _AHEAD_BYTES), offset
            at = 0
        return self._window[at : at + size]


class _Forwards:
    """What `tarfile` needs of a file."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            tarfile.ReadError: they are more than a header can have.
        """
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        content = self._read_at(self._at, size)
        self._at += len(content)
        return content

    def seek(self, offset: int) -> int:
        """Go to an offset."""
        self._at = offset
        return offset

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._at
