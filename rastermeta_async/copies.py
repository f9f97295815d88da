"""Objects of which only parts are at hand, as files that rasterio can open."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_NAME_BYTES = 255
"""Of a file's name, at the most (NAME_MAX of most file systems)."""


@contextmanager
def sparse_copy(name: bytes, parts: Mapping[int, bytes], size: int) -> Iterator[bytes]:
    """Hold a file for a while that is alone in its folder.

    Args:
        name: what it is called; one that no file can have is left out.
        parts: bytes by offset; what lies between them is zeros that take no space.
        size: bytes of the file.
    """
    usable = 0 < len(name) <= _NAME_BYTES and b"\0" not in name and name not in (b".", b"..")
    with tempfile.TemporaryDirectory(prefix="rastermeta-") as folder:
        path = os.path.join(os.fsencode(folder), name if usable else b"object")
        with open(path, "wb") as file:
            for offset, content in parts.items():
                file.seek(offset)
                file.write(content)
            file.truncate(size)
        yield path
