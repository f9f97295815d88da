"""Encode the messages between a run and its worker processes, over pipes and shared memory.

The run sends jobs to a worker: a number and paths. The worker sends batches of rows under that
number, and a message when the job is done. Each worker also notes in shared memory which files it
has open, and since when: so the run can find a file that hangs the whole process.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from rastermeta_async.model.settings import Access
from rastermeta_async.model.urls import FoundPath

_JOB = struct.Struct("<II")  # number, bytes that follow
_LENGTH = struct.Struct("<I")
_REPLY = struct.Struct("<BII")  # kind, number, bytes that follow

STOP = 0
"""Number of the job that tells a worker to open no further file."""

STUCK_STATUS = 75
"""Exit status of a worker in which too many files hang; its last line on stderr says so."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told when it is started."""

    parent: int
    """Process id of the run."""
    concurrency: int
    """Files, or requests to stores, that it may read at once."""
    timeout: float
    reader: str
    """``module:function`` that makes the reader from `drivers`."""
    drivers: tuple[str, ...] | None
    """See `Settings.drivers`."""
    access: Access
    """How object stores are reached."""
    open_files: int
    """File descriptor of the memory of `OpenFiles`."""
    slots: int
    """How many files may be open at once."""
    resident: int
    """Resident bytes above which the worker retires."""
    allowance: int
    """Bytes that it may allocate after its start; beyond them allocations fail."""
    cpu: int | None = None
    """CPU that it runs on; None: any."""
    skip_offline: bool = False
    """See `Settings.skip_offline`."""
    gdal_config: tuple[str, ...] = ()
    """See `Settings.gdal_config`."""
    members: tuple[str, ...] = ()
    """See `Settings.members`."""
    subdatasets: bool = False
    """See `Settings.subdatasets`."""

    def as_json(self) -> str:
        """Return the configuration as an argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Return the configuration that an argument holds."""
        fields = json.loads(text)
        drivers = fields.pop("drivers")
        access = Access(**fields.pop("access"))
        for name in ("gdal_config", "members"):
            fields[name] = tuple(fields[name])
        return cls(**fields, access=access, drivers=None if drivers is None else tuple(drivers))


class ReplyKind(IntEnum):
    """Kind of a worker's message."""

    READY = 0
    """It has started."""
    ROWS = 1
    """Rows of a job: an Arrow record batch message of `SCHEMA`."""
    DONE = 2
    """All rows of a job were sent; the content is the worker's new count, see `sidecars.Tally`."""
    RETIRING = 3
    """It takes no further job: it uses too much memory, or files hang in it."""


class Reply(NamedTuple):
    """One message of a worker."""

    kind: ReplyKind
    job: int
    content: bytes


class Stream(Protocol):
    """A source of messages, such as `asyncio.StreamReader`."""

    async def readexactly(self, n: int) -> bytes:
        """Return `n` bytes; raise IncompleteReadError at the end."""
        ...


_FOUND = 1 << 31
"""Bit of the length of a path that was found, see `FoundPath`; a path has at most a mebibyte."""


def encode_job(number: int, paths: Iterable[bytes]) -> bytes:
    """Return the message that hands paths to a worker."""
    body = b"".join(
        _LENGTH.pack(len(path) | _FOUND if isinstance(path, FoundPath) else len(path)) + path
        for path in paths
    )
    return _JOB.pack(number, len(body)) + body


async def read_job(stream: Stream) -> tuple[int, list[bytes]]:
    """Return the next job's number and paths.

    Raises:
        asyncio.IncompleteReadError: there is no further job.
    """
    number, size = _JOB.unpack(await stream.readexactly(_JOB.size))
    body = await stream.readexactly(size)
    paths = []
    at = 0
    while at < size:
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        kind, length = (FoundPath, length ^ _FOUND) if length & _FOUND else (bytes, length)
        paths.append(kind(body[at : at + length]))
        at += length
    return number, paths


def encode_reply(kind: ReplyKind, job: int = 0, content: bytes | memoryview = b"") -> bytes:
    """Return a worker's message."""
    return _REPLY.pack(kind, job, len(content)) + content


async def read_reply(stream: Stream) -> Reply:
    """Return a worker's next message.

    Raises:
        asyncio.IncompleteReadError: the worker has ended.
    """
    kind, job, size = _REPLY.unpack(await stream.readexactly(_REPLY.size))
    return Reply(ReplyKind(kind), job, await stream.readexactly(size))


@dataclass(frozen=True)
class Opening:
    """A file that a worker is reading."""

    mark: int
    since: float
    """`time.monotonic` when it was opened; all processes share this clock."""


class OpenFiles:
    """Shared memory in which a worker notes its open files, one slot a thread."""

    _SLOT = struct.Struct("<dQ")

    def __init__(self, fd: int, slots: int) -> None:
        """Map the memory behind a descriptor; `create` makes some."""
        self.fd = fd
        self._slots = slots
        self._memory = mmap.mmap(fd, self._SLOT.size * slots)

    @classmethod
    def create(cls, slots: int) -> OpenFiles:
        """Return new memory without open files.

        Raises:
            OSError: the system has no room for it.
        """
        # Write the bytes: ftruncate(2) alone succeeds on a full disk, and SIGBUS follows later.
        content = bytes(cls._SLOT.size * slots)
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("rastermeta-open-files")
            os.write(fd, content)
            return cls(fd, slots)
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            return cls(os.dup(file.fileno()), slots)

    def opened(self, slot: int, path: bytes) -> None:
        """Note that the slot's thread starts to read a file."""
        self._SLOT.pack_into(self._memory, slot * self._SLOT.size, time.monotonic(), mark_of(path))

    def closed(self, slot: int) -> None:
        """Note that the slot's file was read."""
        self._SLOT.pack_into(self._memory, slot * self._SLOT.size, 0.0, 0)

    def forget(self, path: bytes) -> None:
        """Note that a file was given up, though a thread still hangs in it."""
        mark = mark_of(path)
        for slot in range(self._slots):
            if self._SLOT.unpack_from(self._memory, slot * self._SLOT.size)[1] == mark:
                self.closed(slot)

    def openings(self) -> Sequence[Opening]:
        """Return the files that are being read now."""
        found = self._SLOT.iter_unpack(self._memory[:])
        return [Opening(mark, since) for since, mark in found if since]

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
        os.close(self.fd)


def mark_of(path: bytes) -> int:
    """Return a 64-bit number for a path, distinct among the few hundred open files."""
    return zlib.crc32(path) << 32 | zlib.adler32(path)
