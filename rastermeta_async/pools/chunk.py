"""Paths that are read together: threads take them one by one, rows come back in their order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock

import pyarrow as pa

from rastermeta_async.model.record import Reading, Record, as_rows, rough_bytes
from rastermeta_async.model.settings import CHUNK_BYTES

SLICE_SECONDS = 0.25
"""Rows come back after this time, however few they are."""

HELD_BYTES = 8 * CHUNK_BYTES
"""Limit for records and batches that wait to be taken; above it, no further path is read."""


class Chunk:
    """Holds paths that threads take one by one, and the records that the threads bring.

    Any thread may call `take`, `put` and `collect`; all else belongs to the thread of the event
    loop that makes this object.

    Args:
        paths: at least one.
    """

    def __init__(self, paths: Sequence[bytes]) -> None:
        self.paths = paths
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._lock = Lock()
        self._next = 0
        self._closed = False
        self._records: dict[int, tuple[Reading | None, int]] = {}
        """Readings that are not in batches, with their weight, by the index of their path."""
        self._collected = 0
        """Number of records, from the first path on, that are in batches."""
        self._collected_at = time.monotonic()
        self._collecting = False
        self._ready: deque[tuple[pa.RecordBatch, int]] = deque()
        """Batches with their weight."""
        self._held = 0
        self._error: BaseException | None = None

    @property
    def left(self) -> int:
        """How many paths may be taken now."""
        is_open = not (self._closed or self._held >= HELD_BYTES)
        return len(self.paths) - self._next if is_open else 0

    @property
    def is_read(self) -> bool:
        """Whether no further record will come."""
        end = self._next if self._closed else len(self.paths)
        return self._collected + len(self._records) == end

    @property
    def is_collected(self) -> bool:
        """Whether all records so far are in batches."""
        return not (self._records or self._collecting)

    def take(self) -> int | None:
        """Return the index of the next path to read; None: there is none."""
        with self._lock:
            if not self.left:
                return None
            self._next += 1
            return self._next - 1

    def put(self, at: int, record: Reading | None) -> bool:
        """Keep the reading of a path that was taken; tell whether it is time to collect.

        Args:
            at: index of the path.
            record: None: the path was not read, and has no row.
        """
        weight = _weight(record) if record else 0
        with self._lock:
            self._records[at] = record, weight
            self._held += weight
            is_late = time.monotonic() > self._collected_at + SLICE_SECONDS
            return self.is_read or (
                self._collected in self._records and (is_late or self._held >= CHUNK_BYTES)
            )

    def collect(self) -> None:
        """Make batches of the records up to the first one that is missing."""
        while some := self._next_records():
            batch = _rows_with_footprints(_all_rows([reading for reading, _ in some]))
            weight = sum(weight for _, weight in some)
            with self._lock:
                self._ready.append((batch, weight))
                self._collecting = False
        self._loop.call_soon_threadsafe(self._changed.set)

    def _next_records(self) -> list[tuple[Reading, int]]:
        """Return the readings of the next batch; no other thread gets any until it is ready."""
        with self._lock:
            some: list[tuple[Reading, int]] = []
            room = 0 if self._collecting else CHUNK_BYTES
            while room > 0 and (found := self._records.pop(self._collected, None)):
                self._collected += 1
                record, weight = found
                if record:
                    some.append((record, weight))
                    room -= weight
            self._collected_at = time.monotonic()
            self._collecting = self._collecting or bool(some)
            return some

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches that are ready, in the order of the paths.

        Raises:
            Whatever `fail` was given.
        """
        while self._ready:
            batch, weight = self._ready.popleft()
            with self._lock:
                self._held -= weight
            yield batch
        if self._error:
            raise self._error

    def close(self) -> None:
        """Let no further path be taken."""
        self._closed = True
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """Have `batches` raise an error."""
        self._error = error
        self.close()

    async def change(self) -> None:
        """Wait for a change since the last return of this."""
        await self._changed.wait()
        self._changed.clear()

    def note_change(self) -> None:
        """End the wait of `change`."""
        self._changed.set()


def _rows_with_footprints(records: Sequence[Record]) -> pa.RecordBatch:
    # Not at the top: a run with worker processes does not need rasterio itself.
    from rastermeta_async.footprints.rows import rows_with_footprints

    return rows_with_footprints(records)


def _all_rows(readings: list[Reading]) -> list[Record]:
    if list not in map(type, readings):  # nearly always
        return readings  # type: ignore[return-value]  # there are only records
    return [row for reading in readings for row in as_rows(reading)]


def _weight(reading: Reading) -> int:
    return sum(map(rough_bytes, reading)) if isinstance(reading, list) else rough_bytes(reading)
