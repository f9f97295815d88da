"""Files of netCDF and HDF5 are opened one at a time in a process.

GDAL has one mutex for these libraries. rasterio closes a file while it holds Python's lock, and
GDAL hands an error to Python's logging while it holds the mutex: two threads may then wait for each
other for ever. The libraries read files one after another anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from rastermeta_async.model.urls import is_url
from rastermeta_async.readers.base import note_progress
from rastermeta_async.readers.subdatasets import PartPath
from rastermeta_async.stores.archive_names import MemberPath

_ENDINGS = (
    b".nc", b".nc3", b".nc4", b".cdf", b".h5", b".hdf", b".hdf4", b".hdf5", b".he2", b".he4",
    b".he5", b".bag", b".kea", b".grd", b".s102", b".s104", b".s111",
)  # fmt: skip
"""Endings of files that the libraries open."""

_DRIVERS = ("netCDF", "HDF", "BAG", "KEA", "S10", "S111")
"""What the names of drivers that use them begin with."""

_SECONDS = 1.0


class _Turns:
    """A lock, and how often it was taken."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.taken = 0


_TURNS = _Turns()


@contextmanager
def turn_of(path: bytes) -> Iterator[None]:
    """Wait until no other thread has a file of these libraries open, if they open this path.

    The time of a file that waits does not run while others are read, one after another. It does
    run while one of them hangs.

    Raises:
        Stopped: see `note_progress`.
    """
    if not _takes_turns(path):
        yield
        return
    seen = -1
    while not _TURNS.lock.acquire(timeout=_SECONDS):
        if _TURNS.taken != seen:
            seen = _TURNS.taken
            note_progress()
    _TURNS.taken += 1
    try:
        yield
    finally:
        _TURNS.lock.release()


def _takes_turns(path: bytes) -> bool:
    if isinstance(path, PartPath):
        return path.driver.startswith(_DRIVERS)
    name = os.fsencode(path.member) if isinstance(path, MemberPath) else bytes(path)
    if is_url(name):
        name = name.partition(b"?")[0]
    return name.lower().endswith(_ENDINGS)
