"""SQLite files, such as GeoPackage and MBTiles: whether they are complete, how to open them.

Reference: SQLite, "Database File Format", sections 1.2, 1.3 and 3.
"""

from __future__ import annotations

import os

_SQLITE = b"SQLite format 3\0"
_PAGE_BYTES = 512
"""Smallest page of a database."""
_WRITE_AHEAD = b"\2\2"
"""Bytes 18 and 19 (0-based) of a database that writes its changes into a write-ahead log."""
_HOT_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""First bytes of a journal that must be played back; a journal that is only kept begins with 0."""

UNFINISHED = (
    "there are changes in a file next to it, -wal or -journal, that are not in it yet: close the "
    "program that writes it, or open and close it with one that may write, and read it again"
)
"""Message in the row of an incomplete database."""


def database_options(path: bytes, size: int) -> dict[str, str] | None:
    """Return options with which GDAL opens a file so that SQLite writes nothing.

    None: another file holds changes. To read them, SQLite would write them into the database;
    without them, the content is outdated.

    Args:
        path: of any file.
        size: of the file, in bytes.
    """
    if size % _PAGE_BYTES:  # no database; on a remote disk it takes long to read each file
        return {}
    begin = _first_bytes(path, 20)
    if not begin.startswith(_SQLITE):
        return {}
    path = os.path.realpath(path)  # the other file is next to the database, not to a link
    journal = _first_bytes(path + b"-journal", len(_HOT_JOURNAL))
    if journal == _HOT_JOURNAL or _first_bytes(path + b"-wal", 1):
        return None
    return {"IMMUTABLE": "YES"} if begin.endswith(_WRITE_AHEAD) else {}


def _first_bytes(path: bytes, count: int) -> bytes:
    """Return the first bytes of a file; none if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(file, count)
    except OSError:
        return b""
    finally:
        os.close(file)
