"""One writer at a time: files that a process locks, which the kernel frees when it ends.

A locked file may be replaced meanwhile, so who has the lock looks whether the file is still there.
"""

from __future__ import annotations

import contextlib
import os
import time

from rastermeta_async.catalog.durable import Rights, check_owner, create, open_regular, remove
from rastermeta_async.errors import OutputLockedError

if os.name == "posix":
    import fcntl

_LOCK_ATTEMPTS = 5
_LOCK_PAUSE = 0.02
"""Seconds between attempts to take a lock."""


def open_locked(path: str, rights: Rights | None = None) -> int:
    """Open `path` for appending (made when missing) and lock it for this process.

    The kernel frees the lock when the process ends, however it ends.

    Args:
        path: of the file.
        rights: of a new file; None: those of any new file.

    Raises:
        OutputLockedError: another process holds the lock.
        ForeignOutputError: it is no regular file, or another user's.
    """
    while True:
        fd = _open_or_create(path, rights)
        try:
            lock(fd, path)
            if _is_at(fd, path):
                check_owner(os.fstat(fd), path)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # replaced between open and lock: take the new one


def _open_or_create(path: str, rights: Rights | None) -> int:
    with contextlib.suppress(FileExistsError):
        if not os.path.lexists(path):
            return create(path, rights, os.O_APPEND)
    return open_regular(path, os.O_RDWR | os.O_APPEND)


def remove_unlocked(path: str) -> None:
    """Remove a leftover of a process that locked it and has ended.

    Raises:
        OutputLockedError: it has not ended.
    """
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return
    try:
        lock(fd, path)
        remove(path)
    finally:
        os.close(fd)


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
    fd = open_regular(path)
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
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
