"""The paths of one `Pool.read`: shared out to threads, brought back as rows in their order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock

import pyarrow as pa

from rastermeta_async.config import CHUNK_BYTES
from rastermeta_async.record import Record

SLICE_SECONDS = 0.25
"""Rows come back after this time, however few they are."""

HELD_BYTES = 8 * CHUNK_BYTES
"""Of records that wait for those before them, or to be taken; beyond, no further path is read."""


class Chunk:
    """Paths that threads take one by one, and the records that they bring.

    `take`, `put` and `collect` are for threads; all else is for the event loop.

    Args:
        paths: at least one.
    """

    def __init__(self, paths: Sequence[bytes]) -> None:
        self.paths = paths
        self._lock = Lock()
        self._next = 0
        self._records: dict[int, Record] = {}
        """Those that were not collected, by the place of their path."""
        self._collected = 0
        """Records in batches, taken or not: of so many first paths."""
        self._collected_at = time.monotonic()
        self._collecting = False
        self._ready: deque[tuple[pa.RecordBatch, int]] = deque()
        """Batches, and what they weigh."""
        self._held = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether there are paths that nobody has taken."""
        return self._next < len(self.paths) and not self._closed

    @property
    def full(self) -> bool:
        """Whether what was read has to be taken before more is read."""
        return self._held >= HELD_BYTES

    def take(self) -> int | None:
        """Return the place of a path to be read now; None: there is none."""
        with self._lock:
            if not self.open or self.full:
                return None
            self._next += 1
            return self._next - 1

    def put(self, at: int, record: Record) -> int:
        """Keep the record of a path that was taken; return roughly its bytes."""
        weight = _weight(record)
        with self._lock:
            self._records[at] = record
            self._held += weight
        return weight

    def collect(self, *, all_of_them: bool = False) -> None:
        """Make rows of the records up to the first one that is missing, where it is time to."""
        while some := self._next_records(all_of_them=all_of_them):
            batch = _rows_of(some)
            with self._lock:
                self._ready.append((batch, sum(map(_weight, some))))
                self._collecting = False

    def _next_records(self, *, all_of_them: bool) -> list[Record]:
        """Return the records of a batch; others then do not, until that is ready."""
        with self._lock:
            if self._collecting:
                return []
            some: list[Record] = []
            room = CHUNK_BYTES
            while room > 0 and (record := self._records.get(self._collected + len(some))):
                some.append(record)
                room -= _weight(record)
            is_last = self._collected + len(some) == len(self.paths)
            in_time = time.monotonic() < self._collected_at + SLICE_SECONDS
            if not some or (room > 0 and in_time and not (is_last or all_of_them)):
                return []
            for at in range(self._collected, self._collected + len(some)):
                del self._records[at]
            self._collected += len(some)
            self._collected_at = time.monotonic()
            self._collecting = True
            return some

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches that are ready, in the order of the paths."""
        while self._ready:
            batch, weight = self._ready.popleft()
            with self._lock:
                self._held -= weight
            self._changed.set()
            yield batch

    def close(self) -> None:
        """Have no further path taken."""
        self._closed = True

    async def change(self) -> None:
        """Wait until something may have changed since this was called last."""
        await self._changed.wait()
        self._changed.clear()

    def note_change(self) -> None:
        """Wake those who wait for a change."""
        self._changed.set()


def _rows_of(records: Sequence[Record]) -> pa.RecordBatch:
    # Not at the top: a run that leaves the reading to worker processes has no use for rasterio.
    from rastermeta_async.footprints.rows import rows_of

    return rows_of(records)


def _weight(record: Record) -> int:
    """Return roughly the bytes of a record's parts that can be large."""
    of_dataset = record.dataset_tags or {}, record.imagery_tags or {}
    tags = *of_dataset, *(record.band_tags or {}).values()
    text = sum(len(key) + len(value) for some in tags for key, value in some.items())
    return text + len(record.filepath) + 100 * len(record.bands or ()) + len(record.crs or "")
