"""Sinks for batches of rows: Parquet parts on disk, or JSON lines on a stream.

A sink's `commit` returns when the rows are as safe as the sink can make them. The caller then
appends the returned `Part` to the checkpoint log. Two threads must not use a sink at once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.checkpoint import Entry, Part
from rastermeta_async.catalog.digest import Digest
from rastermeta_async.catalog.durable import Rights, created, ensure_folder, explained, publish
from rastermeta_async.catalog.formats import ParquetFormat, grouped
from rastermeta_async.catalog.json_rows import to_lines
from rastermeta_async.catalog.names import part_name, part_temporary
from rastermeta_async.model.errors import WriteError
from rastermeta_async.model.row_ops import counts_of, newest, parted
from rastermeta_async.model.settings import Order
from rastermeta_async.model.streams import ATOMIC_BYTES, has_room, write_all
from rastermeta_async.model.text import json_on_lines

PART_GROUP_ROWS = 2048
PART_GROUP_BYTES = 1024 * 1024
"""Limits of a row group in a part. Merging holds one row group of each part in memory."""


_POLL_SECONDS = 0.2
_STALLED_SECONDS = 1.0
"""Timeout for the reader of a stream that takes nothing, once the run is to end."""


class Sink(Protocol):
    """Takes batches of rows."""

    def commit(self, rows: pa.Table) -> Part:
        """Write `rows` (a table of `SCHEMA`, any order) and return the log's entry for them.

        Raises:
            WriteError: the rows may be missing; do not use the sink any more.
        """
        ...


class Log(Protocol):
    """Records what was committed."""

    def append(self, entry: Entry) -> None:
        """Write the entry; it is durable when this returns."""
        ...


class PartSink:
    """Writes each batch as one Parquet file, sorted by path; makes the folder if it is missing.

    Args:
        folder: of the files.
        last_seq: number of the last existing part.
        rights: of the parts; None: the default rights of a new file.
    """

    def __init__(
        self,
        folder: str,
        last_seq: int = 0,
        *,
        rights: Rights | None = None,
    ) -> None:
        self._folder = folder
        self._seq = last_seq
        self._rights = rights
        self._format = ParquetFormat(passing=True)

    def commit(self, rows: pa.Table) -> Part:
        """Write one part: temporary file, footer check, fsync, rename, fsync of the folder."""
        batch = newest(rows)
        buffer = pa.BufferOutputStream()
        self._format.write(buffer, grouped([batch], PART_GROUP_ROWS, PART_GROUP_BYTES), Order.NONE)
        content = memoryview(buffer.getvalue())
        seq = self._seq + 1
        name = part_name(seq)
        path = os.path.join(self._folder, name)
        with explained(path, "writing a part"):
            ensure_folder(self._folder, self._rights)
            temporary = part_temporary(self._folder)
            with created(temporary, self._rights) as file:
                write_all(file.fileno(), content)
                _check_rows(file, path, batch.num_rows)
            publish(temporary, path)
        self._seq = seq
        digest = Digest(content).hexdigest()
        counts = counts_of(batch)
        return Part(
            seq, name, batch.num_rows, counts.failures, len(content), digest,
            sidecars=counts.sidecars, others=counts.others,
        )  # fmt: skip


def _check_rows(file: IO[bytes], path: str, expected: int) -> None:
    try:
        found = pq.read_metadata(file).num_rows
    except pa.ArrowInvalid:
        found = "nothing that can be read"
    if found != expected:
        raise WriteError(
            f"{path}: wrote {expected} rows but the file says {found}: the disk or memory is "
            "faulty. What was committed before is safe; run the same command again to go on."
        )


class LineSink:
    """Writes each batch as JSON lines to an open file descriptor.

    A pipe cannot be synced or resumed, as its reader has taken what was written.

    Args:
        fd: the file descriptor; a write to it may block until its reader takes the bytes.
        stopping: returns whether the run is to end; then a reader that takes nothing is given up.
    """

    def __init__(self, fd: int, stopping: Callable[[], bool] = lambda: False) -> None:
        self._fd = fd
        self._stopping = stopping
        self._seq = 0

    def commit(self, rows: pa.Table) -> Part:
        """Write the rows in the order given, without those of no rasters.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
            WriteError: writing failed, or nobody reads the stream while the run is to end.
        """
        rows, _ = parted(rows)
        lines = "".join(f"{line}\n" for line in to_lines(rows))
        content = (json_on_lines(lines) if os.isatty(self._fd) else lines).encode()
        try:
            self._write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WriteError(f"standard output: writing failed: {error.strerror}") from error
        self._seq += 1
        return Part(self._seq, "-", rows.num_rows, counts_of(rows).failures, len(content), "")

    def _write(self, content: bytes) -> None:
        if os.path.isfile(self._fd):  # writing to a file needs no reader
            write_all(self._fd, content)
            return
        written, last = 0, time.monotonic()
        while written < len(content):
            if has_room(self._fd, _POLL_SECONDS):
                with contextlib.suppress(BlockingIOError):  # the other end may set O_NONBLOCK
                    written += os.write(self._fd, content[written : written + ATOMIC_BYTES])
                last = time.monotonic()
            elif self._stopping() and time.monotonic() - last > _STALLED_SECONDS:
                raise WriteError("standard output: nobody reads it, so the run ends without it")


class NoLog:
    """The log of a stream: records nothing, as a stream cannot be resumed."""

    def append(self, entry: Entry) -> None:
        """Do nothing."""
