"""Rows that have had their day: found by asking the disk, dropped by a note that outlives a crash.

A dropped path is a row of status ``gone`` in a part of its own; sealing leaves it out. Objects in
stores are not asked for.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TypeVar

import pyarrow as pa

from rastermeta_async.errors import PruneError
from rastermeta_async.patience import within
from rastermeta_async.record import GONE, failure, readable, to_batch
from rastermeta_async.urls import is_url

T = TypeVar("T")

_SHOWN = 3
"""Folders that a message names."""

_PATHS_AT_ONCE = 256
_FOLDERS = 4096
"""Folders that are remembered while they are looked at."""


def gone(rows: Iterable[tuple[bytes, bool]], patience: float) -> Iterator[bytes]:
    """Yield the local paths whose rows have had their day.

    They lead to nothing any more, or they are folders that could not be listed and now can be.

    Args:
        rows: paths, and whether what was there could not be read.
        patience: seconds that the disk may take to answer.

    Raises:
        PruneError: it has not answered in time.
    """
    local = (row for row in rows if not is_url(row[0]))
    while some := list(itertools.islice(local, _PATHS_AT_ONCE)):
        yield from _answered(patience, some[0][0], partial(_gone_of, some))


def check_folders(paths: Iterable[bytes], patience: float) -> None:
    """Raise PruneError if whole folders are gone, or empty, as when a disk is not mounted.

    Args:
        paths: of all files; one listing a folder is asked for.
        patience: seconds that a folder may take to answer.
    """
    is_empty = lru_cache(_FOLDERS)(lambda name: _answered(patience, name, partial(_is_empty, name)))
    vanished: set[bytes] = set()
    for path in paths:
        folder = os.path.dirname(path) or b"."
        if not is_url(path) and is_empty(folder):
            vanished.add(folder)
            if len(vanished) == _SHOWN:
                break
    if vanished:
        names = ", ".join(readable(os.fsdecode(folder)) for folder in sorted(vanished))
        raise PruneError(
            f"no row was dropped: whole folders are gone or empty, e.g. {names}. Is a disk not "
            "mounted? If they are to go, give --prune-folders, too."
        )


def tombstones(paths: Sequence[bytes]) -> pa.Table:
    """Return rows that take the place of those of these paths until the next sealing."""
    rows = [failure(path, GONE, "Gone", "the file is gone") for path in paths]
    return pa.Table.from_batches([to_batch(rows)])


def _answered(patience: float, path: bytes, question: Callable[[], T]) -> T:
    try:
        return within(patience, question)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PruneError(
            f"no row was dropped: {readable(os.fsdecode(path))} cannot be looked at: {reason}. "
            "Mend the disk or mount, and run the same command again."
        ) from error


def _gone_of(rows: Sequence[tuple[bytes, bool]]) -> list[bytes]:
    return [path for path, unreadable in rows if _is_gone(path, unreadable)]


def _is_gone(path: bytes, unreadable: bool) -> bool:
    try:
        if unreadable and stat.S_ISDIR(os.stat(path).st_mode):
            os.scandir(path).close()
            return True
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:  # it is there
        return False
