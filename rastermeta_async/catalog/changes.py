"""Which files are as they were when they were read: told by size and time of change, or etag.

A file costs one ``stat``. An object costs nothing where a prefix is walked, as the listing says
all that is needed. Given by its URL it is read again: that is one request, and to ask for its
etag would be one, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.file_state import leads_nowhere
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import MISSING
from rastermeta_async.model.row_ops import path_keys
from rastermeta_async.model.urls import Listed, is_url

COLUMNS = ("file_size", "mtime", "error_type", "etag")
"""What a stamp is made of, besides the path."""

_GONE = b"\0gone"
_ANY = b"\0"
_UNKNOWN = b"\0unknown"


class Unchanged:
    """Files that need no reading, as long as they are as they were. In 16 bytes a path."""

    def __init__(self) -> None:
        self._stamps = PathSet()

    def __len__(self) -> int:
        return len(self._stamps)

    def update(self, rows: pa.RecordBatch) -> None:
        """Add rows of a catalog: their paths, with what `COLUMNS` say of them."""
        times = pc.cast(rows.column("mtime"), pa.int64())
        others = (rows.column(name) for name in ("error_type", "etag"))
        columns = (path_keys(rows), rows.column("file_size"), times, *others)
        self._stamps.update(list(map(_stamp, *(column.to_pylist() for column in columns))))

    def changed(self, paths: Sequence[bytes], now: Sequence[bytes | TimeoutError]) -> list[bytes]:
        """Return the paths that are not there, or not as they were, in order.

        Args:
            paths: of files and objects.
            now: what `stamp_of` says of each; an error where it does not tell.
        """
        stamps = [
            path + (stamp if isinstance(stamp, bytes) else _UNKNOWN)
            for path, stamp in zip(paths, now, strict=True)
        ]
        changed = self._stamps.missing(stamps)
        unknown = self._stamps.missing([path + _ANY for path in paths])
        again = {stamp.rpartition(b"\0")[0] for stamp in changed}
        never = {stamp[: -len(_ANY)] for stamp in unknown}
        return [path for path in paths if path in again and path in never]


def _stamp(
    path: bytes, size: int | None, mtime: int | None, error: str | None, etag: str | None
) -> bytes:
    if size is not None and etag is not None:
        return path + _of_object(size, etag)
    if size is not None:
        return path + _of_file(size, mtime or 0)
    return path + (_GONE if error in MISSING else _ANY)


def _of_file(size: int, mtime: int) -> bytes:
    return b"\0%d %d" % (size, mtime)


def _of_object(size: int, etag: str) -> bytes:
    return b"\0%d %b" % (size, etag.strip('"').encode())  # Azure lists it without quotes


def stamp_of(path: bytes) -> bytes:
    """Return what tells whether a file or object is as it was; asks the disk for a file."""
    if isinstance(path, Listed) and not path.size:  # no byte of it was read, so no etag is known
        return _of_file(0, 0)
    if isinstance(path, Listed) and path.etag is not None:
        return _of_object(path.size, path.etag)
    if is_url(path):
        return _UNKNOWN
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return _GONE if leads_nowhere(error) else _UNKNOWN
    return _of_file(status.st_size, status.st_mtime_ns // 1000)
