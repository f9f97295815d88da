"""Files that get their final name when they are complete."""

from __future__ import annotations

import contextlib
import os

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


class Temporary:
    """A temporary file next to its final name; removed at the end, unless it was published.

    Two runs that write the same name do not mix: the second one ends at once.

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


def file_at(path: str) -> Identity | None:
    """Return the identity of a file that may be replaced; refuse what is no regular file."""
    rights_at(path)
    return identity(path)
