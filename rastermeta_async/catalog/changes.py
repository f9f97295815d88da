"""Find the files that have changed since they were read, by size and mtime, or by etag.

A check costs one ``stat`` for a file. It is free for an object from the listing of a prefix, as
the listing has size and etag. An object given by its URL is read again: reading costs one request,
and so would asking for its etag.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.file_state import leads_nowhere
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.raster_folders import folder_time
from rastermeta_async.model.record import MISSING
from rastermeta_async.model.row_ops import path_keys
from rastermeta_async.model.urls import Listed, is_url

COLUMNS = ("file_size", "mtime", "error_type", "etag")
"""Columns that a stamp is made of, besides the path."""

_GONE = b"\0gone"
_ANY = b"\0"
_UNKNOWN = b"\0unknown"


class Unchanged:
    """A set of files with their state when they were read; takes 16 bytes a path."""

    def __init__(self) -> None:
        self._stamps = PathSet()

    def __len__(self) -> int:
        return len(self._stamps)

    def update(self, rows: pa.RecordBatch) -> None:
        """Add rows of a catalog: their paths, with the state that `COLUMNS` hold."""
        times = pc.cast(rows.column("mtime"), pa.int64())
        others = (rows.column(name) for name in ("error_type", "etag"))
        columns = (path_keys(rows), rows.column("file_size"), times, *others)
        self._stamps.update(list(map(_stamp, *(column.to_pylist() for column in columns))))

    def changed(self, paths: Sequence[bytes], now: Sequence[bytes | TimeoutError]) -> list[bytes]:
        """Return the paths that are not in the set, or that have changed, in order.

        Args:
            paths: of files and objects.
            now: the result of `stamp_of` for each; an error if it has not answered.
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
    if mtime is not None:
        return path + _of_folder(mtime)
    return path + (_GONE if error in MISSING else _ANY)


def _of_file(size: int, mtime: int) -> bytes:
    return b"\0%d %d" % (size, mtime)


def _of_folder(mtime: int) -> bytes:
    return b"\0folder %d" % mtime


def _of_object(size: int, etag: str) -> bytes:
    return b"\0%d %b" % (size, etag.strip('"').encode())  # Azure lists etags without quotes


def stamp_of(path: bytes) -> bytes:
    """Return the current state of a file or object; costs one ``stat`` for a file."""
    if isinstance(path, Listed) and not path.size:  # no byte was read, so its row has no etag
        return _of_file(0, 0)
    if isinstance(path, Listed) and path.etag is not None:
        return _of_object(path.size, path.etag)
    if is_url(path):
        return _UNKNOWN
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return _of_folder(folder_time(path) // 1000)
    except (OSError, ValueError) as error:
        return _GONE if leads_nowhere(error) else _UNKNOWN
    return _of_file(status.st_size, status.st_mtime_ns // 1000)
