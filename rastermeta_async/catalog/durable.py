"""Files, folders and locks: writes that survive a crash and leave files of others alone.

One process at a time writes an output. It holds a lock, which the kernel releases when the process
ends. A file may be replaced while it is locked, so the holder checks that the file is still there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import IO, Any, NamedTuple

from rastermeta_async.model.errors import ForeignOutputError, OutputLockedError, WriteError

_ADVICE = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "get the right to write there, or give another -o"
) | dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "make that folder, or give another -o")
_ADVICE |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "let more files be open (ulimit -n)")
_IS_LINUX = sys.platform == "linux"
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of open(2): do not follow a link, do not wait for a pipe."""

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
    """Wait until the content and size of `fd` are on the disk."""
    _sync_data(fd)


def sync_folder(path: str) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder_of(path: str) -> str:
    """Return the folder that holds `path`, ``.`` for a bare name."""
    return os.path.dirname(path) or "."


class Identity(NamedTuple):
    """Tells a file from any other file that has, or had, the same name."""

    device: int
    inode: int
    size: int
    mtime: int
    """Nanoseconds."""

    @property
    def lasting(self) -> str:
        """The part that stays when the file is copied to another disk with its times."""
        return f"{self.size} bytes of {self.mtime}"

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the identity of the file that has this status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def identity(path: str) -> Identity | None:
    """Return the identity of the file, folder or link at a path; None: there is nothing."""
    try:
        return Identity.of(os.lstat(path))
    except FileNotFoundError:
        return None


class Rights(NamedTuple):
    """Permissions and owners of a file."""

    mode: int
    """The nine permission bits."""
    uid: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> Rights:
        """Return the rights of the file that has this status."""
        return cls(status.st_mode & 0o777, status.st_uid, status.st_gid)

    @property
    def ours(self) -> Rights:
        """The same rights, owned by the user that runs this program."""
        return self._replace(uid=os.geteuid())

    def give(self, fd: int, *, folder: bool = False) -> None:
        """Give these rights to an open file or folder, as far as the system allows it.

        Nobody gets more permissions: if the group cannot be set, no group gets any permission.
        """
        mode = self.mode
        if folder:  # a user who may read the files may also search the folder
            mode |= 0o700 | (mode & 0o444) >> 2
        if (status := os.fstat(fd)).st_uid != self.uid:
            with contextlib.suppress(OSError):
                os.fchown(fd, self.uid, -1)
        if status.st_gid != self.gid:
            try:
                os.fchown(fd, -1, self.gid)
            except OSError:
                mode &= ~0o070
        with contextlib.suppress(OSError):  # some file systems have no permissions
            os.fchmod(fd, mode)


def publish(temporary: str, final: str, stood: Identity | None = None) -> Identity:
    """Give a finished, synced file its final name, durably; return the file's identity.

    Replaces only the file `stood`, which is removed. If publishing fails, the temporary file is
    removed. If the process is killed in between, the file `stood` may have the temporary's name.

    Some systems can neither exchange two names nor refuse to replace one (most network disks
    cannot exchange names). There, a file of another program is lost if it appears in the
    microseconds between the last check and the rename.

    Args:
        temporary: path of the file, on the disk of `final`.
        final: the final path.
        stood: the file that may be replaced; None: none may.

    Raises:
        ForeignOutputError: something else has the final name; it is left alone.
    """
    try:
        new = Identity.of(os.lstat(temporary))
        if identity(final) is None:
            done = _take(temporary, final)
        else:
            done = _replace(temporary, final, stood)
        if not done:
            raise ForeignOutputError(
                f"{final} was put there or changed by another program while this one was at work, "
                "and is left as it is. What was committed before is safe: move that file away, "
                "then run the same command again."
            )
    except (OSError, ForeignOutputError):
        remove(temporary)
        raise
    sync_folder(folder_of(final))
    return new


def _take(temporary: str, final: str) -> bool:
    """Give a file a name that is free; return False if the name is taken."""
    try:
        if not _renamed(temporary, final, _NOREPLACE):
            os.link(temporary, final)
            remove(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return _replace(temporary, final, None)
    return True


def _replace(temporary: str, final: str, stood: Identity | None) -> bool:
    """Give a file the name of the file `stood`; return False if another file has that name."""
    if identity(final) != stood:
        return False
    if not _renamed(temporary, final, _EXCHANGE):
        os.replace(temporary, final)
        return True
    if identity(temporary) != stood:
        _renamed(temporary, final, _EXCHANGE)
        return False
    os.unlink(temporary)
    return True


_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
"""Flags of renameat2(2): fail if the new name is taken; exchange the names of two files."""

_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK})
"""Errors of a system or disk that does not support renameat2(2), its flags, or hard links."""


def _renamed(old: str, new: str, how: int) -> bool:
    """Rename with renameat2(2); return False if the system does not support it."""
    if (call := _renameat2()) is None:
        return False
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), how) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), new)


@cache
def _renameat2() -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _IS_LINUX else None


def rights_at(path: str) -> Rights | None:
    """Return the rights of the file at a path; None: there is no file.

    Raises:
        ForeignOutputError: something other than a regular file is there.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    check_regular(status, path)
    return Rights.of(status)


def temporary_beside(path: str) -> str:
    """Return an unguessable name for a temporary file that is to become the file at `path`."""
    return f"{path}.{secrets.token_hex(8)}.tmp"


def temporaries_beside(path: str, *, folders: bool = False) -> list[str]:
    """Return this user's files, or folders, that have a name like those from `temporary_beside`."""
    own = re.compile(re.escape(os.path.basename(path)) + r"\.[0-9a-f]{16}\.tmp")
    with os.scandir(folder_of(path)) as entries:
        return [
            os.path.join(os.path.dirname(path), entry.name)
            for entry in entries
            if own.fullmatch(entry.name)
            and (entry.is_dir if folders else entry.is_file)(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
        ]


@contextlib.contextmanager
def created(path: str, rights: Rights | None = None) -> Iterator[IO[bytes]]:
    """Open a new unbuffered file at `path`; sync it on leaving, remove it after an error.

    Args:
        path: of the file; nothing may exist there, not even a link.
        rights: of the file; None: the default rights of a new file.
    """
    with open(create(path, rights), "r+b", buffering=0) as file:
        try:
            yield file
            os.fsync(file.fileno())
        except BaseException:
            remove(path)
            raise


def create(path: str, rights: Rights | None, flags: int = 0) -> int:
    """Make a file and open it; arguments as for `created`. O_EXCL follows no link (POSIX)."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_EXCL | _CAREFULLY
    fd = os.open(path, flags, 0o666 if rights is None else 0o600)
    if rights is not None:
        rights.give(fd)
    return fd


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, without following a link or waiting for a pipe.

    Raises:
        ForeignOutputError: it is something else, for example a link.
        OSError: as os.open raises.
    """
    check_regular(os.lstat(path), path)
    return _passed(os.open(path, flags | _CAREFULLY), check_regular, path)


def _passed(fd: int, check: Callable[[os.stat_result, str], None], path: str) -> int:
    """Return the file descriptor if the file passes a check, else close it and raise."""
    try:
        check(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_regular(status: os.stat_result, path: str) -> None:
    """Raise ForeignOutputError if a status is not of a regular file; `path` is for the message."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise ForeignOutputError(f"{path} is {kind}: move it away, or give another -o")


_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def open_folder(path: str) -> int:
    """Open a folder that belongs to this program.

    Raises:
        ForeignOutputError: it is a link, not a folder, or another user's.
        OSError: as os.open raises.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _CAREFULLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ForeignOutputError(
            f"{path} is a link, or no folder, but parts are to be kept there: move it away, or "
            "give another -o"
        ) from error
    return _passed(fd, check_owner, path)


def check_owner(status: os.stat_result, path: str) -> None:
    """Raise ForeignOutputError if another user made the file or folder at `path`.

    The owner of the folder around it is trusted. So is everybody if that folder lets others
    replace its files (a folder that a group shares), as nothing protects the files there.
    """
    folder = os.stat(folder_of(path))
    shared = folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX
    if status.st_uid not in (os.geteuid(), folder.st_uid) and not shared:
        raise ForeignOutputError(
            f"{path} belongs to user {status.st_uid}, and this run is user {os.geteuid()}'s, who "
            "may not trust it: run it as that user, or have the file belong to this one (chown), "
            "or give another -o"
        )


def ensure_folder(path: str, rights: Rights | None = None) -> None:
    """Make a folder, durably, if it does not exist.

    Args:
        path: of the folder.
        rights: of the files that the folder is for; None: the default rights of a new file.

    Raises:
        ForeignOutputError: a link, a file, or another user's folder has this path.
    """
    try:
        os.mkdir(path, 0o777 if rights is None else 0o700)
    except FileExistsError:
        os.close(open_folder(path))
        return
    if rights is not None:
        fd = open_folder(path)
        try:
            rights.give(fd, folder=True)
        finally:
            os.close(fd)
    sync_folder(folder_of(path))


def remove(path: str) -> None:
    """Remove a leftover file; ignore errors, as the next run tries again."""
    with contextlib.suppress(OSError):
        os.unlink(path)


_LOCK_ATTEMPTS = 5
_LOCK_PAUSE = 0.02
"""Seconds between attempts to take a lock."""


def open_locked(path: str, rights: Rights | None = None) -> int:
    """Open `path` for appending and lock it for this process; make the file if it is missing.

    The kernel releases the lock when the process ends, however it ends.

    Args:
        path: of the file.
        rights: of a new file; None: the default rights of a new file.

    Raises:
        OutputLockedError: another process holds the lock.
        ForeignOutputError: it is not a regular file, or it belongs to another user.
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
        os.close(fd)  # the file was replaced between open and lock: open the new one


def _open_or_create(path: str, rights: Rights | None) -> int:
    with contextlib.suppress(FileExistsError):
        if not os.path.lexists(path):
            return create(path, rights, os.O_APPEND)
    return open_regular(path, os.O_RDWR | os.O_APPEND)


def remove_unlocked(path: str) -> None:
    """Remove a file that a process locked, if that process has ended.

    Raises:
        OutputLockedError: the process still runs.
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
        time.sleep(_LOCK_PAUSE)  # `is_locked` in another process holds the lock for an instant
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
    """Lock an open file without waiting; tell whether it is locked now."""
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
