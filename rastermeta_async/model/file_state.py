"""Ask the system about a file's state.

Is it unchanged while it is read, is its content on disk or on tape, does its path lead to nothing?
"""

from __future__ import annotations

import codecs
import datetime as dt
import errno
import os
import re
import stat
import time
from operator import attrgetter

from rastermeta_async.model.record import Record, failure
from rastermeta_async.model.urls import LOCAL_SCHEME, SCHEMES

TICK_SECONDS = 0.02
"""Two ticks of the slowest usual clock (100 Hz)."""

TIMES_CHANGED = 3
"""Number of reads of a file that changes during each read."""

CHANGED = "it was changed each time that it was read: a program writes it"


def settled(file: int | bytes) -> os.stat_result:
    """Return a file's status after a clock tick, so that a later change gets another time.

    Args:
        file: its path, or a descriptor that has it open.
    """
    status = os.stat(file)
    if 0 <= time.time() - status.st_ctime < TICK_SECONDS:
        time.sleep(TICK_SECONDS)
        status = os.stat(file)
    return status


def is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether two statuses are of the same file in the same state."""
    return _version(before) == _version(after)


_version = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def record_time(status: os.stat_result) -> dt.datetime | None:
    """Return the time of a file's last change; None if a datetime cannot hold it."""
    return time_of(status.st_mtime_ns)


def time_of(nanoseconds: int) -> dt.datetime | None:
    """Return the time so long after 1970, to the microsecond; None if a datetime cannot hold it."""
    try:
        return _EPOCH + dt.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


_MESSAGE = (
    "the content is not on disk, and to read it would have it recalled; once it is there, run the "
    "same command again with --retry-failed"
)


def offline_row(path: bytes) -> Record | None:
    """Return the row of a file that has a size but no blocks (stat(2)); None: it may be read.

    If stat(2) fails, the result is None, too: the reader reports the error.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    is_away = stat.S_ISREG(status.st_mode) and status.st_size and not status.st_blocks
    return failure(path, "error", "Offline", _MESSAGE) if is_away else None


_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://")
_ONE_SLASH = re.compile(rb"(?:s3|gs|az|https?):/(?!/)", re.IGNORECASE)
_WILDCARD = re.compile(rb"[*?]|\[.+\]")
_FIELDS = re.compile(rb"[,;\t]")
MAX_FIELDS = 16
"""Number of fields of a table's line that are tested."""

_HEADINGS = frozenset(
    b"file filename filepath file_name file_path href location name path paths uri url".split()
)
"""Names of the column of paths in tables, in lower case."""


def leads_nowhere(error: Exception) -> bool:
    """Tell whether an error of a call with a path means that there is no such file.

    Python raises ValueError for a name with a NUL byte. After any other error (no permission, no
    answer, an I/O error) there may be a file.
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return True
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def likely_mistake(path: bytes) -> str:
    """Return why a path may lead to nothing, and what to give instead; empty: unknown.

    For a path that looks like a line of a table, or is in quotes, this asks the disk whether a part
    of it exists.
    """
    if path.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _is_utf_16(path):
        return "is the list UTF-16, as PowerShell writes it? Convert it: iconv -f UTF-16 -t UTF-8"
    if b"\0" in path:
        return "the name holds a NUL byte; are the paths NUL-separated? then give -0"
    if b"\n" in path:
        return "the name holds a line break; are the paths one a line? then leave out -0"
    if path.endswith(b"\r"):
        return "the name ends in a carriage return: is the list from Windows?"
    if path.startswith(codecs.BOM_UTF8):
        return "the name begins with a byte order mark: is the list from Windows?"
    return _of_url(path) or _of_shell(path) or _of_table(path)


def _is_utf_16(path: bytes) -> bool:
    """Whether every other byte is NUL, as in UTF-16 for Latin letters."""
    return len(path) > 4 and (not any(path[:40:2]) or not any(path[1:40:2]))


def _of_url(path: bytes) -> str:
    if _ONE_SLASH.match(path):
        return "a URL has two slashes after the colon"
    if path.startswith(b"/vsi"):
        return "GDAL's own names are no paths: give the file, or the URL of the object"
    if not (found := _SCHEME.match(path)):
        return ""
    scheme = found[1].decode()
    if f"{scheme.lower()}://".encode() in SCHEMES:
        return f"write the scheme in lower case: {scheme.lower()}://"
    if scheme.lower() == LOCAL_SCHEME:
        return "this names a file of another machine: give the path under which it is mounted here"
    known = [known.decode().removesuffix("://") for known in SCHEMES]
    return f"{scheme} is none of the schemes that are read: {', '.join([*known, LOCAL_SCHEME])}"


def _of_shell(path: bytes) -> str:
    if path.startswith((b"~", b"$")):
        sign = path[:1].decode()
        return f"the shell did not expand the {sign}, as in quotes: write the path out"
    if _WILDCARD.search(path):
        return (
            "the shell did not expand the wildcard, as it is in quotes or fits no file: leave out "
            "the quotes, or give the folder and --suffix"
        )
    return ""


def _is_of_column(field: bytes) -> bool:
    """Whether a field may belong to a column of paths."""
    return field.lower() in _HEADINGS or (b"\0" not in field and os.path.isfile(field))


def _of_table(path: bytes) -> str:
    first, *others = (field.strip(b" \"'") for field in _FIELDS.split(path, MAX_FIELDS))
    if any(others) and any(map(_is_of_column, (first, *others))):
        return (
            "the line has several fields: is the list a table (CSV)? Give its column of paths "
            "alone, without the heading, e.g. tail -n +2 table.csv | cut -d, -f1"
        )
    if path.strip(b" \"'").lower() in _HEADINGS:
        return "is this the heading of a table? Leave it out"
    if first != path and not any(others) and os.path.exists(first):
        return "a file has this name without the blanks or quotes around it: leave them out"
    return ""
