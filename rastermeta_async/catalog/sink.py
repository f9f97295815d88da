"""Sinks for batches of rows: Parquet parts on disk, or JSON lines on a stream.

A batch is encoded, then written. Threads may encode batches at once, as this takes most of the
time; only one thread writes, in the order of the log. `write` returns when the rows are as safe as
the sink can make them. The caller then appends the returned `Part` to the checkpoint log.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.checkpoint import Entry, Part
from rastermeta_async.catalog.digest import Digest
from rastermeta_async.catalog.durable import Rights, created, ensure_folder, explained, publish
from rastermeta_async.catalog.formats import ParquetFormat, grouped
from rastermeta_async.catalog.json_rows import to_lines
from rastermeta_async.catalog.names import part_name, part_temporary
from rastermeta_async.model.errors import WriteError
from rastermeta_async.model.row_ops import Counts, counts_of, newest, parted
from rastermeta_async.model.settings import Order
from rastermeta_async.model.streams import ATOMIC_BYTES, has_room, write_all
from rastermeta_async.model.text import json_on_lines

PART_GROUP_ROWS = 2048
PART_GROUP_BYTES = 1024 * 1024
"""Limits of a row group in a part. Merging holds one row group of each part in memory."""


_POLL_SECONDS = 0.2
_STALLED_SECONDS = 1.0
"""Timeout for the reader of a stream that takes nothing, once the run is to end."""


class Encoded(NamedTuple):
    """A batch of rows as bytes, ready to be written."""

    content: bytes | memoryview
    digest: str
    """See `Part`."""
    rows: int
    counts: Counts


class Sink(ABC):
    """Takes batches of rows: tables of `SCHEMA` in any order."""

    @abstractmethod
    def encode(self, rows: pa.Table) -> Encoded:
        """Return rows as what `write` takes; threads may call this at once."""

    @abstractmethod
    def write(self, batch: Encoded) -> Part:
        """Write a batch and return the log's entry for it; only one thread at a time may call this.

        Raises:
            WriteError: the rows may be missing; do not use the sink any more.
        """

    def commit(self, rows: pa.Table) -> Part:
        """Encode and write rows; see `write`."""
        return self.write(self.encode(rows))


class Log(Protocol):
    """Records what was committed."""

    def append(self, entry: Entry) -> None:
        """Write the entry; it is durable when this returns."""
        ...


class PartSink(Sink):
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

    def encode(self, rows: pa.Table) -> Encoded:
        """See `Sink.encode`."""
        batch = newest(rows)
        buffer = pa.BufferOutputStream()
        groups = grouped([batch], PART_GROUP_ROWS, PART_GROUP_BYTES)
        ParquetFormat(passing=True).write(buffer, groups, Order.NONE)
        content = memoryview(buffer.getvalue())
        return Encoded(content, Digest(content).hexdigest(), batch.num_rows, counts_of(batch))

    def write(self, batch: Encoded) -> Part:
        """Write one part: temporary file, footer check, fsync, rename, fsync of the folder."""
        seq = self._seq + 1
        name = part_name(seq)
        path = os.path.join(self._folder, name)
        with explained(path, "writing a part"):
            ensure_folder(self._folder, self._rights)
            temporary = part_temporary(self._folder)
            with created(temporary, self._rights) as file:
                write_all(file.fileno(), batch.content)
                _check_rows(file, path, batch.rows)
            publish(temporary, path)
        self._seq = seq
        counts = batch.counts
        return Part(
            seq, name, batch.rows, counts.failures, len(batch.content), batch.digest,
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


class LineSink(Sink):
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

    def encode(self, rows: pa.Table) -> Encoded:
        """Return the rows in the order given, without those of no rasters."""
        rows, _ = parted(rows)
        lines = "".join(f"{line}\n" for line in to_lines(rows))
        content = (json_on_lines(lines) if os.isatty(self._fd) else lines).encode()
        return Encoded(content, "", rows.num_rows, counts_of(rows))

    def write(self, batch: Encoded) -> Part:
        """Write the lines.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
            WriteError: writing failed, or nobody reads the stream while the run is to end.
        """
        try:
            self._send(batch.content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WriteError(f"standard output: writing failed: {error.strerror}") from error
        self._seq += 1
        return Part(self._seq, "-", batch.rows, batch.counts.failures, len(batch.content), "")

    def _send(self, content: bytes | memoryview) -> None:
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
