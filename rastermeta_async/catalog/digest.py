"""The digests that the log holds: made while a file is written, checked while it is read.

A file has one digest a block, so that each block is checked before a byte of it is used, in
whatever order the blocks are read, and nothing has to be read twice.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pyarrow as pa

from rastermeta_async.catalog.checkpoint import damaged
from rastermeta_async.catalog.durable import open_regular
from rastermeta_async.errors import CheckpointError

BLOCK_BYTES = 1024 * 1024
_HASH_BYTES = 16


class Digest:
    """BLAKE2b-128 of each block of a file, hexadecimal, one after the other."""

    def __init__(self, content: bytes | memoryview = b"") -> None:
        self._done = ""
        self._block = _new_hash()
        self._room = BLOCK_BYTES
        self.update(content)

    def update(self, content: bytes | memoryview) -> None:
        """Add bytes of the file."""
        view = memoryview(content)
        while view:
            some, view = view[: self._room], view[self._room :]
            self._block.update(some)
            self._room -= len(some)
            if not self._room:
                self._done = self.hexdigest()
                self._block, self._room = _new_hash(), BLOCK_BYTES

    def hexdigest(self) -> str:
        """Return the digests of the bytes so far."""
        return self._done if self._room == BLOCK_BYTES else self._done + self._block.hexdigest()


def digest_of(file: IO[bytes]) -> str:
    """Return the digest of the rest of an open file."""
    digest = Digest()
    while content := file.read(BLOCK_BYTES):
        digest.update(content)
    return digest.hexdigest()


class VerifiedFile(io.RawIOBase):
    """A file that this program wrote: what is read of it is what the log says.

    Args:
        path: of the file.
        digest: what the log says.

    Raises:
        CheckpointError: the file cannot be opened, or (from `read`) is not what the log says.
        ForeignOutputError: it is no regular file.
    """

    def __init__(self, path: str, digest: str) -> None:
        super().__init__()
        self._path = path
        self._digest = digest
        with undamaged(path):
            self._file = open(open_regular(path), "rb", buffering=0)  # noqa: SIM115  # see `close`
        self._size = os.fstat(self._file.fileno()).st_size
        self._at = 0
        self._number = -1
        self._block = b""
        if -(-self._size // BLOCK_BYTES) * 2 * _HASH_BYTES != len(digest):
            self.close()
            raise self._changed()

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, or all that there are; fewer only at the end."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        pieces = []
        while self._at < end:
            number, start = divmod(self._at, BLOCK_BYTES)
            pieces.append(self._checked(number)[start : start + end - self._at])
            self._at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # any buffer there
        """Fill a buffer; return how many bytes that took."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _checked(self, number: int) -> bytes:
        """Return a block; the last one is kept."""
        if number != self._number:
            with undamaged(self._path):
                content = os.pread(self._file.fileno(), BLOCK_BYTES, number * BLOCK_BYTES)
            at = number * 2 * _HASH_BYTES
            if _new_hash(content).hexdigest() != self._digest[at : at + 2 * _HASH_BYTES]:
                raise self._changed()
            self._number, self._block = number, content
        return self._block

    def _changed(self) -> CheckpointError:
        return damaged(self._path, "its content is not what the log says")

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place in the file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        """Return the place in the file."""
        return self._at

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def undamaged(path: str) -> Iterator[None]:
    """Hold that what is read of a file that this program wrote can be read.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise damaged(path, f"it cannot be read: {reason}") from error


def _new_hash(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=_HASH_BYTES)
