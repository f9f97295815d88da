"""Inputs that are folders: the files below them, also where a disk is slow or never answers.

What does not answer, or cannot be listed, is asked again when all else was walked: a disk that has
to spin up, or a mount that has to come, is slow once. What cannot be listed even then is said.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Self

from rastermeta_async.model.file_state import leads_nowhere
from rastermeta_async.model.record import GONE, Record, failure
from rastermeta_async.model.settings import MAX_STUCK
from rastermeta_async.model.timeouts import AT_ONCE, answers, no_answer, started

_ASKED_AGAIN = 2
"""Times that what does not answer is asked again."""

_NAMES_A_BLOCK = 1000
_NAMES_AHEAD = 4000
"""Names in finished blocks that may wait to be taken; each thread has a block besides."""

_PAUSE_SECONDS = 0.01
_OWN_SECONDS = 0.2
"""That a thread may take for itself on a busy machine, beside the disk."""

_SLOW_SECONDS = 0.001
"""A folder whose listing takes longer, besides `_NAME_SECONDS` for each name, is worth threads."""

_NAME_SECONDS = 0.00001
_QUICK_IN_A_ROW = 8
"""Folders listed quickly after which a thread leaves the rest to the others."""


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


class InputKind(Enum):
    """What an input is."""

    FILE = auto()
    FOLDER = auto()
    MISSING = auto()


def kinds_of(paths: Sequence[bytes], timeout: float) -> list[InputKind | OSError]:
    """Tell what each of some paths is, or why that cannot be told, e.g. no answer in time."""
    kinds: list[InputKind | OSError] = []
    for start in range(0, len(paths), AT_ONCE):  # so few that each which hangs costs no other
        kinds += answers(timeout, _kind_of, paths[start : start + AT_ONCE])
    return kinds


def _kind_of(path: bytes) -> InputKind | OSError:
    try:
        return InputKind.FOLDER if stat.S_ISDIR(os.stat(path).st_mode) else InputKind.FILE
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not leads_nowhere(error):
            return error
        return InputKind.FILE if os.path.lexists(path) else InputKind.MISSING


def walk(
    inputs: Iterable[bytes], suffixes: tuple[bytes, ...] = (), timeout: float = 60.0
) -> Iterator[bytes]:
    """Yield the inputs that are files, and the files below those that are folders.

    Links to files are followed, links to folders are not (unless they are an input), so there are
    no loops. A folder is yielded as `Walked` once it is listed, as `NotWalked` where it cannot be.

    Args:
        inputs: paths; what does not exist is yielded, too.
        suffixes: lower-case endings of the names taken from folders; empty: all.
        timeout: seconds that the disk may take for an answer, three times at the most.
    """
    walker = _Walker(suffixes, timeout)
    rest = iter(inputs)
    while some := list(itertools.islice(rest, AT_ONCE)):
        yield from walker.walk(some)
    for _ in range(_ASKED_AGAIN):
        again, walker.put_off = [*walker.put_off], {}
        yield from walker.walk(again)
    yield from itertools.starmap(NotWalked.of, walker.put_off.items())


class _Walker:
    """Walks folders, and puts off those that do not answer."""

    def __init__(self, suffixes: tuple[bytes, ...], timeout: float) -> None:
        self.put_off: dict[bytes, OSError] = {}
        """Paths to be asked again, and what was wrong."""
        self._suffixes = suffixes
        self._timeout = timeout
        self._hanging: set[_Lister] = set()

    def walk(self, paths: Sequence[bytes]) -> Iterator[bytes]:
        """Yield those of some paths that are files, and the files below those that are folders."""
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
        """Have a path asked again, if that may help; there are bounds to what is waited for."""
        if len(self.put_off) < MAX_STUCK and not isinstance(problem, PermissionError):
            self.put_off[path] = problem
        else:
            yield NotWalked.of(path, problem)

    def _below(self, tops: Sequence[bytes]) -> Iterator[bytes]:
        way = _Way(tops, self._suffixes, self._timeout, self._hanging)
        try:
            while block := way.take():
                yield from block.found
                yield from self._not_folders(block.links)
                for path, error in block.failed:
                    yield from self._put_off(path, error)
        finally:
            way.leave()

    def _not_folders(self, links: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the links that lead to no folder, as far as they answer."""
        kinds = kinds_of(links, self._timeout)
        yield from (
            link for link, kind in zip(links, kinds, strict=True) if kind != InputKind.FOLDER
        )


@dataclass
class _Block:
    """What was found in some folders, or in a part of a large one."""

    found: list[bytes] = field(default_factory=list)
    """Files, and notes of the folders that were listed to their end."""
    links: list[bytes] = field(default_factory=list)
    failed: list[tuple[bytes, OSError]] = field(default_factory=list)
    names: int = 0
    """That were listed for it, wanted or not."""

    def __iadd__(self, other: _Block) -> Self:
        """Add what was found elsewhere, whatever another thread still adds to that."""
        self.found += other.found
        self.links += other.links
        self.failed += other.failed
        self.names += other.names
        return self


@dataclass(eq=False)
class _Lister:
    """A thread that lists folders."""

    folder: bytes | None = None
    """That it lists."""
    block: _Block = field(default_factory=_Block)
    """What it found there and has not handed on."""
    folders: list[bytes] = field(default_factory=list)
    """In this one."""
    names: int = 0
    """In the folder, so far."""
    started: float = 0.0
    since: float = math.inf
    """When it asked the disk what that has not answered."""
    quick: int = 0
    """Folders in a row that it listed quickly."""
    left: bool = False
    """Whether nobody takes what it finds any more."""

    def add(self, entry: os.DirEntry[bytes], suffixes: tuple[bytes, ...]) -> None:
        """Add an entry of the folder, where it may be wanted."""
        self.names += 1
        self.block.names += 1
        try:
            folder = entry.is_dir(follow_symlinks=False)
        except OSError as error:  # it may be a folder
            self.block.failed.append((entry.path, error))
            return
        if folder:
            self.folders.append(entry.path)
        elif entry.name.lower().endswith(suffixes or b""):
            (self.block.links if entry.is_symlink() else self.block.found).append(entry.path)


class _Way:
    """A way through folders: threads go it ahead of who takes what they find.

    One thread goes it where folders are listed at once. Where that takes long there are up to
    `AT_ONCE`; those that hang are left behind, and as many fewer list on. A folder's names are
    handed on together: where they are many, part after part, while the other threads wait.

    Args:
        tops: folders to be listed, in order.
        suffixes: see `walk`.
        timeout: seconds that the disk may take for an answer.
        hanging: the threads that were left behind, of this way and others; changes.
    """

    def __init__(
        self, tops: Sequence[bytes], suffixes: tuple[bytes, ...], timeout: float,
        hanging: set[_Lister],
    ) -> None:  # fmt: skip
        self._folders = [*reversed(tops)]  # the last one is listed first
        self._suffixes = suffixes
        self._timeout = timeout
        self._hanging = hanging
        self._listers: set[_Lister] = set()
        self._ahead = _Block()  # what was handed on and not taken
        self._floor: _Lister | None = None  # hands on a large folder
        self._broken: BaseException | None = None
        self._changed = threading.Condition()

    def take(self) -> _Block | None:
        """Return what was found since the last time; None: there is no more."""
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
        """Have the threads end as soon as the disk lets them."""
        with self._changed:
            self._folders.clear()
            for lister in self._listers:
                lister.left = True
            self._changed.notify_all()

    def _help(self, number: int) -> None:
        """Start so many threads more, as far as there is work, and room, for them."""
        most = max(1, AT_ONCE - len(self._hanging))
        for _ in range(min(number, len(self._folders), most - len(self._listers))):
            lister = _Lister()
            try:
                started(partial(self._list_all, lister))
            except RuntimeError:  # the system starts no further thread
                if not self._listers:
                    raise
                return
            self._listers.add(lister)  # it waits for the lock

    def _leave_behind(self, last: float) -> None:
        """Go on without the threads that the disk has not answered since then."""
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

    # What follows is done in the threads.

    def _list_all(self, lister: _Lister) -> None:
        """List folder after folder, until there is none or enough others do."""
        try:
            while folder := self._next_folder(lister):
                try:
                    self._list(lister, folder)
                    lister.block.found.append(Walked(folder))
                except OSError as error:
                    lister.block.failed.append((folder, error))
        except BaseException as error:  # noqa: BLE001  # raised again by `take`
            self._broken = error
        finally:
            with self._changed:
                self._end(lister)

    def _next_folder(self, lister: _Lister) -> bytes | None:
        """Go on to the next folder; None: the thread has handed on all it has, and is to end."""
        lister.since = math.inf  # from here on it is not the disk that it waits for
        with self._changed:
            if lister.folder is not None:
                self._finish(lister)
            is_spare = lister.quick >= _QUICK_IN_A_ROW and len(self._listers) > 1
            if lister.left or is_spare or not self._folders:
                self._end(lister)  # in the same breath: another one may count on it
                return None
            lister.folder, lister.names = self._folders.pop(), 0
            lister.since = lister.started = time.monotonic()
            return lister.folder

    def _finish(self, lister: _Lister) -> None:
        """Hand on what a folder has, and have as many threads as the time it took shows are due."""
        seconds = time.monotonic() - lister.started - lister.names * _NAME_SECONDS
        lister.quick = lister.quick + 1 if seconds < _SLOW_SECONDS else 0
        lister.block.names += 1  # its own
        if self._hand_on(lister) and not lister.quick:
            self._help(len(self._listers))
        if self._floor is lister:
            self._floor = None
            self._changed.notify_all()

    def _hand_on(self, lister: _Lister) -> bool:
        """Hand on what a thread has, once that may be; False: nobody wants it any more."""
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

    def _list(self, lister: _Lister, folder: bytes) -> None:
        """List a folder."""
        entries = os.scandir(folder)
        for entry in entries:
            lister.add(entry, self._suffixes)
            lister.since = time.monotonic()
            if lister.block.names >= _NAMES_A_BLOCK and not self._hand_on_part(lister):
                entries.close()
                return

    def _hand_on_part(self, lister: _Lister) -> bool:
        """Hand on what a thread has before its folder ends; False: nobody wants it any more."""
        lister.since = math.inf
        with self._changed:
            is_wanted = self._hand_on(lister)
            if is_wanted:
                self._floor = lister
                lister.since = time.monotonic()
            return is_wanted
