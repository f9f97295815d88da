"""What a run and its worker processes say to each other, over pipes and one page of memory.

Towards a worker go jobs: paths under a number. Back come batches of rows under that number,
and word that the job is done. Besides, each worker notes in shared memory which file it has
open since when, so that a file that hangs the whole process can be told.
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

_JOB = struct.Struct("<II")  # number, bytes that follow
_LENGTH = struct.Struct("<I")
_REPLY = struct.Struct("<BII")  # kind, number, bytes that follow

STOP = 0
"""Number of the job that asks a worker to open no further file."""

STUCK_STATUS = 75
"""Exit status of a worker in which too many files hang; its last words say so."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told when it is started."""

    parent: int
    """Its process."""
    concurrency: int
    """Files that it may read, or requests that it may have under way, at once."""
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
    """Bytes in memory above which the worker retires."""
    allowance: int
    """Bytes that it may take on top of what it starts with; beyond them allocations fail."""
    cpu: int | None = None
    """CPU that it keeps to; None: any."""
    skip_offline: bool = False
    """See `Settings.skip_offline`."""
    gdal_config: tuple[str, ...] = ()
    """See `Settings.gdal_config`."""

    def as_json(self) -> str:
        """Return the configuration as an argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Return the configuration that an argument holds."""
        fields = json.loads(text)
        drivers = fields.pop("drivers")
        access = Access(**fields.pop("access"))
        fields["gdal_config"] = tuple(fields["gdal_config"])
        return cls(**fields, access=access, drivers=None if drivers is None else tuple(drivers))


class ReplyKind(IntEnum):
    """What a worker says."""

    READY = 0
    """It has started."""
    ROWS = 1
    """Rows of a job: an Arrow record batch message of `SCHEMA`."""
    DONE = 2
    """All rows of a job were sent; with what the worker has counted meanwhile, see `tally`."""
    RETIRING = 3
    """It wants no further job: it has grown, or files hang in it."""


class Reply(NamedTuple):
    """One message of a worker."""

    kind: ReplyKind
    job: int
    content: bytes


class Stream(Protocol):
    """Where messages are read from, as `asyncio.StreamReader` has it."""

    async def readexactly(self, n: int) -> bytes:
        """Return `n` bytes; IncompleteReadError at the end."""
        ...


def encode_job(number: int, paths: Iterable[bytes]) -> bytes:
    """Return the message that hands paths to a worker."""
    body = b"".join(_LENGTH.pack(len(path)) + path for path in paths)
    return _JOB.pack(number, len(body)) + body


async def read_job(stream: Stream) -> tuple[int, list[bytes]]:
    """Return the next job's number and paths.

    Raises:
        asyncio.IncompleteReadError: there is none any more.
    """
    number, size = _JOB.unpack(await stream.readexactly(_JOB.size))
    body = await stream.readexactly(size)
    paths = []
    at = 0
    while at < size:
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        paths.append(body[at : at + length])
        at += length
    return number, paths


def encode_reply(kind: ReplyKind, job: int = 0, content: bytes | memoryview = b"") -> bytes:
    """Return a worker's message."""
    return _REPLY.pack(kind, job, len(content)) + content


async def read_reply(stream: Stream) -> Reply:
    """Return a worker's next message.

    Raises:
        asyncio.IncompleteReadError: it has ended.
    """
    kind, job, size = _REPLY.unpack(await stream.readexactly(_REPLY.size))
    return Reply(ReplyKind(kind), job, await stream.readexactly(size))


@dataclass(frozen=True)
class Opening:
    """A file that a worker is reading."""

    mark: int
    since: float
    """`time.monotonic` when it was opened; the same clock in all processes."""


class OpenFiles:
    """Shared memory in which a worker notes the files that it has open, one slot a thread."""

    _SLOT = struct.Struct("<dQ")

    def __init__(self, fd: int, slots: int) -> None:
        """Map the memory behind a descriptor; `create` makes some."""
        self.fd = fd
        self._slots = slots
        self._memory = mmap.mmap(fd, self._SLOT.size * slots)

    @classmethod
    def create(cls, slots: int) -> OpenFiles:
        """Return new memory, in which no file is open.

        Raises:
            OSError: the system has no room for it.
        """
        # Written, not only made longer: on a full disk that is an error here, and no signal later.
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
        """Note that a file is being read from now on."""
        self._SLOT.pack_into(self._memory, slot * self._SLOT.size, time.monotonic(), mark_of(path))

    def closed(self, slot: int) -> None:
        """Note that the slot's file was read."""
        self._SLOT.pack_into(self._memory, slot * self._SLOT.size, 0.0, 0)

    def forget(self, path: bytes) -> None:
        """Note that a file is waited for no longer, though a thread still hangs in it."""
        mark = mark_of(path)
        for slot in range(self._slots):
            if self._SLOT.unpack_from(self._memory, slot * self._SLOT.size)[1] == mark:
                self.closed(slot)

    def openings(self) -> Sequence[Opening]:
        """Return what is being read now."""
        found = self._SLOT.iter_unpack(self._memory[:])
        return [Opening(mark, since) for since, mark in found if since]

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
        os.close(self.fd)


def mark_of(path: bytes) -> int:
    """Return the 64-bit number that stands for a path among the some hundred that are open."""
    return zlib.crc32(path) << 32 | zlib.adler32(path)
