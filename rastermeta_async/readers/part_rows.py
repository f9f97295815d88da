"""Gives the subdatasets of containers rows of their own, below that of the container."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from rastermeta_async.model.file_state import CHANGED, TIMES_CHANGED, is_unchanged, record_time
from rastermeta_async.model.record import (
    Reading,
    Record,
    as_rows,
    failure,
    rough_bytes,
    words_for_row,
)
from rastermeta_async.model.text import plural
from rastermeta_async.model.urls import is_url
from rastermeta_async.readers.base import TIMEOUTS, Reader, note_progress
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.subdatasets import MAX_PARTS, PartPath
from rastermeta_async.stores.archive_names import MemberPath

MAX_PARTS_BYTES = 16 * 1024 * 1024
"""Approximate bytes of the rows of one path's subdatasets; they are kept, and committed, together.
A NetCDF file repeats its global attributes in each."""

OpenPart = Callable[[PartPath], Record]
"""Returns the record of a subdataset."""

Holding = Callable[[bytes, str], AbstractContextManager[None]]
"""Takes a container and the driver that opens it; see `RasterioReader.holding`."""


def with_subdatasets(reader: Reader, parts: Reader, timeout: float) -> Reader:
    """Return a reader that also gives the rows of subdatasets, if it can.

    Args:
        reader: reads files.
        parts: is asked for the subdatasets; one of this package's own.
        timeout: of one file, in seconds.
    """
    if not isinstance(parts, Router | RasterioReader):
        return reader
    return PartsReader(reader, parts.read, timeout, parts.holding)


def _not_holding(_container: bytes, _driver: str) -> AbstractContextManager[None]:
    return nullcontext()


class PartsReader:
    """Reads files with another reader, and then the subdatasets of those that have any.

    Args:
        reader: reads the files.
        open_part: reads the subdatasets.
        timeout: of one file, in seconds.
        holding: entered while the subdatasets of a container are read.
    """

    def __init__(
        self,
        reader: Reader,
        open_part: OpenPart,
        timeout: float,
        holding: Holding = _not_holding,
    ) -> None:
        self._reader = reader
        self._open_part = open_part
        self._timeout = timeout
        self._holding = holding

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._reader.enter()

    def read(self, path: bytes) -> Reading:
        """See `Reader.read`."""
        if is_url(path):  # `ObjectReader` reads its subdatasets
            return self._reader.read(path)
        for _ in range(TIMES_CHANGED):
            reading = self._reader.read(path)
            if not any(row.subdatasets for row in as_rows(reading)):
                return reading
            try:
                status = os.stat(path)
                first = as_rows(reading)[0]
                if (first.file_size, first.mtime) == (status.st_size, record_time(status)):
                    rows = with_parts(path, reading, self._open_part, self._timeout, self._holding)
                    if is_unchanged(status, os.stat(path)):
                        return rows
            except OSError:  # it is gone: the next read says so
                continue
        return failure(path, "fatal", "Changed", CHANGED)


def with_parts(
    path: bytes,
    reading: Reading,
    open_part: OpenPart,
    timeout: float,
    holding: Holding = _not_holding,
) -> Reading:
    """Return a reading with the rows of all subdatasets, each after the row that names it.

    Args:
        path: that was read.
        reading: its row or rows.
        open_part: reads the subdatasets.
        timeout: of one file, in seconds.
        holding: entered while the subdatasets of a container are read.

    Raises:
        Stopped: the run ends.
    """
    if not any(row.subdatasets for row in as_rows(reading)):
        return reading
    limits = _Limits(time.monotonic() + TIMEOUTS * timeout, f"{TIMEOUTS * timeout:g} s")
    rows: list[Record] = []
    for container in as_rows(reading):
        place = path if container.member is None else MemberPath(path, container.member)
        if container.subdatasets:
            with holding(place, container.driver or ""):
                rows += _rows(place, container, open_part, limits)
        else:
            rows.append(container)
    return rows


class _Limits:
    """What the rows of one path's subdatasets may still take."""

    def __init__(self, until: float, seconds: str) -> None:
        self._until = until
        self._seconds = seconds
        self._parts = MAX_PARTS
        self._bytes = MAX_PARTS_BYTES

    def reached(self) -> str | None:
        """Return why no further one is read; None: it may be read."""
        if self._parts <= 0:
            return f"there are more than {MAX_PARTS:,}"
        if self._bytes <= 0:
            return f"the tags of those before have {MAX_PARTS_BYTES >> 20} MiB"
        if time.monotonic() > self._until:
            return f"those before took more than {self._seconds}"
        return None

    def count(self, row: Record) -> None:
        """Count the row of a subdataset."""
        self._parts -= 1
        self._bytes -= rough_bytes(row)


def _rows(
    place: bytes, container: Record, open_part: OpenPart, limits: _Limits
) -> Iterator[Record]:
    """Yield the rows of a container's subdatasets, after its own."""
    names = sorted(set(container.subdatasets or ()))
    rows: list[Record] = []
    for name in names:
        note_progress()
        if why := limits.reached():
            left = plural(len(names) - len(rows), "row")
            container = _noting(container, f"subdatasets: {left} left out, as {why}")
            break
        row = open_part(PartPath(place, container.driver or "", name))
        limits.count(row)
        rows.append(_completed(row, container, name))
    yield container
    yield from rows


def _completed(row: Record, container: Record, name: str) -> Record:
    """Return the record of a subdataset with what it has from its container."""
    return row._replace(
        filepath=container.filepath, filepath_bytes=container.filepath_bytes,
        member=container.member, subdataset=name, file_size=container.file_size,
        mtime=container.mtime, etag=container.etag,
    )  # fmt: skip


def _noting(record: Record, problem: str) -> Record:
    """Return the record of a file that was read, with a further problem."""
    known = f"{record.error_message}; " if record.error_message else ""
    message = words_for_row(record.filepath, known + problem)
    return record._replace(error_type="PartlyRead", error_message=message)
