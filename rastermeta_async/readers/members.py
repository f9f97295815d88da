"""The reader of archives on disks: one row for each raster inside; other files are another's."""

from __future__ import annotations

import os
import stat

from rastermeta_async.model.file_state import (
    CHANGED,
    TIMES_CHANGED,
    is_unchanged,
    record_time,
    settled,
)
from rastermeta_async.model.record import (
    ARCHIVE_NOT_READ,
    Reading,
    Record,
    as_rows,
    failure,
)
from rastermeta_async.model.urls import is_url
from rastermeta_async.readers.archives.entries import ArchiveError
from rastermeta_async.readers.archives.member_rows import ArchiveSource, read_members
from rastermeta_async.readers.base import Facts, Reader
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.stores.archive_names import KINDS, MemberPath, kind_of

_LONGEST_ENDING = max(map(len, KINDS))
_ENDINGS = tuple(KINDS)


def with_members(reader: Reader, kinds: tuple[str, ...], timeout: float) -> Reader:
    """Return a reader that also reads the members of archives, if it can.

    Args:
        reader: reads all else; one of this package's own.
        kinds: of archives, see `stores.archive_names`; none: archives are files as all others.
        timeout: of one file, in seconds.
    """
    if not isinstance(reader, Router | RasterioReader):
        return reader
    return MembersReader(reader, kinds, timeout)


class MembersReader:
    """Reads archives on disks member by member, and everything else with another reader.

    Args:
        reader: reads everything else, and is asked for the members.
        kinds: of archives.
        timeout: of one file, in seconds.
    """

    def __init__(
        self, reader: Router | RasterioReader, kinds: tuple[str, ...], timeout: float
    ) -> None:
        self._reader = reader
        self._kinds = kinds
        self._timeout = timeout

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._reader.enter()

    def read(self, path: bytes) -> Reading:
        """See `Reader.read`."""
        if not path[-_LONGEST_ENDING:].lower().endswith(_ENDINGS):
            return self._reader.read(path)
        if is_url(path):  # `ObjectReader` reads its members
            return self._reader.read(path)
        kind = kind_of(path)
        if kind not in self._kinds:
            return with_hint(self._reader.read(path), kind)
        return self._read_archive(path)

    def _read_archive(self, path: bytes) -> Reading:
        try:
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return self._reader.read(path)
        try:
            for _ in range(TIMES_CHANGED):
                status = settled(file)
                if not stat.S_ISREG(status.st_mode):
                    return self._reader.read(path)
                rows = self._rows(path, file, status)
                if is_unchanged(status, os.stat(path)):
                    return rows
        except OSError as error:
            return failure(path, "fatal", type(error).__name__, error.strerror or str(error))
        finally:
            os.close(file)
        return failure(path, "fatal", "Changed", CHANGED)

    def _rows(self, path: bytes, file: int, status: os.stat_result) -> Reading:
        source = ArchiveSource(
            path=path,
            facts=Facts(status.st_size, record_time(status)),
            read_at=lambda offset, size: os.pread(file, size, offset),
            decoder=self._reader if isinstance(self._reader, Router) else None,
            open_with_gdal=lambda member: self._open(path, member),
            timeout=self._timeout,
        )
        try:
            return read_members(source) or self._reader.read(path)
        except ArchiveError as error:  # perhaps GDAL knows what it is
            record = self._reader.read(path)
            return record if record.ok else source.failure(error.kind, str(error))

    def _open(self, path: bytes, member: str) -> Record:
        return as_rows(self._reader.read(MemberPath(path, member)))[0]


def with_hint(record: Record, kind: str | None) -> Record:
    """Return the record of an archive whose members are not read, with how to have them read."""
    if record.ok or kind is None or record.error_message is None:
        return record
    hint = f"{record.error_message.rstrip('.')}; what is in it is read with --members {kind}"
    return record._replace(error_type=ARCHIVE_NOT_READ, error_message=hint)
