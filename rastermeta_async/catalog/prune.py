"""Rows of no file: found by asking the disk, dropped by a note that outlives a crash.

A dropped path is a row of status ``gone`` in a part of its own; sealing leaves it out. Objects in
stores are not asked for.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from rastermeta_async.model.errors import PruneError
from rastermeta_async.model.file_state import leads_nowhere
from rastermeta_async.model.record import GONE, failure, readable, to_batch
from rastermeta_async.model.timeouts import BATCH, answers
from rastermeta_async.model.urls import is_url


class Seen(NamedTuple):
    """A path, and what was there when it was read."""

    path: bytes
    there: bool
    """Whether there was anything."""
    given: bool
    """Whether it is still asked for, so that its row stays where it says what is wrong."""


_SHOWN = 3
"""Folders that a message names."""

_FOLDERS = 4096
"""Folders that are remembered, so that they are looked at once."""


def gone(rows: Iterable[Seen], timeout: float) -> Iterator[bytes]:
    """Yield the local paths whose rows are of no file.

    They lead to nothing, or to folders that can be listed: the files below these have rows.

    Args:
        rows: what is in the catalog.
        timeout: seconds that the disk may take to tell of a path.

    Raises:
        PruneError: it has not answered in time.
    """
    local = (row for row in rows if not is_url(row.path))
    while some := list(itertools.islice(local, BATCH)):
        paths = [row.path for row in some]
        are_gone = _answered(paths, answers(timeout, _is_gone, some))
        yield from itertools.compress(paths, are_gone)


def check_folders(rows: Iterable[Seen], timeout: float) -> None:
    """Raise PruneError if whole folders are gone, or empty, as when a disk is not mounted.

    Args:
        rows: what is in the catalog; one listing a folder is asked for.
        timeout: seconds that a folder may take to answer.
    """
    local = (row.path for row in rows if row.there and not is_url(row.path))
    folders = _first_of_each(os.path.dirname(path) or b"." for path in local)
    vanished: list[bytes] = []
    while len(vanished) < _SHOWN and (some := list(itertools.islice(folders, BATCH))):
        are_empty = _answered(some, answers(timeout, _is_empty, some))
        vanished += itertools.compress(some, are_empty)
    if vanished:
        names = ", ".join(readable(os.fsdecode(folder)) for folder in sorted(vanished[:_SHOWN]))
        raise PruneError(
            f"no row was dropped: whole folders are gone or empty, e.g. {names}. Is a disk not "
            "mounted? If they are to go, give --prune-folders, too."
        )


def tombstones(paths: Sequence[bytes]) -> pa.Table:
    """Return rows that take the place of those of these paths until the next sealing."""
    rows = [failure(path, GONE, "Gone", "the file is gone") for path in paths]
    return pa.Table.from_batches([to_batch(rows)])


def _first_of_each(folders: Iterable[bytes]) -> Iterator[bytes]:
    """Yield folders without those that were among the latest."""
    latest: set[bytes] = set()
    for folder in folders:
        if folder not in latest:
            if len(latest) == _FOLDERS:
                latest.clear()
            latest.add(folder)
            yield folder


def _answered(paths: Sequence[bytes], found: Sequence[bool | OSError]) -> list[bool]:
    """Return what was found of some paths, if all of them could be looked at."""
    told = [answer for answer in found if isinstance(answer, bool)]
    if len(told) == len(paths):
        return told
    path, problem = next(
        (path, answer)
        for path, answer in zip(paths, found, strict=True)
        if not isinstance(answer, bool)
    )
    raise PruneError(
        f"no row was dropped: {readable(os.fsdecode(path))} cannot be looked at: "
        f"{problem.strerror or problem}. Mend the disk or mount, and run the same command again."
    ) from problem


def _is_gone(row: Seen) -> bool:
    try:
        if not stat.S_ISDIR(os.stat(row.path).st_mode) or row.given:
            return False
        os.scandir(row.path).close()
    except (OSError, ValueError) as error:
        return leads_nowhere(error) and (row.there or not row.given)
    return True


def _is_empty(folder: bytes) -> bool | OSError:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:  # it is there
        return False
    except OSError as error:
        return error
