"""Inputs that are folders: the files below them, also where a disk is slow or never answers.

What does not answer, or cannot be listed, is asked again when all else was walked: a disk that has
to spin up, or a mount that has to come, is slow once. What cannot be listed even then is said.
"""

from __future__ import annotations

import itertools
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import Self

from rastermeta_async.config import MAX_STUCK
from rastermeta_async.missing import leads_nowhere
from rastermeta_async.patience import each_within, within
from rastermeta_async.record import GONE, Record, failure

_ASKED_AGAIN = 2
"""Times that what does not answer is asked again."""

_ASKED_AT_ONCE = 64
_PATHS_A_STEP = 1000
_STEP_SECONDS = 0.2


class Walked(bytes):
    """A folder that was listed: a row that it has from an earlier run is outdated."""

    def row(self) -> Record:
        """Return the row that drops the one there was."""
        return failure(self, GONE, "Walked", "the folder was walked")


class NotWalked(bytes):
    """What could not be listed, or did not tell whether it is a folder."""

    problem: OSError

    @classmethod
    def of(cls, path: bytes, problem: OSError) -> Self:
        """Return a path with what is wrong."""
        note = cls(path)
        note.problem = problem
        return note

    def row(self) -> Record:
        """Return the row that says so, however the folder is by now."""
        waited = isinstance(self.problem, TimeoutError) and not self.problem.errno
        kind = "Timeout" if waited else type(self.problem).__name__
        message = (
            f"{self.problem.strerror or self.problem}: this was not walked, and what is in this "
            "folder is missing; once it answers, run the same command again with --retry-failed"
        )
        return failure(self, "fatal", kind, message)


FolderNote = Walked | NotWalked
"""A path of which a walk itself knows the row: nothing of it is to be read."""


class Kind(Enum):
    """What an input is."""

    FILE = auto()
    FOLDER = auto()
    MISSING = auto()


def kinds_of(paths: Sequence[bytes], patience: float) -> list[Kind | OSError]:
    """Tell what each of some paths is, or why that cannot be told, e.g. no answer in time."""
    kinds: list[Kind | OSError] = []
    for start in range(0, len(paths), _ASKED_AT_ONCE):
        some = paths[start : start + _ASKED_AT_ONCE]
        try:
            kinds += within(patience, partial(_all_kinds, some))
        except TimeoutError as error:
            # One of them does not answer, or all are slow: each has its own time then.
            questions = [partial(_kind_of, path) for path in some]
            answers = each_within(patience, questions) if len(some) > 1 else [None]
            kinds += [answer or error for answer in answers]
    return kinds


def _all_kinds(paths: Sequence[bytes]) -> list[Kind | OSError]:
    return [_kind_of(path) for path in paths]


def _kind_of(path: bytes) -> Kind | OSError:
    try:
        return Kind.FOLDER if stat.S_ISDIR(os.stat(path).st_mode) else Kind.FILE
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not leads_nowhere(error):
            return error
        return Kind.FILE if os.path.lexists(path) else Kind.MISSING


def walk(
    inputs: Iterable[bytes], suffixes: tuple[bytes, ...] = (), patience: float = 60.0
) -> Iterator[bytes]:
    """Yield the inputs that are files, and the files below those that are folders.

    Links to files are followed, links to folders are not (unless they are an input), so there are
    no loops. A folder is yielded as `Walked` once it is listed, as `NotWalked` where it cannot be.

    Args:
        inputs: paths; what does not exist is yielded, too.
        suffixes: lower-case endings of the names taken from folders; empty: all.
        patience: seconds that the disk may take for an answer, three times at the most.
    """
    walker = _Walker(suffixes, patience)
    rest = iter(inputs)
    while some := list(itertools.islice(rest, _ASKED_AT_ONCE)):
        yield from walker.walk(some)
    for _ in range(_ASKED_AGAIN):
        again, walker.put_off = [*walker.put_off], {}
        yield from walker.walk(again)
    yield from itertools.starmap(NotWalked.of, walker.put_off.items())


class _Walker:
    """Walks folders, and puts off those that do not answer."""

    def __init__(self, suffixes: tuple[bytes, ...], patience: float) -> None:
        self.put_off: dict[bytes, OSError] = {}
        """Paths to be asked again, and what was wrong."""
        self._suffixes = suffixes
        self._patience = patience

    def walk(self, paths: Sequence[bytes]) -> Iterator[bytes]:
        """Yield those of some paths that are files, and the files below those that are folders."""
        for path, kind in zip(paths, kinds_of(paths, self._patience), strict=True):
            if isinstance(kind, OSError):
                yield from self._put_off(path, kind)
            elif kind is Kind.FOLDER:
                yield from self._below(path)
            else:
                yield path

    def _put_off(self, path: bytes, problem: OSError) -> Iterator[bytes]:
        """Have a path asked again, if that may help; there are bounds to what is waited for."""
        if len(self.put_off) < MAX_STUCK and not isinstance(problem, PermissionError):
            self.put_off[path] = problem
        else:
            yield NotWalked.of(path, problem)

    def _below(self, top: bytes) -> Iterator[bytes]:
        way = _Way([top], self._suffixes)
        while not way.done:
            try:  # each of the calls of a step may take its time
                within(self._patience + _STEP_SECONDS, way.step)
            except TimeoutError:
                problem = TimeoutError(f"no answer within {self._patience:g} s")
                way = way.without_folder(problem)
            found, links, failed = way.take()
            yield from found
            yield from self._not_folders(links)
            for path, error in failed:
                yield from self._put_off(path, error)

    def _not_folders(self, links: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the links that lead to no folder, as far as they answer."""
        kinds = kinds_of(links, self._patience)
        yield from (link for link, kind in zip(links, kinds, strict=True) if kind != Kind.FOLDER)


class _Way:
    """A way through folders, step by step in a thread that may be left behind.

    Args:
        folders: to be listed, the last one first.
        suffixes: see `walk`.
    """

    def __init__(self, folders: list[bytes], suffixes: tuple[bytes, ...]) -> None:
        self.done = False
        self._folders = folders
        self._suffixes = suffixes
        self._folder = b""
        self._entries: Iterator[os.DirEntry[bytes]] | None = None
        self._found: list[bytes] = []
        self._links: list[bytes] = []
        self._failed: list[tuple[bytes, OSError]] = []
        self._lock = threading.Lock()
        self._left = False

    def take(self) -> tuple[list[bytes], list[bytes], list[tuple[bytes, OSError]]]:
        """Return files, links and problems found since the last time."""
        taken = self._found, self._links, self._failed
        self._found, self._links, self._failed = [], [], []
        return taken

    def without_folder(self, problem: OSError) -> _Way:
        """Return the rest of the way without the folder being listed, which does not answer."""
        with self._lock:
            self._left = True  # from here on a thread that wakes up changes nothing
        way = _Way(self._folders, self._suffixes)
        way._found, way._links = self._found, self._links
        way._failed = [*self._failed, (self._folder, problem)]
        return way

    def step(self) -> None:
        """List some more: a block of names, or what can be listed within `_STEP_SECONDS`."""
        last = time.monotonic() + _STEP_SECONDS
        room = _PATHS_A_STEP
        while room and time.monotonic() < last and self._next_folder():
            try:
                room = self._list(room)
            except OSError as error:
                self._close([(self._folder, error)])

    def _next_folder(self) -> bool:
        """Go on to the next folder where none is being listed; False: there is none."""
        with self._lock:
            if self._left:
                return False
            if self._entries is None:
                self.done = not self._folders
                self._folder = b"" if self.done else self._folders.pop()
        return not self.done

    def _list(self, room: int) -> int:
        """Take up to so many names out of the folder; return how many more there may be."""
        self._entries = self._entries or os.scandir(self._folder)
        for entry in itertools.islice(self._entries, room):
            self._add(entry)
            room -= 1
        if room:
            self._close([])
        return room

    def _add(self, entry: os.DirEntry[bytes]) -> None:
        path, problem, folder = entry.path, None, False
        try:
            folder = entry.is_dir(follow_symlinks=False)
        except OSError as error:  # it may be a folder
            problem = error
        wanted = entry.name.lower().endswith(self._suffixes or b"")
        with self._lock:
            if self._left:
                return
            if problem:
                self._failed.append((path, problem))
            elif folder:
                self._folders.append(path)
            elif wanted:
                (self._links if entry.is_symlink() else self._found).append(path)

    def _close(self, problems: list[tuple[bytes, OSError]]) -> None:
        with self._lock:
            if not self._left:
                self._entries = None
                self._failed += problems
                if not problems:
                    self._found.append(Walked(self._folder))
