"""What reads headers: the Protocols of a reader and of a decoder, and what decoders are given."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from rastermeta_async.model.errors import StuckError
from rastermeta_async.model.record import Record
from rastermeta_async.model.settings import MAX_STUCK, Access
from rastermeta_async.model.urls import is_url, without_secrets

ReadAt = Callable[[int, int], bytes]
"""Returns bytes of a file from an offset on, fewer only at its end: (offset, size)."""

HEAD_BYTES = 16 * 1024
"""How much of a file is read at first; most headers lie therein."""


class Reader(Protocol):
    """Reads one header at a time; safe to use from several threads."""

    def enter(self) -> None:
        """Prepare the current thread to make rows of records, unless it was; `read` does so itself.

        It takes memory and time, so threads that only decode headers go without.
        """
        ...

    def read(self, path: bytes) -> Record:
        """Return the record of a path; whatever is wrong with the file is in the record.

        Raises:
            Stopped: it was asked to stop before that.
        """
        ...


class Facts(NamedTuple):
    """What is known of a file or object besides its content."""

    size: int
    """Bytes."""
    mtime: dt.datetime | None
    """Last change."""
    etag: str | None = None
    has_world_file: bool = False
    """Whether a file next to it tells where it lies, unless it does so itself."""


class Unsupported(Exception):  # noqa: N818  # a finding, not an error
    """The file is to be read by another decoder, or rasterio; the message is the reason."""


class Unplaced(Unsupported):
    """Only the file next to it (`Facts.has_world_file`) tells where a raster lies."""


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
        """Return the record of a file or object, the very one that rasterio gives.

        Args:
            path: what the record names; it need not be there.
            facts: what is known besides the content.
            head: the first `HEAD_BYTES`, or all there are.
            read_at: returns further bytes; what it raises is passed on.
            reference: what rasterio says of this very file, which the record is going to be
                compared with; None: the decoder itself finds out what it has to know of rasterio.

        Raises:
            Unsupported: the decoder does not know such files. No other exception is raised,
                whatever the bytes are, and the time and memory that they cost are bounded.
            StoreError: there is no room for what it has to find out.
        """
        ...


def check_stuck(stuck: int, path: bytes) -> None:
    """Check that a run may go on of which so many reads hang, the last one of them in a path.

    Raises:
        StuckError: there are too many.
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
    """Return the reader that the function at `where`, ``module:function``, makes."""
    module, _, function = where.partition(":")
    make = getattr(importlib.import_module(module), function)
    reader: Reader = make(drivers, access, gdal_config)
    return reader
