"""Local files that rasterio can open, made from parts of objects."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from rastermeta_async.model.errors import StoreError

_NAME_BYTES = 255
"""Longest name of a file (NAME_MAX of most file systems)."""


@contextmanager
def sparse_copy(name: bytes, parts: Mapping[int, bytes], size: int) -> Iterator[bytes]:
    """Hold a temporary file, alone in its folder, while the context is open; yield its path.

    Args:
        name: of the file; a name that no file can have is replaced.
        parts: bytes by offset; zeros that take no space fill the gaps.
        size: bytes of the file.

    Raises:
        StoreError: the file cannot be written.
    """
    usable = 0 < len(name) <= _NAME_BYTES and b"\0" not in name and name not in (b".", b"..")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rastermeta-"))
            path = os.path.join(os.fsencode(folder), name if usable else b"object")
            _write(path, parts, size)
        except OSError as error:
            raise StoreError(
                f"no copy of its header can be put into {error.filename or tempfile.gettempdir()}: "
                f"{error.strerror}. Make room there, or set TMPDIR, and read it again with "
                "--retry-failed."
            ) from error
        yield path


def _write(path: bytes, parts: Mapping[int, bytes], size: int) -> None:
    with open(path, "xb") as file:  # the fence allows new files only
        for offset, content in parts.items():
            file.seek(offset)
            file.write(content)
        file.truncate(size)
