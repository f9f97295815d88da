"""Walks folders: finds the files below them, also if a disk is slow or never answers.

A path that does not answer, or cannot be listed, is retried after all others: a disk that has to
spin up, or a mount that has to appear, is slow once. If the retries fail, a row says so.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Protocol, Self

from rastermeta_async.model.file_state import leads_nowhere
from rastermeta_async.model.raster_folders import (
    is_mark,
    is_raster_file,
    is_raster_folder,
    is_raster_name,
)
from rastermeta_async.model.record import GONE, Record, failure
from rastermeta_async.model.settings import MAX_STUCK
from rastermeta_async.model.timeouts import AT_ONCE, answers, no_answer, started
from rastermeta_async.model.urls import FoundPath

_ASKED_AGAIN = 2
"""Retries of a path that does not answer."""

_NAMES_A_BLOCK = 1000
_NAMES_AHEAD = 4000
"""Names in finished blocks that may wait for the caller; each thread also has its own block."""

_PAUSE_SECONDS = 0.01
_OWN_SECONDS = 0.2
"""Seconds that a thread itself may take on a busy machine, besides the time of the disk."""

_SLOW_SECONDS = 0.001
"""If a listing takes longer than this, plus `_NAME_SECONDS` a name, more threads start."""

_NAME_SECONDS = 0.00001
_QUICK_IN_A_ROW = 8
"""Folders listed quickly in a row after which a thread leaves the rest to the others."""


class Walked(bytes):
    """A folder that was listed: its row from an earlier run, if any, is outdated."""

    def row(self) -> Record:
        """Return the tombstone of the row from an earlier run."""
        return failure(self, GONE, "Walked", "the folder was walked")


class NotWalked(bytes):
    """A path that could not be listed, or of which it is unknown whether it is a folder."""

    problem: OSError

    @classmethod
    def of(cls, path: bytes, problem: OSError) -> Self:
        """Return a path with its problem."""
        note = cls(path)
        note.problem = problem
        return note

    def row(self) -> Record:
        """Return the row that tells the problem, whatever state the folder is in now."""
        waited = isinstance(self.problem, TimeoutError) and not self.problem.errno
        kind = "Timeout" if waited else type(self.problem).__name__
        message = (
            f"{self.problem.strerror or self.problem}: this was not walked, and what is in this "
            "folder is missing; once it answers, run the same command again with --retry-failed"
        )
        return failure(self, "fatal", kind, message)


FolderNote = Walked | NotWalked
"""A path whose row the walk itself makes: no reader gets it."""


class InputKind(Enum):
    """What an input is."""

    FILE = auto()
    FOLDER = auto()
    MISSING = auto()


def kinds_of(paths: Sequence[bytes], timeout: float) -> list[InputKind | OSError]:
    """Return the kind of each path, or the error of the question, e.g. no answer in time."""
    kinds: list[InputKind | OSError] = []
    for start in range(0, len(paths), AT_ONCE):  # so few that a path that hangs delays no other
        kinds += answers(timeout, _kind_of, paths[start : start + AT_ONCE])
    return kinds


def _kind_of(path: bytes) -> InputKind | OSError:
    try:
        return InputKind.FOLDER if stat.S_ISDIR(os.stat(path).st_mode) else InputKind.FILE
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not leads_nowhere(error):
            return error
        return InputKind.FILE if os.path.lexists(path) else InputKind.MISSING


class _Below(bytes):
    """A folder, with the number of bytes by which paths below it exceed those that globs match."""

    start: int

    @classmethod
    def top(cls, path: bytes) -> Self:
        """Return a folder that is walked."""
        return cls.of(path, len(path.rstrip(b"/")) + 1)

    @classmethod
    def of(cls, path: bytes, start: int) -> Self:
        """Return a folder below one that is walked."""
        folder = cls(path)
        folder.start = start
        return folder


class PathFilter(Protocol):
    """Chooses among the files and folders below a folder that is walked."""

    def take(self, path: bytes) -> bool:
        """Tell whether a file is taken; `path` is relative to what is walked."""
        ...

    def take_folder(self, path: bytes) -> bool:
        """Tell whether a folder is walked; `path` as for `take`, without a slash at its end."""
        ...


def walk(
    inputs: Iterable[bytes],
    suffixes: tuple[bytes, ...] = (),
    timeout: float = 60.0,
    globs: PathFilter | None = None,
) -> Iterator[bytes]:
    """Yield the inputs that are files, and as `FoundPath` the files below those that are folders.

    Links to files are followed, links to folders are not (unless they are an input), so there are
    no loops. A folder is yielded as `Walked` once it is listed, as `NotWalked` if this fails. A
    folder that is one raster (see `raster_folders`) is yielded like a file.

    Args:
        inputs: paths; missing ones are yielded, too.
        suffixes: lower-case endings of the names taken from folders; empty: all.
        timeout: seconds that the disk may take for an answer; it is asked three times at most.
        globs: chooses among what is below the folders; None: all is taken.
    """
    walker = _Walker(suffixes, timeout, globs)
    rest = iter(inputs)
    while some := list(itertools.islice(rest, AT_ONCE)):
        yield from walker.walk(some)
    for _ in range(_ASKED_AGAIN):
        again, walker.put_off = [*walker.put_off], {}
        yield from walker.walk(again)
    yield from itertools.starmap(NotWalked.of, walker.put_off.items())


class _Walker:
    """Walks folders, and notes those that do not answer for a retry."""

    def __init__(
        self, suffixes: tuple[bytes, ...], timeout: float, globs: PathFilter | None
    ) -> None:
        self.put_off: dict[bytes, OSError] = {}
        """Paths to retry, with their problems."""
        self._suffixes = suffixes
        self._globs = globs
        self._timeout = timeout
        self._hanging: set[_Lister] = set()

    def walk(self, paths: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the paths that are files, and the files below the paths that are folders."""
        told = zip(kinds_of(paths, self._timeout), paths, strict=True)
        for are_folders, some in itertools.groupby(told, lambda one: one[0] is InputKind.FOLDER):
            if are_folders:
                yield from self._below([path for _, path in some])
                continue
            for kind, path in some:
                if isinstance(kind, OSError):
                    yield from self._put_off(path, kind)
                else:
                    yield path

    def _put_off(self, path: bytes, problem: OSError) -> Iterator[bytes]:
        """Note a path for a retry if that may help and few wait for one, else yield `NotWalked`."""
        if len(self.put_off) < MAX_STUCK and not isinstance(problem, PermissionError):
            self.put_off[path] = problem
        else:
            yield NotWalked.of(path, problem)

    def _below(self, tops: Sequence[bytes]) -> Iterator[bytes]:
        if self._globs:  # a folder that is listed again need not be at the top
            tops = [top if isinstance(top, _Below) else _Below.top(top) for top in tops]
        way = _Way(tops, self._suffixes, self._timeout, self._hanging, self._globs)
        try:
            while block := way.take():
                yield from block.found
                yield from self._not_folders(block.links)
                for path, error in block.failed:
                    yield from self._put_off(path, error)
        finally:
            way.leave()

    def _not_folders(self, links: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the links that do not lead to a folder, and those that do not answer."""
        kinds = kinds_of(links, self._timeout)
        yield from (
            link for link, kind in zip(links, kinds, strict=True) if kind != InputKind.FOLDER
        )


@dataclass
class _Block:
    """What was found in some folders, or in a part of a large one."""

    found: list[bytes] = field(default_factory=list)
    """Files, and a `Walked` for each folder that was listed completely."""
    links: list[bytes] = field(default_factory=list)
    failed: list[tuple[bytes, OSError]] = field(default_factory=list)
    names: int = 0
    """Number of names listed for it, wanted or not."""

    def __iadd__(self, other: _Block) -> Self:
        """Add another block, even one to which another thread still adds."""
        self.found += other.found
        self.links += other.links
        self.failed += other.failed
        self.names += other.names
        return self


@dataclass(eq=False)
class _Lister:
    """A thread that lists folders."""

    folder: bytes | None = None
    """The folder that it lists."""
    block: _Block = field(default_factory=_Block)
    """What it found and has not handed on yet."""
    folders: list[bytes] = field(default_factory=list)
    """Folders that it found in the folder and has not handed on yet."""
    names: int = 0
    """Number of names in the folder, so far."""
    started: float = 0.0
    since: float = math.inf
    """When it last asked the disk; infinite while it does not wait for the disk."""
    quick: int = 0
    """Folders in a row that it listed quickly."""
    left: bool = False
    """Whether its results are no longer wanted."""

    def drop_all(self) -> None:
        """Drop what was found in the folder."""
        self.folders = []
        self.block = _Block(names=1)

    def add_whole(
        self, folder: bytes, suffixes: tuple[bytes, ...], globs: PathFilter | None
    ) -> None:
        """Add the folder itself, which is a raster, if it may be wanted."""
        if not folder.lower().endswith(suffixes or b""):
            return
        if globs and isinstance(folder, _Below):
            below = folder[folder.start :]
            if below and not globs.take(below):
                return
        self.block.found.append(FoundPath(folder))

    def add(
        self, entry: os.DirEntry[bytes], suffixes: tuple[bytes, ...], globs: PathFilter | None
    ) -> None:
        """Add an entry of the folder, if it may be wanted."""
        self.names += 1
        self.block.names += 1
        try:
            folder = entry.is_dir(follow_symlinks=False)
        except OSError as error:  # it may be a folder
            self.block.failed.append((entry.path, error))
            return
        if globs and isinstance(self.folder, _Below):
            start = self.folder.start
            if not (globs.take_folder if folder else globs.take)(entry.path[start:]):
                return
            if folder:
                self.folders.append(_Below.of(entry.path, start))
                return
        if folder:
            self.folders.append(entry.path)
        elif entry.name.lower().endswith(suffixes or b""):
            path = FoundPath(entry.path)
            (self.block.links if entry.is_symlink() else self.block.found).append(path)


class _Way:
    """A walk through folders, whose threads list ahead of the caller (prefetch).

    One thread lists quick folders; up to `AT_ONCE` threads list slow folders. Threads that hang are
    left behind, and as many fewer list on. The names of a folder are handed on together: those of
    a large folder part after part, while the other threads wait.

    Args:
        tops: folders to be listed, in order.
        suffixes: see `walk`.
        timeout: seconds that the disk may take for an answer.
        hanging: the threads that this walk and others left behind; it is modified.
        globs: see `walk`; with it, the folders are `_Below`.
    """

    def __init__(
        self, tops: Sequence[bytes], suffixes: tuple[bytes, ...], timeout: float,
        hanging: set[_Lister], globs: PathFilter | None = None,
    ) -> None:  # fmt: skip
        self._folders = [*reversed(tops)]  # the last one is listed first
        self._suffixes = suffixes
        self._globs = globs
        self._timeout = timeout
        self._hanging = hanging
        self._listers: set[_Lister] = set()
        self._ahead = _Block()  # handed on, but not taken yet
        self._floor: _Lister | None = None  # the thread that hands on a large folder
        self._broken: BaseException | None = None
        self._changed = threading.Condition()

    def take(self) -> _Block | None:
        """Return what was found since the last call; None: there is no more."""
        with self._changed:
            self._help(1 - len(self._listers))
            while self._listers or self._ahead.names:
                self._changed.wait_for(self._is_worth_taking, _PAUSE_SECONDS)
                if self._broken:
                    raise self._broken
                if self._ahead.names:
                    block, self._ahead = self._ahead, _Block()
                    self._changed.notify_all()
                    return block
                self._leave_behind(time.monotonic() - self._timeout - _OWN_SECONDS)
                self._help(1)
            return None

    def _is_worth_taking(self) -> bool:
        return self._ahead.names >= _NAMES_A_BLOCK or not self._listers

    def leave(self) -> None:
        """Make the threads end as soon as the disk answers them."""
        with self._changed:
            self._folders.clear()
            for lister in self._listers:
                lister.left = True
            self._changed.notify_all()

    def _help(self, number: int) -> None:
        """Start up to `number` further threads, as far as folders and `AT_ONCE` allow."""
        most = max(1, AT_ONCE - len(self._hanging))
        for _ in range(min(number, len(self._folders), most - len(self._listers))):
            lister = _Lister()
            try:
                started(partial(self._list_all, lister))
            except RuntimeError:  # the system starts no further thread
                if not self._listers:
                    raise
                return
            self._listers.add(lister)  # the thread waits for the lock

    def _leave_behind(self, last: float) -> None:
        """Go on without the threads that have waited for the disk since before `last`."""
        for lister in [one for one in self._listers if one.since < last]:
            self._end(lister)
            lister.left = True
            self._hanging.add(lister)
            self._folders += lister.folders
            self._ahead += lister.block
            problem = lister.folder or b"", no_answer(self._timeout)
            self._ahead += _Block(failed=[problem], names=1)

    def _end(self, lister: _Lister) -> None:
        self._listers.discard(lister)
        self._hanging.discard(lister)
        if self._floor is lister:
            self._floor = None
        self._changed.notify_all()

    # The methods below run in the threads.

    def _list_all(self, lister: _Lister) -> None:
        """List folder after folder, until none is left or enough other threads list."""
        try:
            while folder := self._next_folder(lister):
                try:
                    if self._list(lister, folder):
                        lister.block.found.append(Walked(folder))
                except OSError as error:
                    lister.block.failed.append((folder, error))
        except BaseException as error:  # noqa: BLE001  # raised again by `take`
            self._broken = error
        finally:
            with self._changed:
                self._end(lister)

    def _next_folder(self, lister: _Lister) -> bytes | None:
        """Return the next folder; None: the thread has handed on all it has, and must end."""
        lister.since = math.inf  # from here on it does not wait for the disk
        with self._changed:
            if lister.folder is not None:
                self._finish(lister)
            is_spare = lister.quick >= _QUICK_IN_A_ROW and len(self._listers) > 1
            if lister.left or is_spare or not self._folders:
                self._end(lister)  # under the same lock: others may rely on it
                return None
            lister.folder, lister.names = self._folders.pop(), 0
            lister.since = lister.started = time.monotonic()
            return lister.folder

    def _finish(self, lister: _Lister) -> None:
        """Hand on what was found in a folder; if it was slow, start more threads."""
        seconds = time.monotonic() - lister.started - lister.names * _NAME_SECONDS
        lister.quick = lister.quick + 1 if seconds < _SLOW_SECONDS else 0
        lister.block.names += 1  # the folder's own name
        if self._hand_on(lister) and not lister.quick:
            self._help(len(self._listers))
        if self._floor is lister:
            self._floor = None
            self._changed.notify_all()

    def _hand_on(self, lister: _Lister) -> bool:
        """Hand on what a thread has, once there is room; False: it is no longer wanted."""
        start = time.monotonic()
        if not lister.left:
            self._folders += lister.folders
        lister.folders = []
        self._changed.wait_for(lambda: lister.left or self._has_room_for(lister))
        if not lister.left:
            self._ahead += lister.block
            if self._is_worth_taking():
                self._changed.notify_all()
        lister.block = _Block()
        lister.started += time.monotonic() - start
        return not lister.left

    def _has_room_for(self, lister: _Lister) -> bool:
        return self._ahead.names < _NAMES_AHEAD and self._floor in (None, lister)

    def _list(self, lister: _Lister, folder: bytes) -> bool:
        """List a folder; False: it was not only walked, as it is a raster, or not to its end."""
        is_raster, has_others, is_first_part = is_raster_name(folder), False, True
        with closing(os.scandir(folder)) as entries:
            for entry in entries:
                is_raster = is_raster or is_mark(entry.name)
                has_others = has_others or is_raster_file(entry.name)
                lister.add(entry, self._suffixes, self._globs)
                lister.since = time.monotonic()
                if lister.block.names < _NAMES_A_BLOCK:
                    continue
                if is_first_part:  # what is handed on is not taken back
                    is_raster = is_raster or is_raster_folder(folder)
                    if is_raster and not has_others:
                        break
                is_first_part = False
                if not self._hand_on_part(lister):
                    return False
        if is_raster and is_first_part:
            if not has_others:
                lister.drop_all()
            lister.add_whole(folder, self._suffixes, self._globs)
        return not is_raster

    def _hand_on_part(self, lister: _Lister) -> bool:
        """Hand on what a thread has before its folder ends; False: it is no longer wanted."""
        lister.since = math.inf
        with self._changed:
            is_wanted = self._hand_on(lister)
            if is_wanted:
                self._floor = lister
                lister.since = time.monotonic()
            return is_wanted
