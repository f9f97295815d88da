"""A single file that is compressed with gzip, as an archive with one member.

Reference: RFC 1952.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from rastermeta_async.readers.archives.deflated import GZIP, DeflatedContent
from rastermeta_async.readers.archives.entries import ArchiveEntry, ArchiveError, plain_name
from rastermeta_async.readers.base import ReadAt

_LEAST_BYTES = 18
"""Those of the header and of the trailer."""


class GzipFile:
    """The member of a gzip file.

    Args:
        path: of the file; its name without the last ending is that of the member.
        read_at: returns bytes of the file.
        size: of the file.
    """

    knows_all = True

    def __init__(self, path: bytes, read_at: ReadAt, size: int) -> None:
        self._name = os.fsdecode(path.rpartition(b"/")[2].rpartition(b".")[0])
        self._read_at = read_at
        self._size = size

    def entries(self) -> Iterator[ArchiveEntry]:
        """See `Archive.entries`."""
        if self._size < _LEAST_BYTES or self._read_at(0, 2) != b"\x1f\x8b":
            raise ArchiveError("DamagedArchive", "this is no gzip file, or a damaged one")
        # The trailer has the size modulo 2^32, of the last of several files in one.
        size = int.from_bytes(self._read_at(self._size - 4, 4), "little")
        name, problem = plain_name(self._name)
        content = partial(DeflatedContent, self._read_at, self._size, size, GZIP)
        yield ArchiveEntry(name, size, content, max(size, self._size), problem)
