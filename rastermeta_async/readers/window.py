"""Bytes of a file, read on demand: the head first, then one window after the other."""

from __future__ import annotations

from rastermeta_async.readers.base import ReadAt, Unsupported

READ_BYTES = 8 * 1024
"""Minimum size of a read after the head: what is at the end of a file is seldom alone."""

MAX_READS = 32


class Window:
    """Bytes of a file, read on demand.

    Args:
        head: the first bytes of the file, or all of it.
        size: bytes of the file.
        read_at: returns further bytes; its exceptions are passed on.
        max_reads: most calls of `read_at`.
    """

    def __init__(self, head: bytes, size: int, read_at: ReadAt, max_reads: int = MAX_READS) -> None:
        self.head = head
        self.size = size
        self._window = b""
        self._start = 0
        self._read_at = read_at
        self._reads = 0
        self._max_reads = max_reads

    def is_at_hand(self, offset: int, size: int) -> bool:
        """Whether these bytes are in memory already."""
        end = offset + size
        start, window = self._start, self._window
        return end <= len(self.head) or (start <= offset and end <= start + len(window))

    def get(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes of the file; raise Unsupported if that is not possible."""
        end = offset + size
        if end <= len(self.head):
            return self.head[offset:end]
        if not (self._start <= offset and end <= self._start + len(self._window)):
            if end > self.size or self._reads >= self._max_reads:
                raise Unsupported("values outside the file or all over it")
            self._reads += 1
            self._window = self._read_at(offset, max(size, READ_BYTES))
            self._start = offset
            if len(self._window) < size:
                raise Unsupported("values outside the file or all over it")
        return self._window[offset - self._start : end - self._start]
