"""Files that get their final name when they are complete, or are removed.

A run that was killed leaves its temporary files behind; the next run with the same output removes
them. The kernel's lock tells them from those of a run that is still at work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from rastermeta_async.catalog.durable import (
    Identity,
    create,
    identity,
    lock,
    publish,
    remove,
    remove_unlocked,
    rights_at,
    temporaries_beside,
    temporary_beside,
)
from rastermeta_async.catalog.names import log_path
from rastermeta_async.model.errors import OutputError, WriteError


@contextlib.contextmanager
def unchanged_on_error(output: str, option: str = "-o") -> Iterator[None]:
    """Turn an OSError into a WriteError that says that the earlier output is unchanged.

    Args:
        output: the name of the output.
        option: the option that gives it.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{output}: writing failed: {error.strerror or error}. What stood there before is as "
            f"it was: mend that, or give another {option}, then run the same command again."
        ) from error


def check_is_no_catalog(output: str, *, catalog: str) -> None:
    """Raise OutputError if an export of a catalog would replace that one, or another."""
    same = os.path.exists(output) and os.path.exists(catalog) and os.path.samefile(output, catalog)
    if same or os.path.exists(log_path(output)):
        raise OutputError(f"{output} is a catalog: give the output another name")


class Temporary:
    """A temporary file next to its final name; removed at the end, unless it was published.

    Two exports to the same name do not mix: the second one ends at once.

    Args:
        final: the final name.
        kind: distinguishes temporary files of the same final name.
    """

    def __init__(self, final: str, kind: str = "") -> None:
        self._final = final
        self._name = final + kind
        self._path = temporary_beside(self._name)

    def __enter__(self) -> Temporary:
        fd = create(self._path, rights_at(self._final))
        self.file = open(fd, "w+b", buffering=1024 * 1024)  # closed on leaving
        try:
            lock(fd, self._path)
            for other in temporaries_beside(self._name):
                if other != self._path:
                    remove_unlocked(other)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._path:
            remove(self._path)
        with contextlib.suppress(OSError):  # a full disk again; the error was already raised
            self.file.close()

    def publish(self, final: str, stood: Identity | None) -> None:
        """Give the file its final name durably; it replaces the file `stood`."""
        self.file.flush()
        os.fsync(self.file.fileno())
        publish(self._path, final, stood)
        self._path = ""


class TemporaryFolder:
    """A folder for the files of a library that writes to names, not to open files.

    It is next to the output, so that a finished file can be renamed. It is removed at the end, with
    all that is in it. Two exports to the same name do not mix: the second one ends at once.

    Args:
        output: the name of the output.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self.path = temporary_beside(output)

    def __enter__(self) -> TemporaryFolder:
        os.mkdir(self.path, 0o700)
        self._fd = _opened_folder(self.path)
        try:
            lock(self._fd, self.path)
            for other in temporaries_beside(self._output, folders=True):
                if other != self.path:
                    _remove_unlocked_folder(other)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)

    def file(self, name: str) -> str:
        """Return the path of a file of this name in the folder."""
        return os.path.join(self.path, name)

    def publish(self, name: str, final: str, stood: Identity | None) -> None:
        """Give the file `name` its final name durably; it replaces the file `stood`."""
        path = self.file(name)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if rights := rights_at(final):
                rights.give(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        publish(path, final, stood)


def _opened_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _remove_unlocked_folder(path: str) -> None:
    """Remove a folder that a process locked, if that process has ended."""
    try:
        fd = _opened_folder(path)
    except FileNotFoundError:
        return
    try:
        lock(fd, path)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)


def file_at(path: str) -> Identity | None:
    """Return the identity of a file that may be replaced; refuse what is no regular file."""
    rights_at(path)
    return identity(path)
