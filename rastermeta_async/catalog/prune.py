"""Rows whose files are gone: found by asking the disk, dropped by a note that outlives a crash.

A dropped path is a row of status ``gone`` in a part of its own; sealing leaves it out. Objects in
stores are not asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import pyarrow as pa

from rastermeta_async.errors import PruneError
from rastermeta_async.record import GONE, failure, readable, to_batch
from rastermeta_async.stores.urls import is_url

_SHOWN = 3
"""Folders that a message names."""


def gone(paths: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the local paths that lead to nothing any more."""
    for path in paths:
        if not is_url(path) and _is_gone(path):
            yield path


def check_folders(paths: Iterable[bytes]) -> None:
    """Raise PruneError if whole folders are gone, or empty, as when a disk is not mounted.

    Args:
        paths: of all files; one listing a folder is asked for.
    """
    vanished: set[bytes] = set()
    for path in paths:
        folder = os.path.dirname(path) or b"."
        if not is_url(path) and _is_empty(folder):
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


def _is_gone(path: bytes) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


@lru_cache(4096)
def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it does not answer: that is no proof of anything
        return True
