"""Files of SQLite, as GeoPackage and MBTiles are: which are written to the end, how to open them.

Reference: SQLite, "Database File Format", sections 1.2, 1.3 and 3.
"""

from __future__ import annotations

import os

_SQLITE = b"SQLite format 3\0"
_PAGE_BYTES = 512
"""Of a database, at the least."""
_WRITE_AHEAD = b"\2\2"
"""What follows two bytes later where a database has its changes written into a log."""
_HOT_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""First bytes of a journal that is to be played back; one that is only kept begins with zeros."""

UNFINISHED = (
    "there are changes in a file next to it, -wal or -journal, that are not in it yet: close the "
    "program that writes it, or open and close it with one that may write, and read it again"
)
"""What the row of a database says that is not written to the end."""


def database_options(path: bytes, size: int) -> dict[str, str] | None:
    """Return with which options GDAL opens a file, so that SQLite writes nothing.

    None where there are changes in another file: to read them SQLite would write them into the
    database; without them it says what was.

    Args:
        path: of any file.
        size: of it, in bytes.
    """
    if size % _PAGE_BYTES:  # no database: on a far disk, to look at each file takes long
        return {}
    begin = _first_bytes(path, 20)
    if not begin.startswith(_SQLITE):
        return {}
    path = os.path.realpath(path)  # the other file is where the database itself is
    journal = _first_bytes(path + b"-journal", len(_HOT_JOURNAL))
    if journal == _HOT_JOURNAL or _first_bytes(path + b"-wal", 1):
        return None
    return {"IMMUTABLE": "YES"} if begin.endswith(_WRITE_AHEAD) else {}


def _first_bytes(path: bytes, count: int) -> bytes:
    """Return how a file begins; nothing where there is none."""
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
