"""Which files are as they were when they were read: told by size and time of change.

A file costs one ``stat``. Objects in stores are read again instead: that is one request, and to
ask for their etag would be one, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.pathset import PathSet
from rastermeta_async.record import MISSING
from rastermeta_async.rows import path_keys

COLUMNS = ("file_size", "mtime", "error_type")
"""What a stamp is made of, besides the path."""

_GONE = b"\0gone"
_ANY = b"\0"


class Unchanged:
    """Files that need no reading, as long as they are as they were. In 16 bytes a path."""

    def __init__(self) -> None:
        self._stamps = PathSet()

    def __len__(self) -> int:
        return len(self._stamps)

    def update(self, rows: pa.RecordBatch) -> None:
        """Add rows of a catalog: their paths, with what `COLUMNS` say of them."""
        times = pc.cast(rows.column("mtime"), pa.int64())
        columns = (path_keys(rows), rows.column("file_size"), times, rows.column("error_type"))
        self._stamps.update(map(_stamp, *(column.to_pylist() for column in columns)))

    def missing(self, paths: Sequence[bytes]) -> list[bytes]:
        """Return the paths that are not there, or not as they were, in order; asks the disk."""
        changed = self._stamps.missing([path + _now(path) for path in paths])
        unknown = self._stamps.missing([path + _ANY for path in paths])
        again = {stamp.rpartition(b"\0")[0] for stamp in changed}
        never = {stamp[: -len(_ANY)] for stamp in unknown}
        return [path for path in paths if path in again and path in never]


def _stamp(path: bytes, size: int | None, mtime: int | None, error: str | None) -> bytes:
    if size is not None:
        return path + b"\0%d %d" % (size, mtime or 0)
    return path + (_GONE if error in MISSING else _ANY)


def _now(path: bytes) -> bytes:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _GONE
    except (OSError, ValueError):
        return b"\0unknown"
    return b"\0%d %d" % (status.st_size, status.st_mtime_ns // 1000)
