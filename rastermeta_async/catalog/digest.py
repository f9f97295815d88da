"""Digests of files for the log: computed while a file is written, checked while it is read."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa

from rastermeta_async.catalog.checkpoint import damaged
from rastermeta_async.catalog.durable import open_regular
from rastermeta_async.model.errors import CheckpointError
from rastermeta_async.model.row_ops import count_failures
from rastermeta_async.model.streams import write_all

BLOCK_BYTES = 1024 * 1024
_HASH_BYTES = 16


class Digest:
    """The BLAKE2b-128 digests of all blocks of a file, hexadecimal, one after the other."""

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
        """Return the digests of all bytes added so far."""
        return self._done if self._room == BLOCK_BYTES else self._done + self._block.hexdigest()


def digest_of(file: IO[bytes]) -> str:
    """Return the digest of the rest of an open file."""
    digest = Digest()
    while content := file.read(BLOCK_BYTES):
        digest.update(content)
    return digest.hexdigest()


class VerifiedFile(io.RawIOBase):
    """Reads a file that this program wrote and checks each block against its digest.

    Args:
        path: of the file.
        digest: the file's digest according to the log.

    Raises:
        CheckpointError: the file cannot be opened, or is not what the log says (a wrong number of
            blocks at once, other content from `read`).
        ForeignOutputError: it is not a regular file.
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
        """Return `size` bytes, or all bytes that are left; fewer only at the end."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        pieces = []
        while self._at < end:
            number, start = divmod(self._at, BLOCK_BYTES)
            pieces.append(self._checked(number)[start : start + end - self._at])
            self._at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # base: any buffer
        """Fill a buffer; return how many bytes were read."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _checked(self, number: int) -> bytes:
        """Return a verified block; the last one read is cached."""
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
        """Set the position in the file; return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        """Return the position in the file."""
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
    """Turn errors of reading a file that this program wrote into a CheckpointError.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise damaged(path, f"it cannot be read: {reason}") from error


def _new_hash(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=_HASH_BYTES)


WRITE_BYTES = 256 * 1024
"""Size of the write buffer, as pyarrow writes a Parquet file in pieces of some hundred bytes."""

_MAX_UNHASHED = 4
"""Writes that may wait for the digest."""

_LARGE_WRITE = 512 * 1024
"""Bytes; only one larger write may wait."""


class Counted:
    """Passes batches on and counts their rows and failures."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0
        self.failures = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            self.failures += count_failures(batch)
            yield batch


class Content(io.RawIOBase):
    """Writes a file and keeps its size and digest; ignores all writes after `finish`.

    pyarrow writes a footer when a writer is discarded; that footer must not reach the file.
    Another thread computes the digest, which takes as long as copying a row group.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = Digest()
        self._hashing = ThreadPoolExecutor(1)
        self._unhashed: deque[Future[None]] = deque()
        self._finished = False
        self.size = 0

    def write(self, data: Any, /) -> int:
        """Write all of `data`."""
        if not self._finished:
            # The caller reuses its buffer, and the buffer's items may be larger than a byte.
            content = data if isinstance(data, bytes) else bytes(data)
            most = _MAX_UNHASHED if len(content) <= _LARGE_WRITE else 1
            while len(self._unhashed) >= most:
                self._unhashed.popleft().result()
            self._unhashed.append(self._hashing.submit(self._digest.update, content))
            write_all(self._fd, content)
            self.size += len(content)
        return len(data)

    def writable(self) -> bool:
        """Return True, as pyarrow asks."""
        return True

    def tell(self) -> int:
        """Return the bytes written so far."""
        return self.size

    def finish(self) -> None:
        """Wait for the digest, and ignore all writes from now on."""
        self._finished = True
        self._hashing.shutdown()

    @property
    def digest(self) -> str:
        """Digest of all bytes written, in the form of the log; valid after `finish`."""
        return self._digest.hexdigest()
