"""What passes while a catalog is written: rows are counted, bytes measured and digested."""

from __future__ import annotations

import io
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from rastermeta_async.catalog.digest import Digest
from rastermeta_async.catalog.durable import write_all
from rastermeta_async.memory import give_back
from rastermeta_async.rows import count_failures

WRITE_BYTES = 256 * 1024
"""To be written at once: a Parquet file comes in pieces of some hundred bytes."""

_MAX_UNHASHED = 4
"""Writes that may wait to be digested."""

_LARGE_WRITE = 512 * 1024
"""Bytes; of larger writes only one may wait."""

_GIVEN_BACK_AFTER = 4
"""Groups after which freed memory is given back: after each takes a fourth of the time of all."""


def ahead(groups: Iterator[pa.Table]) -> Generator[pa.Table, None, None]:
    """Yield groups, the next of which is made in another thread meanwhile.

    From time to time memory that was freed is given back.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        following: Future[Any] = thread.submit(next, groups, end)
        for number in itertools.count(1):
            if (group := following.result()) is end:
                return
            following = thread.submit(next, groups, end)
            yield group
            if number % _GIVEN_BACK_AFTER == 0:
                give_back()


class Counted:
    """Batches on their way, counted."""

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
    """A file being written: keeps its size and digest; deaf once finished.

    pyarrow writes a footer when a writer is thrown away; nobody is to hear that. Bytes are
    digested in another thread, which takes as long as to copy a row group.
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
            # A buffer is used again, and need not be one of bytes.
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
        """Ignore everything from now on."""
        self._finished = True
        self._hashing.shutdown()

    @property
    def digest(self) -> str:
        """Digest of what was written, as the log has it; once finished."""
        return self._digest.hexdigest()
