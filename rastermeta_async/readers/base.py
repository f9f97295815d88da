"""Protocols of readers and decoders of headers, and the arguments that decoders take."""

from __future__ import annotations

import datetime as dt
import importlib
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from rastermeta_async.model.errors import StuckError
from rastermeta_async.model.record import Reading, Record
from rastermeta_async.model.settings import MAX_STUCK, Access
from rastermeta_async.model.urls import is_url, without_secrets

ReadAt = Callable[[int, int], bytes]
"""Takes (offset, size); returns so many bytes from the offset, fewer only at the file's end."""

FOREIGN = "not recognized as being in a supported file format"
"""What GDAL says of a file that no driver knows."""

TIMEOUTS = 10
"""Members of an archive, and subdatasets of a container, have the timeout of a file each, but all
together only so many times as long."""

HEAD_BYTES = 16 * 1024
"""Bytes that the first read of a file takes; most headers fit into them."""


class Reader(Protocol):
    """Reads one header at a time; safe to use from several threads."""

    def enter(self) -> None:
        """Prepare the current thread, once, to make rows of records; `read` does so itself.

        This costs memory and time, so threads that only decode headers do not call it.
        """
        ...

    def read(self, path: bytes) -> Reading:
        """Return the row of a path, or its rows; they also tell what is wrong with the file.

        Raises:
            Stopped: the reader was asked to stop first.
        """
        ...


class Facts(NamedTuple):
    """What is known about a file or object besides its content."""

    size: int
    """Bytes."""
    mtime: dt.datetime | None
    """Last change."""
    etag: str | None = None
    has_world_file: bool = False
    """Whether a file next to it can tell where it lies; this counts only if its header does not."""


class Unsupported(Exception):  # noqa: N818  # a finding, not an error
    """Another decoder, or rasterio, has to read the file; the message gives the reason."""


class UnreadableError(Exception):
    """The bytes of a file or object cannot be had; it is no fault of a decoder."""


class Foreign(Unsupported):
    """The first bytes are of another format; the message names the decoder's own format."""


class Unplaced(Unsupported):
    """Only the file next to a raster (`Facts.has_world_file`) tells where the raster lies."""


class HeaderDecoder(Protocol):
    """Makes a record from the bytes of one format; safe to use from several threads."""

    def decode(
        self,
        path: bytes,
        facts: Facts,
        head: bytes,
        read_at: ReadAt,
        reference: Record | None = None,
    ) -> Record:
        """Return the record of a file or object, equal to the record that rasterio gives.

        Args:
            path: the path in the record; the file need not exist.
            facts: what is known besides the content.
            head: the first `HEAD_BYTES` of the content, or all of it if it is shorter.
            read_at: returns further bytes; its exceptions are passed on.
            reference: rasterio's record of this very file, which the result is going to be
                compared with; None: the decoder itself asks rasterio for what it needs.

        Raises:
            Unsupported: the decoder does not know such files. Bytes of any kind raise nothing
                else, and cost bounded time and memory.
            StoreError: the disk has no room for a temporary file that the decoder needs.
        """
        ...


class _Watchers(threading.local):
    """Who watches how long the files of this thread take."""

    def __init__(self) -> None:
        self.of_thread: dict[str, Callable[[], None]] = {}


_WATCHERS = _Watchers()


def watch_progress(who: str, on_progress: Callable[[], None]) -> None:
    """Have a function called in this thread whenever a part of a long file was read.

    Args:
        who: names the function, of which there is one at a time.
        on_progress: starts the timeout of the file anew; may raise `Stopped`.
    """
    _WATCHERS.of_thread[who] = on_progress


def note_progress() -> None:
    """Note that this thread's file goes on, as with each member of an archive.

    Raises:
        Stopped: the run ends, or has given the file up.
    """
    for on_progress in _WATCHERS.of_thread.values():
        on_progress()


def check_stuck(stuck: int, path: bytes) -> None:
    """Check that a run can go on while `stuck` of its reads hang, the last one at `path`.

    Raises:
        StuckError: more than `MAX_STUCK` reads hang.
    """
    if stuck > MAX_STUCK:
        what = "a store" if is_url(path) else "a disk or mount"
        raise StuckError(
            f"{stuck} header reads hang, the last one in {without_secrets(path)!r}: {what} does "
            "not answer. What was committed is safe; mend it, then run the same command again to "
            "go on."
        )


def load_reader(
    where: str, drivers: Sequence[str] | None, access: Access, gdal_config: Sequence[str] = ()
) -> Reader:
    """Return the reader made by the function at `where` (``module:function``)."""
    module, _, function = where.partition(":")
    make = getattr(importlib.import_module(module), function)
    reader: Reader = make(drivers, access, gdal_config)
    return reader
