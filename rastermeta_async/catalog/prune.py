"""Find rows whose file is gone, and drop them with tombstones that survive a crash.

A tombstone is a row of status ``gone``, in a part that has only tombstones; sealing leaves it out.
Objects in stores are not checked.
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
from rastermeta_async.model.raster_folders import is_raster_folder
from rastermeta_async.model.record import GONE, failure, readable, to_batch
from rastermeta_async.model.timeouts import BATCH, answers
from rastermeta_async.model.urls import is_url


class Seen(NamedTuple):
    """A path, and what was there when it was read."""

    path: bytes
    there: bool
    """Whether anything existed at the path."""
    given: bool
    """Whether the run still asks for the path; then a row that says what is wrong stays."""


_SHOWN = 3
"""Limit of folders that a message names."""

_FOLDERS = 4096
"""Limit of folders that are remembered, so that each is checked only once."""


def gone(rows: Iterable[Seen], timeout: float) -> Iterator[bytes]:
    """Yield the local paths that lead to no file.

    They lead to nothing, or to folders that can be listed (the files in them have their own rows).

    Args:
        rows: the rows of the catalog.
        timeout: seconds that the disk may take to answer for a path.

    Raises:
        PruneError: the disk has not answered in time.
    """
    local = (row for row in rows if not is_url(row.path))
    while some := list(itertools.islice(local, BATCH)):
        paths = [row.path for row in some]
        are_gone = _answered(paths, answers(timeout, _is_gone, some))
        yield from itertools.compress(paths, are_gone)


def check_folders(rows: Iterable[Seen], timeout: float) -> None:
    """Raise PruneError if whole folders are gone or empty, as when a disk is not mounted.

    Args:
        rows: the rows of the catalog; their folders are listed once each.
        timeout: seconds that the disk may take to answer for a folder.
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
    """Return tombstones, which replace the rows of these paths until the next sealing."""
    rows = [failure(path, GONE, "Gone", "the file is gone") for path in paths]
    return pa.Table.from_batches([to_batch(rows)])


def _first_of_each(folders: Iterable[bytes]) -> Iterator[bytes]:
    """Yield folders, except those that are among the latest ones yielded."""
    latest: set[bytes] = set()
    for folder in folders:
        if folder not in latest:
            if len(latest) == _FOLDERS:
                latest.clear()
            latest.add(folder)
            yield folder


def _answered(paths: Sequence[bytes], found: Sequence[bool | OSError]) -> list[bool]:
    """Return the answers for some paths; raise PruneError if a path could not be checked."""
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
        if is_raster_folder(row.path):
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
    except PermissionError:  # the folder exists
        return False
    except OSError as error:
        return error
