"""Rows that have had their day: found by asking the disk, dropped by a note that outlives a crash.

A dropped path is a row of status ``gone`` in a part of its own; sealing leaves it out. Objects in
stores are not asked for.
"""

from __future__ import annotations

import itertools
import os
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


def gone(paths: Iterable[bytes], patience: float) -> Iterator[bytes]:
    """Yield the local paths that lead to nothing any more.

    Raises:
        PruneError: the disk has not answered within `patience` seconds.
    """
    local = (path for path in paths if not is_url(path))
    while some := list(itertools.islice(local, _PATHS_AT_ONCE)):
        yield from _answered(patience, some[0], partial(_gone_of, some))


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


def mended(folders: Iterable[bytes], patience: float) -> Iterator[bytes]:
    """Yield those of some folders that could not be listed that can be now.

    Raises:
        PruneError: see `gone`.
    """
    for folder in folders:
        if not is_url(folder) and _answered(patience, folder, partial(_is_listable, folder)):
            yield folder


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


def _gone_of(paths: Sequence[bytes]) -> list[bytes]:
    return [path for path in paths if _is_gone(path)]


def _is_gone(path: bytes) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _is_listable(path: bytes) -> bool:
    try:
        os.scandir(path).close()
    except (OSError, ValueError):
        return False
    return True


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:  # it is there
        return False
