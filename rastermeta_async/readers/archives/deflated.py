"""Unpacks the first bytes of what is compressed with deflate, as far as they are asked for.

References: RFC 1951 (deflate), RFC 1952 (gzip).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from rastermeta_async.readers.archives.entries import taken
from rastermeta_async.readers.base import ReadAt, Unsupported

MAX_HEAD_BYTES = 1024 * 1024
"""Unpacked bytes that are kept; GDAL reads members whose header is farther."""

_BLOCK_BYTES = 16 * 1024
"""Packed bytes of the first read; further ones are longer, so that a store gets few requests."""

_MAX_BLOCK_BYTES = 256 * 1024

RAW, GZIP = -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS
"""Window bits of zlib: without a header, and with that of gzip."""


class DeflatedContent:
    """Compressed bytes whose beginning is unpacked on demand.

    Args:
        packed: returns the packed bytes.
        packed_size: their number.
        size: unpacked bytes.
        kind: `RAW` or `GZIP`.
    """

    def __init__(self, packed: ReadAt, packed_size: int, size: int, kind: int) -> None:
        self._packed = packed
        self._packed_size = packed_size
        self._size = size
        self._at = 0
        self._block = _BLOCK_BYTES
        self._unpacker = zlib.decompressobj(kind)
        self._head = bytearray()

    def read_at(self, offset: int, size: int) -> bytes:
        """See `MemberContent.read_at`."""
        end = min(offset + size, self._size)
        if end > MAX_HEAD_BYTES:
            raise Unsupported("far from the beginning of compressed bytes")
        self._unpack(end)
        return taken(bytes(self._head[:end]), self._size, offset, size)

    def _unpack(self, end: int) -> None:
        unpacker = self._unpacker
        while len(self._head) < end and not unpacker.eof:
            packed = unpacker.unconsumed_tail or self._next_block()
            if not packed:
                break
            try:
                self._head += unpacker.decompress(packed, max(end - len(self._head), 1))
            except zlib.error as error:
                raise Unsupported(f"its compressed bytes are damaged: {error}") from error

    def _next_block(self) -> bytes:
        size = min(self._block, self._packed_size - self._at)
        if size <= 0:
            return b""
        block = self._packed(self._at, size)
        self._at += len(block)
        self._block = min(2 * self._block, _MAX_BLOCK_BYTES)
        return block


class UnpackedStream:
    """A compressed archive as a file that is read forwards, for `tarfile`.

    Args:
        packed: returns the packed bytes of the archive, from its first one on.
        packed_size: their number.
        most: unpacked bytes that may be read or passed over.
        on_block: called from time to time.

    Raises:
        EOFError: more bytes than `most` are asked for.
        zlib.error: the bytes are damaged.
    """

    def __init__(
        self, packed: ReadAt, packed_size: int, most: int, on_block: Callable[[], None]
    ) -> None:
        self._packed = packed
        self._packed_size = packed_size
        self._most = most
        self._on_block = on_block
        self._at = 0
        self._unpacker = zlib.decompressobj(GZIP)
        self._unpacked = 0
        self._ready = b""
        self._ready_at = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes; none may lie before those that were returned last."""
        if offset < self._ready_at:
            raise EOFError("bytes that were passed over")
        while self._ready_at + len(self._ready) < offset + size:
            if offset > self._ready_at:
                self._drop(offset)
            more = self._more()
            if not more:
                break
            self._ready += more
        self._drop(offset)
        return self._ready[:size]

    def _drop(self, offset: int) -> None:
        gone = min(max(offset - self._ready_at, 0), len(self._ready))
        self._ready, self._ready_at = self._ready[gone:], self._ready_at + gone

    def _more(self) -> bytes:
        while True:
            packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:  # gzip files may follow one another (RFC 1952, section 2.2)
                packed = self._unpacker.unused_data.lstrip(b"\0")
                self._unpacker = zlib.decompressobj(GZIP)
            if not packed:
                packed = self._packed(self._at, min(_MAX_BLOCK_BYTES, self._packed_size - self._at))
                self._at += len(packed)
                self._on_block()
            if not packed:
                return b""
            unpacked = self._unpacker.decompress(packed, _MAX_BLOCK_BYTES)
            self._unpacked += len(unpacked)
            if self._unpacked > self._most:
                raise EOFError(f"more than {self._most:,} bytes")
            if unpacked:
                return unpacked
