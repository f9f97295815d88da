"""What of a source's paths is to be read: those without a row, or whose row is out of date."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rastermeta_async.catalog.changes import Unchanged, stamp_of
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.timeouts import BATCH, answers
from rastermeta_async.model.urls import FoundPath, local_path
from rastermeta_async.sources.paths import Source
from rastermeta_async.sources.walk import Walked

_MAX_UNANSWERED = 3
"""Batches of files with a timeout, after which the disk is no longer asked for changes."""


@dataclass
class Inputs:
    """The paths of a source, without those that need no reading."""

    source: Source
    finished: PathSet | Unchanged
    """Paths that are done already."""
    seen: PathSet
    """Paths given so far in this run; grows."""
    timeout: float = 60.0
    """Timeout in seconds for the disk to say whether a file has changed."""
    failed: PathSet = field(default_factory=PathSet)
    """Paths that have an error row from earlier runs."""
    given: PathSet = field(default_factory=PathSet)
    """Paths of `failed` that are among the inputs of this run; grows."""
    no_rasters: PathSet = field(default_factory=PathSet)
    """Paths that are known to be no rasters; they are read again if they were not found, but named.

    They are not in `finished`, unless that tells which files have changed."""
    strict: bool | None = None
    """See `Settings.strict`."""
    _unanswered: int = 0

    async def to_read(self, paths: Sequence[bytes]) -> list[bytes]:
        """Return the new paths that need a row, and the folders whose row is outdated."""
        files = list(map(local_path, paths))
        walked = [path for path in files if isinstance(path, Walked)]
        if walked:
            files = [path for path in files if not isinstance(path, Walked)]
        self.given.add_new(self.failed.known(files))
        if isinstance(self.finished, Unchanged):  # it asks the disk
            new = self.seen.add_new(files)
            unread = await asyncio.to_thread(self._changed, self.finished, new)
            if len(self.no_rasters):
                known = set(self.no_rasters.known(new)).difference(unread)
                unread += self._named(known)
        else:
            unread = self.seen.add_new(self.finished.missing(files))
            if len(self.no_rasters):
                known = set(self.no_rasters.known(unread))
                named = self._named(known)
                unread = [path for path in unread if path not in known or path in named]
        if self.strict is not None:
            unread = [*map(_as_named if self.strict else _as_found, unread)]
        # A folder that is given as a file, too, keeps its row.
        only_walked = self.given.missing(self.seen.add_new(walked))
        return self.failed.known(only_walked) + unread

    def _named(self, paths: Collection[bytes]) -> set[bytes]:
        """Return the paths that are to have a row even if they are no rasters."""
        if self.strict is not None:
            return set(paths) if self.strict else set()
        return {path for path in paths if not isinstance(path, FoundPath)}

    def _changed(self, unchanged: Unchanged, paths: list[bytes]) -> list[bytes]:
        """Return the paths that have changed, or whose state the disk does not report in time.

        The pool then finds out what is wrong. After `_MAX_UNANSWERED` timeouts, all further paths
        are returned without asking the disk.
        """
        found: list[bytes] = []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            if self._unanswered < _MAX_UNANSWERED:
                now = answers(self.timeout, stamp_of, some)
                self._unanswered += any(isinstance(stamp, TimeoutError) for stamp in now)
                some = unchanged.changed(some, now)
            found += some
        return found


def _as_named(path: bytes) -> bytes:
    return bytes(path) if isinstance(path, FoundPath) else path


def _as_found(path: bytes) -> bytes:
    return FoundPath(path) if type(path) is bytes else path


def files_among(paths: Sequence[bytes]) -> int:
    """Return how many paths are no folders that a walk only mentions."""
    return sum(not isinstance(path, Walked) for path in paths)
