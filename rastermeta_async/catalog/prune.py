"""Rows of no file: found by asking the disk, dropped by a note that outlives a crash.

A dropped path is a row of status ``gone`` in a part of its own; sealing leaves it out. Objects in
stores are not asked for.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

import pyarrow as pa

from rastermeta_async.errors import PruneError
from rastermeta_async.missing import leads_nowhere
from rastermeta_async.patience import within
from rastermeta_async.record import GONE, failure, readable, to_batch
from rastermeta_async.urls import is_url

T = TypeVar("T")


class Seen(NamedTuple):
    """A path, and what was there when it was read."""

    path: bytes
    there: bool
    """Whether there was anything."""
    given: bool
    """Whether it is still asked for, so that its row stays where it says what is wrong."""


_SHOWN = 3
"""Folders that a message names."""

_PATHS_AT_ONCE = 256
_FOLDERS = 4096
"""Folders that are remembered while they are looked at."""


def gone(rows: Iterable[Seen], patience: float) -> Iterator[bytes]:
    """Yield the local paths whose rows are of no file.

    They lead to nothing, or to folders that can be listed: the files below these have rows.

    Args:
        rows: what is in the catalog.
        patience: seconds that the disk may take to answer.

    Raises:
        PruneError: it has not answered in time.
    """
    local = (row for row in rows if not is_url(row.path))
    while some := list(itertools.islice(local, _PATHS_AT_ONCE)):
        yield from _answered(patience, some[0].path, partial(_gone_of, some))


def check_folders(rows: Iterable[Seen], patience: float) -> None:
    """Raise PruneError if whole folders are gone, or empty, as when a disk is not mounted.

    Args:
        rows: what is in the catalog; one listing a folder is asked for.
        patience: seconds that a folder may take to answer.
    """
    is_empty = lru_cache(_FOLDERS)(lambda name: _answered(patience, name, partial(_is_empty, name)))
    vanished: set[bytes] = set()
    for path in (row.path for row in rows if row.there):
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


def _gone_of(rows: Sequence[Seen]) -> list[bytes]:
    return [row.path for row in rows if _is_gone(row)]


def _is_gone(row: Seen) -> bool:
    try:
        if not stat.S_ISDIR(os.stat(row.path).st_mode) or row.given:
            return False
        os.scandir(row.path).close()
    except (OSError, ValueError) as error:
        return leads_nowhere(error) and (row.there or not row.given)
    return True


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:  # it is there
        return False
