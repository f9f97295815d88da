"""Writes that survive a crash: synced files, renames, folders, and one writer at a time.

POSIX promises nothing about a file's content after a failed fsync(2), so nothing here
retries one: the caller starts again with a new file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterator
from typing import IO

from rastermeta_async.errors import OutputLockedError, WriteError

if os.name == "posix":
    import fcntl

_ADVICE = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "get the right to write there, or give another -o"
) | dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "make that folder, or give another -o")
_ADVICE |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "let more files be open (ulimit -n)")
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE = 0.02
"""Seconds between attempts to take a lock."""

_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


@contextlib.contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a WriteError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, "free space or mend the disk")
        raise WriteError(
            f"{path}: {doing} failed: {reason}. What was committed before is safe: {advice}, then "
            "run the same command again to go on."
        ) from error


def sync_file(fd: int) -> None:
    """Return when the content and size of `fd` are on the disk."""
    _sync_data(fd)


def sync_folder(path: str) -> None:
    """Return when the names in a folder are on the disk."""
    if os.name != "posix":  # Windows cannot open a folder; its renames are journalled
        return
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a pipe that its other end made non-blocking, and that is full
            select.select([], [fd], [])


def folder_of(path: str) -> str:
    """Return the folder that holds `path`, ``.`` for a bare name."""
    return os.path.dirname(path) or "."


def publish(temporary: str, final: str) -> None:
    """Give a finished, synced file its final name, durably; it is removed when that fails."""
    try:
        os.replace(temporary, final)
    except OSError:
        remove(temporary)
        raise
    sync_folder(folder_of(final))


@contextlib.contextmanager
def created(path: str) -> Iterator[IO[bytes]]:
    """Open a new unbuffered file at `path`; synced on leaving, removed when that fails."""
    with open(path, "wb", buffering=0) as file:
        try:
            yield file
            os.fsync(file.fileno())
        except BaseException:
            remove(path)
            raise


def ensure_folder(path: str) -> None:
    """Make a folder, durably, unless it is there."""
    if not os.path.isdir(path):
        os.mkdir(path)
        sync_folder(folder_of(path))


def remove(path: str) -> None:
    """Remove a leftover if that is possible: the next run tries again."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def open_locked(path: str) -> int:
    """Open `path` for appending (made when missing) and lock it for this process.

    The kernel frees the lock when the process ends, however it ends.

    Raises:
        OutputLockedError: another process holds the lock.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            lock(fd, path)
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # replaced between open and lock: take the new one


def lock(fd: int, path: str) -> None:
    """Lock an open file for this process; `path` is for the message.

    Raises:
        OutputLockedError: another process holds the lock.
    """
    for _ in range(_LOCK_ATTEMPTS):
        if _locked(fd, exclusively=True):
            return
        time.sleep(_LOCK_PAUSE)  # `is_locked` of another process holds it for an instant
    raise OutputLockedError(
        f"{path} is locked: another run is writing this output. Wait for it, stop it, or "
        "give another -o."
    )


def is_locked(path: str) -> bool:
    """Tell whether another process holds the lock on the file at `path`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return not _locked(fd, exclusively=False)
    finally:
        os.close(fd)


def _locked(fd: int, *, exclusively: bool) -> bool:
    """Lock an open file if that needs no waiting; tell whether it is locked now."""
    if os.name != "posix":  # no advisory locks: there the open handle itself bars a rename
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
